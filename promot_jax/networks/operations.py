"""Operations on weights: one network of several of one architecture, array by array.

    mean               sum_i w_i theta_i                              a soup (arXiv:2203.05482)
    task arithmetic    theta_0 + sum_i s_i tau_i                      arXiv:2212.04089; of one network that
                                                                      is WiSE-FT (arXiv:2109.01903)
    LiNeS              theta_0 + (alpha + beta (l - 1) / (L - 1)) sum_i tau_i      arXiv:2410.17146
    TIES               `ties.Ties`                                    arXiv:2306.01708
    DARE               tau_i with entries dropped, then an operation  arXiv:2311.03099

theta_0 is the base, and tau_i = theta_i - theta_0 what training made of it.  Values are float32, and so are
sums.  Arrays have the names of unrolled layers, whether a network scans them or not, so that its layout
changes no result.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from promot_jax.errors import ConfigError

RECIPE_VALUES = ("Mean", "TaskArithmetic", "LiNeS", "Dare")

_LAYER = re.compile(r"(?P<stack>.*?)layers/(?P<number>\d+)/.*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
  """Those of one network.

  shapes: by name, an entry for each layer.
  read: gives one of them in float32.
  """

  shapes: Mapping[str, tuple[int, ...]]
  read: Callable[[str], jax.Array]


Combination = Callable[[str], jax.Array]
"""Gives one array of the result by its name, in float32."""


class Operation(Protocol):
  """A frozen keyword-only dataclass of numbers and choices."""

  based: ClassVar[bool]
  """Whether it needs the network that the others began with."""

  def require(self, members: int) -> None:
    """Raises ConfigError unless it can be done with so many networks, the base not counted."""

  def on(self, base: Parameters | None, members: Sequence[Parameters]) -> Combination:
    """The operation on these networks, whose arrays are read when they are asked for.

    Args:
      base: None where the operation needs none.
      members: at least one, all with the same shapes.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
  """The mean of networks: a soup.

  weights: of each network, their sum 1; None: all the same.
  """

  based: ClassVar[bool] = False

  weights: Sequence[float] | None = None

  def __post_init__(self):
    if self.weights is None:
      return
    weights = numbers(self.weights, what="Mean.weights", least=-10, most=10)
    if abs(math.fsum(weights) - 1) > 1e-6:
      raise ConfigError(f"Mean.weights={self.weights!r} must have the sum 1.")
    object.__setattr__(self, "weights", weights)

  def require(self, members: int) -> None:
    if self.weights is not None:
      _require_as_many(self.weights, members, what="Mean.weights")

  def on(self, base: Parameters | None, members: Sequence[Parameters]) -> Combination:
    weights = self.weights or (1 / len(members),) * len(members)
    # Arguments and no constants: all weights share one compilation for each shape.
    scales = [jnp.asarray(weight, jnp.float32) for weight in weights]
    return lambda name: _sum([member.read(name) for member in members], scales)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskArithmetic:
  """The base with what each training made of it, scaled.

  Computed as (1 - sum of scales) * base + sum of scale * member, so that of one network the scales 0 and 1
  give the base and the network bit for bit.

  scales: of each network, or one number for all.
  """

  based: ClassVar[bool] = True

  scales: float | Sequence[float] = 1.0

  def __post_init__(self):
    many = isinstance(self.scales, list | tuple)
    given = self.scales if many else [self.scales]
    checked = numbers(given, what="TaskArithmetic.scales", least=-10, most=10)
    object.__setattr__(self, "scales", checked if many else checked[0])

  def require(self, members: int) -> None:
    if isinstance(self.scales, tuple):
      _require_as_many(self.scales, members, what="TaskArithmetic.scales")

  def on(self, base: Parameters | None, members: Sequence[Parameters]) -> Combination:
    assert base is not None
    each = self.scales if isinstance(self.scales, tuple) else (self.scales,) * len(members)
    scales = [jnp.asarray(scale, jnp.float32) for scale in each]
    return lambda name: _moved(base.read(name), [each.read(name) for each in members], scales)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiNeS:
  """Task arithmetic whose scale grows linearly with depth: shallow layers stay nearer to the base.

  Layers are counted in each stack by itself, as in the authors' code.  What belongs to no layer (embedding,
  last norm, head) is scaled like a first one, as it is there; so is a stack of one layer.

  alpha: the scale of the first layer.
  beta: how much larger that of the last one is.
  """

  based: ClassVar[bool] = True

  alpha: float = 0.0
  beta: float = 1.0

  def __post_init__(self):
    for name in ("alpha", "beta"):
      (number,) = numbers([getattr(self, name)], what=f"LiNeS.{name}", least=-10, most=10)
      object.__setattr__(self, name, number)

  def require(self, members: int) -> None:
    pass

  def on(self, base: Parameters | None, members: Sequence[Parameters]) -> Combination:
    assert base is not None
    last: dict[str, int] = {}  # by stack
    for name in base.shapes:
      if found := _LAYER.fullmatch(name):
        last[found["stack"]] = max(last.get(found["stack"], 0), int(found["number"]))

    def scale(name: str) -> float:
      found = _LAYER.fullmatch(name)
      share = int(found["number"]) / max(1, last[found["stack"]]) if found else 0.0
      return self.alpha + self.beta * share

    def combined(name: str) -> jax.Array:
      own = jnp.asarray(scale(name), jnp.float32)
      arrays = [each.read(name) for each in members]
      return _moved(base.read(name), arrays, [own] * len(members))

    return combined


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dare:
  """Entries of each tau dropped at random, the others divided by what is left; then an operation.

  Which entries are dropped follows from the seed, the network's number and the array's name alone, and not
  from the order of reading or the sharding.

  rate: probability that an entry is dropped.
  seed: of what is dropped.
  then: what is done with the networks that are left.
  """

  based: ClassVar[bool] = True

  rate: float = 0.9
  seed: int = 0
  then: Any = dataclasses.field(default_factory=TaskArithmetic)

  def __post_init__(self):
    (rate,) = numbers([self.rate], what="Dare.rate", least=0, most=1)
    if rate == 1:
      raise ConfigError("Dare.rate=1 would drop all that was trained; it must be below 1.")
    if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
      raise ConfigError(f"Dare.seed={self.seed!r} must be a whole number from 0.")
    require(self.then, what="Dare.then")
    if not self.then.based:
      raise ConfigError(
        f"Dare.then={self.then!r} takes no base; use TaskArithmetic, LiNeS or ties.Ties."
      )
    object.__setattr__(self, "rate", rate)

  def require(self, members: int) -> None:
    self.then.require(members)

  def on(self, base: Parameters | None, members: Sequence[Parameters]) -> Combination:
    assert base is not None
    rate = jnp.asarray(self.rate, jnp.float32)

    def thinned(number: int, member: Parameters) -> Parameters:
      def read(name: str) -> jax.Array:
        digest = hashlib.sha256(f"{self.seed} {number} {name}".encode()).digest()
        key = jax.random.key(int.from_bytes(digest[:4], "big"))
        return _thinned(base.read(name), member.read(name), key, rate)

      return dataclasses.replace(member, read=read)

    left = [thinned(number, member) for number, member in enumerate(members)]
    return self.then.on(base, left)


