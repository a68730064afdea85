"""How far a score would move with another sample of examples: bootstrap standard errors.

Examples are drawn with replacement (Efron 1979; for BLEU, Koehn 2004).  Because every metric is a
function of summed per-example statistics, one resample is a product of counts with the statistics
matrix, so a thousand resamples cost less than one pass of tokenization.

These errors cover the choice of test examples only: neither training seeds nor demonstrations.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from promot_jax.metrics import metric as metric_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A score with its bootstrap standard error and 95 % percentile interval."""

  value: float
  standard_error: float
  low: float
  high: float


def bootstrap(
  metric: metric_lib.Metric,
  targets: Sequence[Any],
  predictions: Sequence[Any],
  *,
  resamples: int = 1000,
  seed: int = 0,
) -> dict[str, Estimate]:
  """Scores of `metric` with their uncertainty over examples; the same seed gives the same result.

  Raises:
    DataError: the lists differ in length or are empty.
  """
  metric_lib.check_lengths(targets, predictions)
  return estimate(metric, metric.statistics(targets, predictions), resamples=resamples, seed=seed)


def estimate(
  metric: metric_lib.Metric, statistics: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
  """As `bootstrap`, from statistics [examples, statistics] already computed."""
  values = metric.summarize(statistics.sum(axis=0))
  drawn: dict[str, list[float]] = {name: [] for name in values}
  for totals in _resampled_totals(statistics, resamples, seed):
    for name, value in metric.summarize(totals).items():
      drawn[name].append(value)
  return {
    name: Estimate(
      value=values[name],
      standard_error=float(np.std(scores, ddof=1)),
      low=float(np.percentile(scores, 2.5)),
      high=float(np.percentile(scores, 97.5)),
    )
    for name, scores in drawn.items()
  }


def mean_standard_error(scores: Sequence[float]) -> float:
  """Standard error of the mean of independent scores: sd / sqrt(n); NaN for fewer than two."""
  if len(scores) < 2:
    return math.nan
  return float(np.std(scores, ddof=1) / math.sqrt(len(scores)))


def _resampled_totals(statistics: np.ndarray, resamples: int, seed: int) -> np.ndarray:
  """Summed statistics of every resample: [examples, k] -> [resamples, k]."""
  examples = len(statistics)
  generator = np.random.default_rng(seed)
  totals = np.empty((resamples, statistics.shape[1]), np.float64)
  for index in range(resamples):  # one resample at a time: [resamples, examples] may be large
    counts = np.bincount(generator.integers(examples, size=examples), minlength=examples)
    totals[index] = counts @ statistics
  return totals
