"""The training examples of one or several tasks by their numbers, counted through the tasks.

Splits in memory (`examples`) and those that are read as they are needed (`stream`) are asked alike.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from promot_jax.data import examples as example_lists
from promot_jax.data import shuffling
from promot_jax.data.examples import Examples
from promot_jax.data.stream import Stream

Split = Examples | Stream


class Pool:
  """Examples of all tasks.

  Args:
    splits: of one task, or of several that share batches: then `prompt_ids` are the tasks' numbers.

  Raises:
    DataError: they declare different features.
  """

  def __init__(self, splits: Split | Sequence[Split]):
    self._numbered = isinstance(splits, Sequence)
    self._splits: list[Split] = list(splits) if isinstance(splits, Sequence) else [splits]
    example_lists.require_same_features(self._splits)
    self.sizes = np.asarray(list(map(len, self._splits)))
    self.starts = np.cumsum([0, *self.sizes[:-1]])  # of each task among all numbers

  def __len__(self) -> int:
    return int(self.sizes.sum())

  @functools.cached_property
  def in_memory(self) -> Examples | None:
    """The examples of all numbers; None where some are read only when they are asked for."""
    if any(map(self.is_stream, range(len(self._splits)))):
      return None
    found = example_lists.concatenate([each for each in self._splits if isinstance(each, Examples)])
    if not self._numbered:
      return found
    return found.with_prompt_ids(np.repeat(np.arange(len(self.sizes)), self.sizes))

  @property
  def longest(self) -> tuple[int, int]:
    """Tokens of the longest input and of the longest target, or what none exceeds."""
    inputs, targets = zip(*(split.longest for split in self._splits), strict=True)
    return max(inputs), max(targets)

  @property
  def prompt_ids(self) -> np.ndarray:
    """int32: the rows of a prompt bank that occur."""
    if self._numbered:
      return np.arange(len(self._splits), dtype=np.int32)
    return np.unique(self._splits[0].prompt_ids)

  def is_stream(self, task: int) -> bool:
    """Whether a task's examples are read only when they are asked for."""
    return isinstance(self._splits[task], Stream)

  def shuffled(self, task: int, places: np.ndarray, *, key: Sequence[int]) -> np.ndarray:
    """Numbers of the examples at these places of an order of a task, none of which is kept."""
    return shuffling.shuffled(places, size=int(self.sizes[task]), key=key)

  def examples(self, numbers: np.ndarray) -> Examples:
    """The examples of these numbers, in this order."""
    tasks = np.searchsorted(self.starts, numbers, side="right") - 1
    parts, places = [], []
    for task in np.unique(tasks):
      places.append(np.flatnonzero(tasks == task))
      part = self._splits[task].select(numbers[places[-1]] - self.starts[task])
      parts.append(part.with_prompt_ids(int(task)) if self._numbered else part)
    found = example_lists.concatenate(parts)
    if len(parts) > 1:
      found = found.select(np.argsort(np.concatenate(places), kind="stable"))
    # Whatever the examples of one part, their features are padded to one shape.
    return dataclasses.replace(found, room=self._room)

  @functools.cached_property
  def _room(self) -> dict[str, tuple[int, ...]]:
    return {
      name: tuple(map(max, zip(*(split.extents[name] for split in self._splits), strict=True)))
      for name in self._splits[0].kinds
    }
