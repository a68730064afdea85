"""95 % intervals of scores and of their mean, over the choice of test examples.

A result holds the intervals that were computed with its scores (`metrics.confidence`).  Those of
results of earlier versions are made from what they hold: Wilson's from score and number of examples
where the score is a share, else the normal one of the standard error.
"""

import math
from collections.abc import Sequence

from promot_jax.evaluation.records import TaskResult
from promot_jax.metrics import confidence
from promot_jax.metrics.registry import scale_of

_SHARES = ("accuracy", "exact_match")


def of_result(result: TaskResult, metric: str = "") -> tuple[float, float] | None:
  """The interval of a score of a result, by default of the headline one; None where it has none."""
  metric = metric or result.metric
  if result.median_of > 1:  # its templates ask about the same examples
    return None
  known = result.intervals.get(metric)
  if known is not None and len(known) == 2 and None not in known:
    return float(known[0]), float(known[1])
  value = result.scores[metric]
  if metric in _SHARES:
    return confidence.wilson(value, result.count)
  error = result.standard_errors.get(metric)
  # A result with some intervals has none here on purpose: no resample differed.
  if result.intervals or not error or not math.isfinite(error):
    return None
  reach, scale = confidence.NORMAL_95 * error, scale_of(metric)
  low, high = value - reach, value + reach
  # No score lies beyond the ends of its scale, and not every one of them ends.
  low = low if scale.low is None else max(scale.low, low)
  return low, high if scale.high is None else min(scale.high, high)


def of_mean(
  values: Sequence[float], intervals: Sequence[tuple[float, float] | None]
) -> tuple[float, float] | None:
  """The interval of the plain mean of independent scores; None if one of them has none.

  The distances of each score to its limits are added as variances are (MOVER; Zou & Donner 2008,
  Statistics in Medicine 27), which keeps intervals that are not symmetric.
  """
  known = [interval for interval in intervals if interval is not None]
  if not values or len(known) < len(values):
    return None
  mean = math.fsum(values) / len(values)
  down = math.hypot(*(value - low for value, (low, _) in zip(values, known, strict=True)))
  up = math.hypot(*(high - value for value, (_, high) in zip(values, known, strict=True)))
  return mean - down / len(values), mean + up / len(values)
