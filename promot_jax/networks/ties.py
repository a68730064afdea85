"""TIES: what several trainings made of one network, merged without those that pull against the others.

    trim    of each tau_i the `density` of entries with the largest magnitude; the others become 0
    elect   for each entry the sign of sum_i tau_i
    merge   the mean of those tau_i that have it; zeros are not counted
    result  theta_0 + scale * merged

Yadav et al., 2023, "TIES-Merging" (arXiv:2306.01708).  The paper and its code trim over all of a network's
entries together (`trim='model'`); PEFT and mergekit trim each array by itself (`trim='array'`), which keeps as
many of an array that hardly moved as of one that moved far.  Where the sum is 0 the sign is +, as in PEFT.
Entries that are as large as the smallest one kept are kept, too.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from promot_jax.errors import ConfigError
from promot_jax.networks.operations import Combination, Parameters, numbers

RECIPE_VALUES = ("Ties",)

_BUCKETS = 2**16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ties:
  """Trim, elect signs, merge.

  density: share of the entries that is kept of each network, above 0; at least one is.
  scale: of what is merged.
  trim: over all entries of a 'model', which takes reading the networks twice more, or of each 'array'.
  """

  based: ClassVar[bool] = True

  density: float = 0.2
  scale: float = 1.0
  trim: Literal["model", "array"] = "model"

  def __post_init__(self):
    for name, least, most in (("density", 0, 1), ("scale", -10, 10)):
      (number,) = numbers([getattr(self, name)], what=f"Ties.{name}", least=least, most=most)
      object.__setattr__(self, name, number)
    if not self.density:
      raise ConfigError("Ties.density=0 would keep nothing of what was trained; give more than 0.")
    if self.trim not in ("model", "array"):
      raise ConfigError(f"Ties.trim={self.trim!r} must be 'model' or 'array'.")

  def require(self, members: int) -> None:
    pass

  def on(self, base: Parameters | None, members: Sequence[Parameters]) -> Combination:
    assert base is not None
    scale = jnp.asarray(self.scale, jnp.float32)

    def moves(member: Parameters, names: Iterable[str]) -> Iterable[jax.Array]:
      return (_magnitudes(base.read(name), member.read(name)) for name in names)

    def limit(member: Parameters, names: Sequence[str]) -> jax.Array:
      entries = sum(math.prod(base.shapes[name]) for name in names)
      return _smallest_kept(lambda: moves(member, names), max(1, int(self.density * entries)))

    whole = self.trim == "model"
    limits = [limit(member, tuple(base.shapes)) for member in members] if whole else []

    def combined(name: str) -> jax.Array:
      own = limits or [limit(member, [name]) for member in members]
      return _merged(base.read(name), [each.read(name) for each in members], own, scale)

    return combined


def _smallest_kept(arrays: Callable[[], Iterable[jax.Array]], count: int) -> jax.Array:
  """The `count`-th largest of all magnitudes, exactly, with one array in memory at a time.

  Bits of floats that are not negative order like the floats: one histogram of their upper halves finds the
  half that is meant, and one of the lower halves below it the rest.
  """
  value = 0
  for shift, mask in ((16, 0), (0, 0xFFFF0000)):
    counted = np.zeros(_BUCKETS, np.int64)
    for array in arrays():
      # Summed on the host: a model has more entries than an int32 counts.
      counted += np.asarray(_histogram(array, np.uint32(value), np.uint32(mask), shift))
    above = counted[::-1].cumsum()  # entries in a bucket or a higher one, from the highest down
    bucket = _BUCKETS - 1 - int(np.searchsorted(above, count))
    count -= int(counted[bucket + 1 :].sum())
    value |= bucket << shift
  return jnp.asarray(np.uint32(value).view(np.float32))


@jax.jit
def _magnitudes(base: jax.Array, array: jax.Array) -> jax.Array:
  return jnp.abs(array - base)


@jax.jit
def _histogram(array: jax.Array, value: jax.Array, mask: jax.Array, shift: int) -> jax.Array:
  """How many entries have which 16 bits, of those whose bits under the mask are the value's."""
  bits = jax.lax.bitcast_convert_type(array.ravel(), jnp.uint32)
  counts = ((bits & mask) == (value & mask)).astype(jnp.int32)
  buckets = (bits >> jnp.uint32(shift)) & jnp.uint32(0xFFFF)
  return jnp.zeros(_BUCKETS, jnp.int32).at[buckets].add(counts)


@jax.jit
def _merged(
  base: jax.Array, arrays: Sequence[jax.Array], limits: Sequence[jax.Array], scale: jax.Array
) -> jax.Array:
  moves = [array - base for array in arrays]
  trimmed = jnp.stack(
    [jnp.where(jnp.abs(move) >= limit, move, 0) for move, limit in zip(moves, limits, strict=True)]
  )  # [network ...]
  sign = jnp.where(trimmed.sum(axis=0) >= 0, 1.0, -1.0)
  agreeing = trimmed * sign > 0
  counts = jnp.maximum(agreeing.sum(axis=0), 1)
  return base + scale * jnp.where(agreeing, trimmed, 0).sum(axis=0) / counts
