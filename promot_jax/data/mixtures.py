"""How often each task of a mixture is drawn: functions of the tasks' sizes."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from promot_jax import errors

RECIPE_VALUES = ("equal", "proportional", "temperature", "weighted")

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