def require(operation: Any, *, what: str) -> None:
  """Whether a value is an operation.

  Raises:
    ConfigError: it is not.
  """
  if not all(hasattr(operation, name) for name in ("on", "require", "based")):
    raise ConfigError(
      f"{what}={operation!r} is no operation on weights; in a gin file write one such as"
      " @operations.TaskArithmetic()."
    )


def numbers(given: Any, *, what: str, least: float, most: float) -> tuple[float, ...]:
  """Numbers of a setting.

  Raises:
    ConfigError: they are none, or not within the limits.
  """
  right = isinstance(given, list | tuple) and all(
    isinstance(number, int | float) and not isinstance(number, bool) and least <= number <= most
    for number in given
  )
  if not right or not given:
    shown = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    raise ConfigError(f"{what}={shown!r} must be numbers from {least:g} to {most:g}.")
  return tuple(map(float, given))


def _require_as_many(given: Sequence[float], members: int, *, what: str) -> None:
  if len(given) != members:
    raise ConfigError(
      f"{what}={list(given)!r} are {len(given)} numbers for {members} networks; give one for each."
    )


@jax.jit
def _sum(arrays: Sequence[jax.Array], scales: Sequence[jax.Array]) -> jax.Array:
  total = scales[0] * arrays[0]
  for scale, array in zip(scales[1:], arrays[1:], strict=True):
    total = total + scale * array
  return total


@jax.jit
def _moved(base: jax.Array, arrays: Sequence[jax.Array], scales: Sequence[jax.Array]) -> jax.Array:
  # Not base + scale * (array - base): the scales 0 and 1 are to give the two bit for bit.
  total = (1 - sum(scales)) * base
  for scale, array in zip(scales, arrays, strict=True):
    total = total + scale * array
  return total


@jax.jit
def _thinned(base: jax.Array, array: jax.Array, key: jax.Array, rate: jax.Array) -> jax.Array:
  kept = jax.random.uniform(key, base.shape) >= rate
  return base + jnp.where(kept, (array - base) / (1 - rate), 0)
