"""Prefix tuning: trained keys and values before those of every layer (Li & Liang, 2021,
arXiv:2101.00190).

Attention reads [p_1 .. p_P, x_1 .. x_L], where p are parameters of the layer and not images of any
input.  An encoder-decoder has three independent sets: self-attention of the encoder, of the decoder,
and attention to the encoder's output.  Without the small network of `Reparameterization` this is
deep prompt tuning (P-tuning v2, Liu et al., 2022, arXiv:2110.07602).

Libraries differ in what the prefix does to positions, so it is a setting:

| positions | encoder-decoder with relative bias (T5) | learned positions (BART) | decoder-only |
|---|---|---|---|
| 'paper' | none taken, bias 0 toward the prefix | none taken | P before the input |
| 'peft' | P before the first; bias by distance | P before the first | P before the input |
| 'adapterhub' | bias as if keys were P later than queries | none taken | none taken |

Attention to the encoder's output has no positions.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base, prefix_formats, prefix_initializers
from promot_jax.methods import settings as settings_lib
from promot_jax.methods import sites as sites_lib
from promot_jax.methods.formats import Formats
from promot_jax.methods.prefix_initializers import (
  FromArrays,
  FromFile,
  FromWords,
  NormalPrefix,
  PrefixInitializer,
  UniformPrefix,
)
from promot_jax.methods.prefix_module import Prefix
from promot_jax.methods.prefix_network import PrefixNetwork, Reparameterization, SiteNetwork
from promot_jax.methods.sites import Site
from promot_jax.models.kv_cache import KVCache
from promot_jax.models.preparation import Call

__all__ = [
  "FromArrays",
  "FromFile",
  "FromWords",
  "NormalPrefix",
  "Prefix",
  "PrefixInitializer",
  "PrefixTuning",
  "Reparameterization",
  "UniformPrefix",
]

RECIPE_VALUES = (
  "FromArrays",
  "FromFile",
  "FromWords",
  "NormalPrefix",
  "PrefixTuning",
  "Reparameterization",
  "UniformPrefix",
)

NETWORK = "prefix_network"
"""Attribute of the model that holds the network of a reparameterized prefix."""
_POSITIONS = ("paper", "peft", "adapterhub")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefixTuning(base.Method):
  """Trained keys and values in front of every attention.

  Attributes:
    length: P, number of positions.
    sites: of 'encoder', 'decoder' and 'cross'; None: all that the backbone has.
    reparameterization: the network through which the prefix is trained; None: keys and values are
      the parameters.
    initializer: first values.  A network starts at random unless the initializer is `FromWords`,
      `FromArrays` or `FromFile`, to whose values it is fitted.
    positions: 'paper', 'peft' or 'adapterhub': see the module.
    dropout_rate: of keys and values while training (0 in the paper).
    tasks: number of prefixes; above 1, batches must carry `prompt_ids` [B] in [0, tasks).
  """

  parameters: ClassVar[str] = r"(.*/prefix|prefix_network)/.*"
  printed: ClassVar[str] = "Prefix tuning"
  formats: ClassVar[Formats] = prefix_formats.FORMATS

  length: int = 10
  sites: Sequence[str] | None = None
  reparameterization: Reparameterization | None = None
  initializer: PrefixInitializer = dataclasses.field(default_factory=NormalPrefix)
  positions: Literal["paper", "peft", "adapterhub"] = "paper"
  dropout_rate: float = 0.0
  tasks: int = 1

  def __post_init__(self):
    settings_lib.require_counts(self, "length", "tasks")
    if self.sites is not None:
      settings_lib.set_tuple(self, "sites")
      unknown = [name for name in self.sites if name not in sites_lib.PLACES]
      if unknown or not self.sites:
        raise errors.ConfigError(
          f"PrefixTuning.sites is {list(self.sites)}; name one or more of"
          f" {', '.join(sites_lib.PLACES)}, or leave it out for all."
        )
    if self.positions not in _POSITIONS:
      raise errors.ConfigError(
        f"PrefixTuning.positions is {self.positions!r}; use one of {', '.join(_POSITIONS)}."
      )
    settings_lib.require_rate(self, "dropout_rate")
    if not callable(self.initializer):
      raise errors.ConfigError(
        f"PrefixTuning.initializer is {self.initializer!r}, which is no initializer; in a gin file"
        " write @prefix.NormalPrefix() or another one of promot_jax.methods.prefix."
      )

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with a prefix in the slots of its sites; the backbone's arrays are shared.

    Raises:
      ConfigError: the model lacks a site or has a prefix already, or the initializer's values do not
        fit.
    """
    found = sites_lib.chosen(model, self.sites, method="PrefixTuning")
    if sites_lib.occupied(model) or hasattr(model, NETWORK):
      raise errors.ConfigError("The model already has a prefix; detach it before attaching.")
    model = paths.copy(model)
    # One for the network, and one for each task.
    keys = jax.random.split(rngs.params(), self.tasks + 1)
    # Random keys and values would be a target that the network has no reason to be fitted to.
    if self.reparameterization is not None and isinstance(
      self.initializer, (NormalPrefix, UniformPrefix)
    ):
      model.prefix_network = self._network(model, found, keys[0])
      return model
    starts = [
      prefix_initializers.start(
        self.initializer, keys[1 + task], model, found, length=self.length, task=task
      )
      for task in range(self.tasks)
    ]
    if self.reparameterization is not None:
      model.prefix_network = self._network(model, found, keys[0])
      for name in found:
        # Each by itself: networks of two sites share nothing.
        getattr(model.prefix_network, name).fit(
          [start[name] for start in starts],
          steps=self.reparameterization.fit_steps,
          learning_rate=self.reparameterization.fit_learning_rate,
        )
      return model
    for name in found:
      self._fill(model, name, [start[name] for start in starts])
    return model

  def detach(self, model: base.Model) -> base.Model:
    """The model without its prefix.

    Raises:
      ConfigError: the model has no prefix.
    """
    model = paths.copy(model)
    if not sites_lib.occupied(model) and not hasattr(model, NETWORK):
      raise errors.ConfigError("The model has no prefix to detach.")
    sites_lib.empty(model)
    if hasattr(model, NETWORK):
      delattr(model, NETWORK)
    return model

  def fold(self, model: base.Model) -> base.Model:
    """The model with the keys and values that its network computes, and without the network.

    Outputs are equal.  A model without a network is returned as it is.
    """
    if not hasattr(model, NETWORK):
      return model
    model = paths.copy(model)
    network: PrefixNetwork = model.prefix_network
    network.fill(model, Call())
    delattr(model, NETWORK)
    return model

  def folded(self) -> "PrefixTuning":
    """The method of a folded model."""
    return dataclasses.replace(self, reparameterization=None)

  def _network(self, model: nnx.Module, found: dict[str, Site], key: jax.Array) -> PrefixNetwork:
    shape = self.reparameterization
    assert shape is not None
    width = shape.width or model.token_embedder.embedding.shape[1]
    networks = {
      name: SiteNetwork(
        site,
        length=self.length,
        width=width,
        hidden=shape.hidden,
        tasks=self.tasks,
        key=site_key,
      )
      for (name, site), site_key in zip(found.items(), jax.random.split(key, len(found)))
    }
    settings = {name: self._position_settings(model, name) for name in found}
    return PrefixNetwork(networks, settings=settings, drop_rate=self.dropout_rate)

  def _fill(self, model: nnx.Module, name: str, starts: list[KVCache]) -> None:
    # [N G P K], or with the tasks between layers and heads
    cache = starts[0]
    if self.tasks > 1:
      cache = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *starts)
    positions, displacement = self._position_settings(model, name)
    sites_lib.fill(
      model,
      name,
      lambda take: Prefix(
        take(cache.keys),
        take(cache.values),
        tasks=self.tasks,
        positions=positions,
        displacement=displacement,
        drop_rate=self.dropout_rate,
      ),
    )

  def _position_settings(self, model: nnx.Module, site: str) -> tuple[int, int]:
    """(positions counted before 0, by how much relative positions are moved)."""
    # Queries and keys are of two sequences: no distance between them means anything.
    if site == "cross":
      return 0, 0
    # In the paper's code a decoder-only prefix is `past_key_values`, whose positions GPT-2 counts.
    alone = "encoder" not in model.stacks
    if self.positions == "peft" or (self.positions == "paper" and alone):
      return self.length, 0
    stack = model.stacks[sites_lib.PLACES[site][0]]
    # Counted, and moved by as much: keys are taken for P later than queries.
    if self.positions == "adapterhub" and stack.relative_positions:
      return self.length, self.length
    return 0, 0
