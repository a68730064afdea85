"""The network whose weights are made of several networks' weights, array by array (`operations`).

All of them are in memory while it is built; `promot combine` writes the same weights as a checkpoint, one
array after the other.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from promot_jax import paths
from promot_jax.checkpoints import restore, t5x_names
from promot_jax.errors import ConfigError
from promot_jax.identity import Part
from promot_jax.networks import operations
from promot_jax.networks.network import AnyNetwork, Load, contents, require
from promot_jax.networks.operations import Parameters

RECIPE_VALUES = ("CombinedWeights",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CombinedWeights:
  """Networks of one architecture and one vocabulary, and what is done with their weights.

  members: at least one.
  operation: such as `operations.Mean`, `operations.TaskArithmetic` or `ties.Ties`.
  base: the network that the members began with, for operations that need it; else None.
  """

  members: Sequence[AnyNetwork]
  operation: Any
  base: AnyNetwork | None = None

  def __post_init__(self):
    if not isinstance(self.members, list | tuple) or not self.members:
      raise ConfigError(
        f"CombinedWeights.members={self.members!r} must be a list of networks: write"
        " [@one/run.Run(), ...]."
      )
    object.__setattr__(self, "members", tuple(self.members))  # gin and JSON give lists
    for number, member in enumerate(self.members):
      require(member, what=f"CombinedWeights.members[{number}]")
    operations.require(self.operation, what="CombinedWeights.operation")
    check_base(self.operation, self.base is not None)
    if self.base is not None:
      require(self.base, what="CombinedWeights.base")
    self.operation.require(len(self.members))

  @property
  def backbone(self) -> Any:
    return self._networks[0].backbone

  @property
  def vocabulary(self) -> str:
    return self._networks[0].vocabulary

  @property
  def about(self) -> str:
    on = f" on {self.base.about}" if self.base is not None else ""
    return f"{self.operation!r} of {' and '.join(member.about for member in self.members)}{on}"

  @property
  def pretrained(self) -> AnyNetwork:
    if self.base is not None:
      return self.base.pretrained
    first, *others = (member.pretrained for member in self.members)
    same = all(other.identity() == first.identity() for other in others)
    return first if same else self

  @property
  def settings(self) -> dict[str, Any]:
    return {"operation": repr(self.operation)}

  def seeded(self, seed: int) -> "CombinedWeights":
    return self._each(lambda network: network.seeded(seed))

  def spelled(self, vocabulary: str) -> "CombinedWeights":
    return self._each(lambda network: network.spelled(vocabulary))

  def identity(self) -> str:
    parts = ",".join(network.identity() for network in self._networks)
    return f"combined:{self.operation!r}({parts})"

  def content(self) -> Part | None:
    return contents(self._networks, about=self.about)

  def check(self) -> None:
    """As the protocol says; also that all are of one architecture and one vocabulary."""
    check_alike(self._networks)
    for number, network in enumerate(self._networks):
      if network not in self._networks[:number]:
        network.check()

  def abstract(self, *, load: Load | None = None) -> Any:
    del load  # every array is one of its own
    return self._networks[0].abstract()

  def build(
    self,
    mesh: Mesh | None = None,
    *,
    load: Load | None = None,
    report: Callable[[str], None] = lambda line: None,
  ) -> nnx.Module:
    models = [
      load(network) if load else network.build(mesh, report=report) for network in self._networks
    ]
    leaves = [paths.named_leaves(model) for model in models]
    # Once more: `check` need not have been called, and a run's directory may have changed since.
    for others in leaves[1:]:
      restore.check_fit(leaves[0], others)
    report(f"start     {self.about}")
    based = self.base is not None
    parameters = [_parameters(each) for each in leaves]
    combined = self.operation.on(parameters[0] if based else None, parameters[based:])
    return paths.replace_leaves(
      models[0], {name: _placed(name, leaf, combined) for name, leaf in leaves[0].items()}
    )

  @property
  def _networks(self) -> tuple[AnyNetwork, ...]:
    """The base, if there is one, and the members."""
    return (*(() if self.base is None else (self.base,)), *self.members)

  def _each(self, change: Callable[[AnyNetwork], AnyNetwork]) -> "CombinedWeights":
    base = None if self.base is None else change(self.base)
    return dataclasses.replace(self, base=base, members=tuple(map(change, self.members)))


def check_base(operation: operations.Operation, given: bool) -> None:
  """Raises ConfigError unless there is a base exactly where the operation needs one."""
  name = type(operation).__name__
  if operation.based and not given:
    raise ConfigError(f"{name} needs the network that the others began with: give it as the base.")
  if given and not operation.based:
    raise ConfigError(
      f"{name} takes no base; leave it out, or put it among the networks if it is to count as one."
    )


def check_alike(networks: Sequence[AnyNetwork]) -> None:
  """Whether networks are of one architecture and one vocabulary; nothing large is read.

  Raises:
    ConfigError: they are not; of other shapes with a table of them.
  """
  first, *others = networks
  for other in others:
    # Of backbones only the kind: they may differ in dropout or remat, and shapes are compared below.
    kinds = [
      {"vocabulary": each.vocabulary, "backbone": type(each.backbone).__name__}
      for each in (first, other)
    ]
    for name in kinds[0]:
      if kinds[0][name] != kinds[1][name]:
        raise ConfigError(
          f"{first.about} has {name} {kinds[0][name]}, and {other.about} {kinds[1][name]}; weights of"
          " different models cannot be combined."
        )
    restore.check_fit(paths.named_leaves(first.abstract()), paths.named_leaves(other.abstract()))


def _parameters(leaves: Mapping[str, jax.Array]) -> Parameters:
  """The arrays of a built model, one for each layer."""
  places: dict[str, tuple[jax.Array, int | None]] = {}
  for name, leaf in leaves.items():
    layers = t5x_names.stacked_layers(name, leaf)
    for layer, own in enumerate(layers):
      places[own] = (leaf, layer)
    if not layers:
      places[name] = (leaf, None)

  def read(name: str) -> jax.Array:
    leaf, layer = places[name]
    return leaf.astype(jnp.float32) if layer is None else _layer(leaf, layer)

  shapes = {
    name: tuple(leaf.shape if layer is None else leaf.shape[1:])
    for name, (leaf, layer) in places.items()
  }
  return Parameters(shapes=shapes, read=read)


def _placed(name: str, like: jax.Array, combined: operations.Combination) -> jax.Array:
  """An array of the result in the type, the layout and the shards of `like`."""
  layers = t5x_names.stacked_layers(name, like)
  array = _stacked([combined(own) for own in layers]) if layers else combined(name)
  return jax.device_put(array.astype(like.dtype), like.sharding)


@jax.jit  # the layer is an argument, so that all of a stack share one compilation
def _layer(leaf: jax.Array, layer: int) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False).astype(jnp.float32)


_stacked = jax.jit(jnp.stack)
