"""The network between two: every parameter is the weighted mean of theirs.

    theta = (1 - weight) * theta_first + weight * theta_second

Wortsman et al., 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT): `first` the pretrained network,
`second` the fine-tuned one.  It is task arithmetic of one network, under the name that runs have noted it by.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from promot_jax.errors import ConfigError
from promot_jax.identity import Part
from promot_jax.networks.combined_weights import CombinedWeights
from promot_jax.networks.network import AnyNetwork, Load, contents, require
from promot_jax.networks.operations import TaskArithmetic

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
    return contents([self.first, self.second], about=self.about)

  def check(self) -> None:
    """As the protocol says; also that the two are of one architecture and one vocabulary."""
    self._combined.check()

  def abstract(self, *, load: Load | None = None) -> Any:
    return self._combined.abstract(load=load)

  def build(
    self,
    mesh: Mesh | None = None,
    *,
    load: Load | None = None,
    report: Callable[[str], None] = lambda line: None,
  ) -> nnx.Module:
    return self._combined.build(mesh, load=load, report=report)

  @property
  def _combined(self) -> CombinedWeights:
    return CombinedWeights(
      base=self.first,
      members=[self.second],
      operation=TaskArithmetic(scales=self.weight),
    )
