"""The network between two: every parameter is the weighted mean of theirs.

    theta = (1 - weight) * theta_first + weight * theta_second

Wortsman et al., 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT): `first` the pretrained network,
`second` the fine-tuned one.  Sums are in float32, and the result has the types of `first`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from promot_jax import identity, paths
from promot_jax.checkpoints import restore
from promot_jax.errors import ConfigError
from promot_jax.identity import Part
from promot_jax.networks.network import AnyNetwork, Load, require

RECIPE_VALUES = ("Interpolated",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolated:
  """Two networks of one architecture, and how far from the first to the second.

  weight: 0 is `first`, 1 is `second`; other numbers go on along the line.
  """

  first: AnyNetwork
  second: AnyNetwork
  weight: float = 0.5

  def __post_init__(self):
    for name in ("first", "second"):
      require(getattr(self, name), what=f"Interpolated.{name}")
    number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
    if not number or not -10 <= self.weight <= 10:
      raise ConfigError(
        f"Interpolated.weight={self.weight!r} must be a number, 0 for the first network and 1 for the"
        " second."
      )

  @property
  def backbone(self) -> Any:
    return self.first.backbone

  @property
  def vocabulary(self) -> str:
    return self.first.vocabulary

  @property
  def about(self) -> str:
    return f"{1 - self.weight:g} of {self.first.about} and {self.weight:g} of {self.second.about}"

  @property
  def pretrained(self) -> AnyNetwork:
    return self.first.pretrained

  @property
  def settings(self) -> dict[str, Any]:
    return {"weight": self.weight}

  def seeded(self, seed: int) -> "Interpolated":
    return dataclasses.replace(self, first=self.first.seeded(seed), second=self.second.seeded(seed))

  def spelled(self, vocabulary: str) -> "Interpolated":
    return dataclasses.replace(
      self, first=self.first.spelled(vocabulary), second=self.second.spelled(vocabulary)
    )

  def identity(self) -> str:
    # Six digits are what earlier versions wrote; a weight that has more must not pass for another.
    short = f"{self.weight:g}"
    weight = short if float(short) == self.weight else repr(self.weight)
    return f"interpolated:{weight}({self.first.identity()},{self.second.identity()})"

  def content(self) -> Part | None:
    parts = [network.content() for network in (self.first, self.second)]
    # What one of them knows is still told: a change of it is a change of the mean.
    if parts == [None, None]:
      return None
    return identity.part([part and part.digest for part in parts], about=self.about)

  def check(self) -> None:
    """As the protocol says; also that the two are of one architecture and one vocabulary."""
    for name in ("vocabulary", "backbone"):
      kinds = [getattr(network, name) for network in (self.first, self.second)]
      # Of backbones only the kind: they may differ in dropout or remat, and shapes are compared
      # below.
      kinds = [type(kind).__name__ for kind in kinds] if name == "backbone" else kinds
      if kinds[0] != kinds[1]:
        raise ConfigError(
          f"Interpolated: the first network has {name} {kinds[0]}, and the second {kinds[1]}; weights of"
          " different models cannot be added."
        )
    # Before the checkpoints are looked at, which takes reading them.
    shapes = [paths.named_leaves(network.abstract()) for network in (self.first, self.second)]
    restore.check_fit(*shapes)
    self.first.check()
    self.second.check()

  def abstract(self, *, load: Load | None = None) -> Any:
    del load  # every array is a mean of its own
    return self.first.abstract()

  def build(
    self,
    mesh: Mesh | None = None,
    *,
    load: Load | None = None,
    report: Callable[[str], None] = lambda line: None,
  ) -> nnx.Module:
    def built(network: AnyNetwork) -> nnx.Module:
      return load(network) if load else network.build(mesh, report=report)

    first, second = built(self.first), built(self.second)
    leaves, others = paths.named_leaves(first), paths.named_leaves(second)
    # Once more: `check` need not have been called, and a run's directory may have changed since.
    restore.check_fit(leaves, others)
    report(f"start     {self.about}")
    # As an argument: all weights share one compilation for each shape.
    weight = jnp.asarray(self.weight, jnp.float32)
    return paths.replace_leaves(
      first, {name: _mean(leaf, others[name], weight) for name, leaf in leaves.items()}
    )


@jax.jit
def _mean(first: jax.Array, second: jax.Array, weight: jax.Array) -> jax.Array:
  # Not first + weight * (second - first): weights 0 and 1 are to give the two networks bit for bit.
  mean = (1 - weight) * first.astype(jnp.float32) + weight * second.astype(jnp.float32)
  return mean.astype(first.dtype)
