"""Seeded choices that stay the same in every Python version.

The shipped weights know the facts of the world, so the facts must never move.  Python promises a
stable sequence only for `random.Random.random`; every choice here is made from that alone.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Dice:
  """A stream of reproducible choices named by its seed words, for example Dice("rte", 0)."""

  def __init__(self, *seed: str | int):
    # A text seeds through SHA-512, and not through `hash`, which differs between processes.
    self._uniform = random.Random("/".join(str(part) for part in seed)).random

  def chance(self, probability: float) -> bool:
    """True with the given probability."""
    return self._uniform() < probability

  def pick(self, items: Sequence[Item]) -> Item:
    """One item, all equally likely."""
    # `randrange` and `choice` may draw otherwise in another version.
    return items[int(self._uniform() * len(items))]

  def pick_two(self, items: Sequence[Item]) -> tuple[Item, Item]:
    """Two items from different places of the sequence."""
    first = int(self._uniform() * len(items))
    # From one place fewer, and moved on past the first: both are drawn once, and differ.
    second = int(self._uniform() * (len(items) - 1))
    return items[first], items[second + (second >= first)]

  def weighted(self, items: Sequence[Item], weights: Sequence[float]) -> Item:
    """One item, drawn in proportion to its weight."""
    mark = self._uniform() * sum(weights)
    for item, weight in zip(items, weights):
      mark -= weight
      if mark < 0:
        return item
    # Only where rounding leaves a rest.
    return items[-1]

  def shuffled(self, items: Sequence[Item]) -> list[Item]:
    """All items in a new order (Fisher-Yates)."""
    result = list(items)
    for last in range(len(result) - 1, 0, -1):
      other = int(self._uniform() * (last + 1))
      result[last], result[other] = result[other], result[last]
    return result
