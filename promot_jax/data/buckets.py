"""The few lengths to which batches are padded: each further length is one more compilation."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from promot_jax import errors

# Buckets are multiples of these; targets are short, so that a multiple of 8 would double many.
INPUT_MULTIPLE, TARGET_MULTIPLE = 8, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Buckets:
  """Padded lengths, ascending: `inputs` for the source and `targets` for the target axis."""

  inputs: tuple[int, ...]
  targets: tuple[int, ...]

  def __post_init__(self):
    for side in ("inputs", "targets"):
      lengths = getattr(self, side)
      if not lengths or list(lengths) != sorted(set(lengths)) or lengths[0] < 1:
        raise errors.ConfigError(
          f"buckets of the {side} are {lengths}; they must be positive and ascending."
        )


def fit(
  input_lengths: np.ndarray,
  target_lengths: np.ndarray,
  *,
  inputs: int = 6,
  targets: int = 2,
) -> Buckets:
  """Buckets that pad least.

  Args:
    input_lengths, target_lengths: [N] the longest source and target of each batch (or the lengths
      of single examples, where the batches are not known).
    inputs, targets: the largest number of buckets on each side.
  """
  return Buckets(
    inputs=best_lengths(input_lengths, count=inputs, multiple=INPUT_MULTIPLE),
    targets=best_lengths(target_lengths, count=targets, multiple=TARGET_MULTIPLE),
  )


def best_lengths(lengths: np.ndarray, *, count: int, multiple: int = 8) -> tuple[int, ...]:
  """At most `count` multiples of `multiple` such that padding each length up to one costs least.

  Exact, by dynamic programming over the candidate lengths.
  """
  # In multiples, and an empty text takes one.
  rounded = -(-np.maximum(lengths, 1) // multiple)
  last = int(rounded.max())
  sizes = np.arange(last + 1)
  # Sums by length: the program below takes time with the number of lengths, not of examples.
  below = np.cumsum(np.bincount(rounded, minlength=last + 1))  # examples of at most that length
  # step[i, j]: padded size of the examples longer than i and at most j, if the next bucket is j
  step = np.where(sizes[:, None] < sizes, (below - below[:, None]) * sizes, np.inf)
  costs = [np.where(sizes == 0, 0.0, np.inf)]  # costs[n][j]: n buckets, the last of them j
  before = []  # before[n - 1][j]: the bucket before j
  # More buckets than there are lengths are of no use.
  for _ in range(min(count, last)):
    table = costs[-1][:, None] + step
    before.append(table.argmin(axis=0))
    costs.append(table.min(axis=0))
  # Fewer buckets may cost as little, and each is a compilation.
  used = int(np.argmin([cost[last] for cost in costs]))
  found = [last]
  # Back from the longest, each bucket with the one before it.
  for number in range(used - 1, 0, -1):
    found.append(int(before[number][found[-1]]))
  return tuple(bucket * multiple for bucket in reversed(found))


def choose(buckets: Sequence[int], lengths: np.ndarray) -> np.ndarray:
  """Number of the smallest bucket that holds each length.

  Raises:
    ConfigError: a length is above the largest bucket.
  """
  if len(lengths) and lengths.max() > buckets[-1]:
    raise errors.ConfigError(
      f"an example has {int(lengths.max())} tokens, more than the largest bucket {buckets[-1]};"
      " add a bucket or cut the examples to a smaller feature length."
    )
  return np.searchsorted(np.asarray(buckets), lengths)
