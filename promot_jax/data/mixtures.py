"""How often each task of a mixture is drawn: functions of the tasks' sizes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from promot_jax import errors

RECIPE_VALUES = ("OverTemplates", "equal", "proportional", "temperature", "weighted")

Rates: TypeAlias = Callable[[Sequence[int]], np.ndarray]


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
  # After the maximum, as T5 does: the cap is of sizes, and flattening of rates.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverTemplates:
  """Rates of data sets of which each task is one template, capped as T0's are.

  A data set of more than `maximum` examples counts as `maximum` / number of its templates (Sanh et al.,
  "Multitask Prompted Training Enables Zero-Shot Task Generalization", 2022, section 5).

  maximum: examples.
  templates_multiply: whether that, and the size of a smaller data set, is the count of each template, so
    that a small set of many templates is drawn more often, as in T0's published code; else the templates
    of a data set share it.
  """

  maximum: int = 500_000
  templates_multiply: bool = True

  def __post_init__(self):
    if self.maximum < 1:
      raise errors.ConfigError(f"OverTemplates.maximum={self.maximum} must be at least 1 example.")

  def __call__(self, sizes: Sequence[int]) -> np.ndarray:
    """Of tasks that have one template each."""
    # Each is a data set of its own then.
    return self.of_data_sets(list(map(str, range(len(sizes)))), sizes, sizes)

  def of_data_sets(
    self, data_sets: Sequence[str], known: Sequence[int], read: Sequence[int]
  ) -> np.ndarray:
    """The rate of each task.

    Args:
      data_sets: of each task.
      known: number of examples of each task's data set; 0 where nobody knows it.
      read: number of examples of each task that are there.
    """
    whole: dict[str, int] = {}
    # The known size counts where only a part was read; what is read where nobody knows more.
    for name, size in zip(data_sets, map(max, known, read), strict=True):
      whole[name] = max(whole.get(name, 0), size)
    counted = np.zeros(len(data_sets))
    for place, (name, size) in enumerate(zip(data_sets, read, strict=True)):
      # A data set has one task for each of its templates.
      templates = list(data_sets).count(name)
      counted[place] = size if whole[name] <= self.maximum else self.maximum / templates
      if not self.templates_multiply:
        counted[place] /= templates
    return counted / counted.sum()
