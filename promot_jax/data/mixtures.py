"""How often each task of a mixture is drawn, and which of its examples the n-th draw is.

Rates are functions of the tasks' sizes.  The order of tasks is a fixed block that is repeated, so
that any position of the endless stream can be looked up without reading what comes before it.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from promot_jax import errors

RECIPE_VALUES = ("equal", "proportional", "temperature", "weighted")

Rates: TypeAlias = Callable[[Sequence[int]], np.ndarray]

_SHORTEST_BLOCK, _LONGEST_BLOCK = 64, 2**16


def equal(sizes: Sequence[int]) -> np.ndarray:
  """Every task is drawn equally often."""
  return np.full(len(sizes), 1.0 / len(sizes))


def proportional(sizes: Sequence[int], *, maximum: int | None = None) -> np.ndarray:
  """Each task in proportion to its number of examples; more than `maximum` count as `maximum`."""
  counted = np.minimum(sizes, maximum or max(sizes)).astype(float)
  return counted / counted.sum()


def temperature(
  sizes: Sequence[int], *, temperature: float, maximum: int | None = None
) -> np.ndarray:
  """Proportional rates to the power 1 / `temperature`: 1 is proportional, infinity is equal."""
  if not temperature > 0:
    raise errors.ConfigError(f"temperature of a mixture is {temperature}; it must be positive.")
  flattened = proportional(sizes, maximum=maximum) ** (1.0 / temperature)
  return flattened / flattened.sum()


def weighted(weights: Sequence[float]) -> Rates:
  """Fixed rates in proportion to `weights`, one for each task."""

  def rates(sizes: Sequence[int]) -> np.ndarray:
    given = np.asarray(weights, dtype=float)
    if given.shape != (len(sizes),) or not (np.isfinite(given) & (given > 0)).all():
      raise errors.ConfigError(
        f"mixture weights {list(weights)} must be {len(sizes)} positive numbers, one for each task."
      )
    return given / given.sum()

  return rates


class Interleaving:
  """A block of task numbers that is repeated for ever.

  Args:
    rates: share of each task; they sum to 1.  A task is in every block at least once, and the
      block is long enough (up to 65536) that no rate is far off.
  """

  def __init__(self, rates: np.ndarray):
    rates = np.asarray(rates, dtype=float)
    wanted = int(2 ** np.ceil(np.log2(8 / rates.min()))) if len(rates) > 1 else 1
    length = int(np.clip(wanted, _SHORTEST_BLOCK, _LONGEST_BLOCK)) if len(rates) > 1 else 1
    self.counts = _apportion(rates, length)  # draws of each task in one block
    # Task t's j-th draw belongs at (j + 1/2) / count of the block, which spreads it evenly.
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts])
    tasks = np.repeat(np.arange(len(rates)), self.counts)
    self.block = tasks[np.lexsort((tasks, places))]  # [length] task of each place
    self._rank = np.zeros(len(self.block), dtype=np.int64)  # how many draws of it came before
    for task in range(len(rates)):
      members = self.block == task
      self._rank[members] = np.arange(members.sum())

  def draw(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Task of each stream position, and the number of earlier draws of that task."""
    block, place = np.divmod(positions, len(self.block))
    tasks = self.block[place]
    return tasks, block * self.counts[tasks] + self._rank[place]


def _apportion(rates: np.ndarray, length: int) -> np.ndarray:
  """Whole numbers in proportion to `rates` that sum to `length`, each at least 1."""
  exact = rates * length
  counts = np.maximum(np.floor(exact), 1).astype(np.int64)
  while counts.sum() < length:
    counts[np.argmax(exact - counts)] += 1
  while counts.sum() > length:
    counts[np.argmax(counts - exact + (counts > 1))] -= 1
  return counts
