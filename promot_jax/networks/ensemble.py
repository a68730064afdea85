"""The network that several predict as together: one distribution of the next token is made of theirs.

`models.ensemble` has the formulas.  Hewitt et al., 2021, combine a network with a light method, which is
better outside of the training distribution, and one that was tuned as a whole, which is better in it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from promot_jax import paths
from promot_jax.errors import ConfigError
from promot_jax.identity import Part
from promot_jax.models import ensemble
from promot_jax.models.backbone import writes_text
from promot_jax.models.ensemble import SPACES, Space
from promot_jax.networks import vocabulary_fit
from promot_jax.networks.loaded import Loaded, Shapes
from promot_jax.networks.network import AnyNetwork, Load, contents, placed, require

RECIPE_VALUES = ("Ensemble",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ensemble:
  """Networks of one vocabulary, and how much each counts.

  members: any networks; of what is the same in two of them there is one copy.
  weights: of each member, at least 0, their sum 1; one fewer than there are members: the last one has the
    rest; None: all the same.
  space: what is averaged: 'probability', 'log' (of probabilities) or 'logits'.
  """

  members: Sequence[AnyNetwork]
  weights: Sequence[float] | None = None
  space: Space = "probability"

  def __post_init__(self):
    if not isinstance(self.members, list | tuple) or not self.members:
      raise ConfigError(
        f"Ensemble.members={self.members!r} must be a list of networks: write [@one/run.Run(), ...]."
      )
    object.__setattr__(self, "members", tuple(self.members))  # gin and JSON give lists
    for number, member in enumerate(self.members):
      require(member, what=f"Ensemble.members[{number}]")
    object.__setattr__(self, "weights", _weights(self.weights, len(self.members)))
    if self.space not in SPACES:
      raise ConfigError(f"Ensemble.space={self.space!r} must be one of {', '.join(SPACES)}.")

  @property
  def backbone(self) -> Any:
    """Of the member with the fewest learned positions: what it can read and write, all can."""
    return ensemble.fewest_positions([member.backbone for member in self.members])

  @property
  def vocabulary(self) -> str:
    return self.members[0].vocabulary

  @property
  def about(self) -> str:
    parts = [f"{weight:g} of {member.about}" for weight, member in self._weighted()]
    return f"an ensemble ({self.space}) of {' and '.join(parts)}"

  @property
  def pretrained(self) -> AnyNetwork:
    first, *others = (member.pretrained for member in self.members)
    # By what they are, as two runs may have noted their start in other words' spelling.
    same = all(other.identity() == first.identity() for other in others)
    return first if same else self

  @property
  def settings(self) -> dict[str, Any]:
    return {
      "weights": ", ".join(f"{weight:g}" for weight, _ in self._weighted()),
      "space": self.space,
    }

  def seeded(self, seed: int) -> "Ensemble":
    return self._with([member.seeded(seed) for member in self.members])

  def spelled(self, vocabulary: str) -> "Ensemble":
    return self._with([member.spelled(vocabulary) for member in self.members])

  def identity(self) -> str:
    parts = [f"{weight!r} {member.identity()}" for weight, member in self._weighted()]
    return f"ensemble:{self.space}({','.join(parts)})"

  def content(self) -> Part | None:
    return contents(self.members, about=self.about)

  def check(self) -> None:
    """As the protocol says; also that all members write, and the same tokens."""
    self._require_same_tokens()
    for number, member in enumerate(self.members):
      if member not in self.members[:number]:
        member.check()

  def abstract(self, *, load: Load | None = None) -> Any:
    self._require_same_tokens()
    load = load or Shapes().model
    # Not in a trace of its own: shapes that members share stay the same objects.
    made = self._combined([load(member) for member in self.members])
    weights = jax.ShapeDtypeStruct((len(self.members),), jnp.float32)
    return paths.replace_leaves(made, {**paths.named_leaves(made), "weights": weights})

  def build(
    self,
    mesh: Mesh | None = None,
    *,
    load: Load | None = None,
    report: Callable[[str], None] = lambda line: None,
  ) -> nnx.Module:
    self._require_same_tokens()
    load = load or Loaded(mesh, report).model  # so that members share what they are made of
    members = [load(member) for member in self.members]
    report(f"start     {self.about}")
    return placed(self._combined(members), mesh)

  def _combined(self, members: Sequence[nnx.Module]) -> ensemble.Ensemble:
    assert self.weights is not None  # set above
    return ensemble.Ensemble(members, weights=self.weights, space=self.space)

  def _with(self, members: Sequence[AnyNetwork]) -> "Ensemble":
    return dataclasses.replace(self, members=tuple(members))

  def _weighted(self) -> list[tuple[float, AnyNetwork]]:
    assert self.weights is not None  # set above
    return list(zip(self.weights, self.members, strict=True))

  def _require_same_tokens(self) -> None:
    """Raises ConfigError unless the members' probabilities are of the same tokens."""
    for member in self.members:
      if not writes_text(member.backbone):
        raise ConfigError(
          f"Ensemble: {member.about} is an encoder alone, which writes no text, so it gives no"
          " probabilities of tokens to combine."
        )
    names = {
      f"member {number} ({member.about})": member for number, member in enumerate(self.members)
    }
    if said := vocabulary_fit.difference(names):
      raise ConfigError(
        f"Ensemble: probabilities of the same tokens are combined, and {said}. Take members of one"
        " vocabulary, whose embeddings have the same number of rows."
      )


def of_two(network: Any) -> bool:
  """Whether a network is an ensemble of two members, whose weights are one number."""
  return isinstance(network, Ensemble) and len(network.members) == 2


def require_shares(given: Any, *, what: str) -> tuple[float, ...]:
  """Shares of an ensemble's first member: ascending, each once.

  Raises:
    ConfigError: they are no list of numbers from 0 to 1.
  """
  listed = isinstance(given, Iterable) and not isinstance(given, str | Mapping)
  shares = tuple(given) if listed else ()
  if not listed or not all(
    isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1
    for share in shares
  ):
    raise ConfigError(
      f"{what}={given!r} must be a list of numbers from 0 to 1: [0, 0.25, 0.5, 0.75, 1]."
    )
  return tuple(sorted(set(map(float, shares))))


def _weights(given: Any, members: int) -> tuple[float, ...]:
  """A weight for each member.

  Raises:
    ConfigError: they are not as many as members, negative, or no shares of 1.
  """
  if given is None:
    return (1 / members,) * members
  if not isinstance(given, list | tuple) or not all(
    isinstance(weight, int | float) and not isinstance(weight, bool) for weight in given
  ):
    raise ConfigError(f"Ensemble.weights={given!r} must be a list of numbers, one for each member.")
  weights = tuple(map(float, given))
  if len(weights) == members - 1:
    weights = (*weights, 1 - math.fsum(weights))
  if len(weights) != members:
    raise ConfigError(
      f"Ensemble.weights={given!r} are {len(given)} numbers for {members} members; give one for each,"
      " or one fewer, and the last member has the rest."
    )
  # One minus decimal shares is not always 0 where it should be.
  weights = tuple(0.0 if -1e-12 < weight < 0 else weight for weight in weights)
  if not all(0 <= weight <= 1 for weight in weights) or abs(math.fsum(weights) - 1) > 1e-6:
    raise ConfigError(
      f"Ensemble.weights={given!r} must be shares of 1: each from 0 to 1, all together 1."
    )
  return weights
