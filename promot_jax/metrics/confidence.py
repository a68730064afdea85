"""How far a score would move with another sample of examples: intervals and standard errors.

Shares of right answers get Wilson's interval, which is right for few examples and for 0 and 100 %
too, where the bootstrap says that nothing can move.  Other scores get the bootstrap.

Examples are drawn with replacement (Efron 1979; for BLEU, Koehn 2004).  Because every metric is a
function of summed per-example statistics, one resample is a product of counts with the statistics
matrix, so a thousand resamples cost less than one pass of tokenization.

These errors cover the choice of test examples only: neither training seeds nor demonstrations.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from promot_jax.metrics import metric as metric_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A score with its bootstrap standard error and its 95 % interval.

  The interval is Wilson's where every example scores 0 or 100 and the score is their mean, else the
  bootstrap's percentiles; None where no resample differs, which tells nothing about other examples.
  """

  value: float
  standard_error: float
  interval: tuple[float, float] | None


NORMAL_95 = 1.959963984540054
"""Half of the normal distribution's central 95 %, in standard deviations."""


def wilson(score: float, count: int, *, deviations: float = NORMAL_95) -> tuple[float, float]:
  """Wilson's score interval (1927) of a share, in percent.

  Of a mean of scores between 0 and 100 that are no shares it is too wide, never too narrow: their
  variance is at most that of a share with the same mean.

  Args:
    score: the share, 0 to 100; count: number of examples, at least 1.
    deviations: half width of the normal interval, for another level than 95 %.
  """
  share, square = score / 100.0, deviations * deviations
  # Solved for the share at which the observed one is just `deviations` away (Wilson, 1927).
  center = (share + square / (2 * count)) / (1 + square / count)
  # Rounding may leave a share a little above 1, and a root of less than 0.
  reach = math.sqrt(max(0.0, share * (1 - share) / count + square / (4 * count * count)))
  reach *= deviations / (1 + square / count)
  return max(0.0, 100 * (center - reach)), min(100.0, 100 * (center + reach))


def estimate(
  metric: metric_lib.Metric, statistics: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
  """Scores with their uncertainty over examples, from the metric's statistics [examples, statistics].

  The same seed gives the same result.
  """
  values = metric.summarize(statistics.sum(axis=0))
  drawn: dict[str, list[float]] = {name: [] for name in values}
  for totals in resampled_totals(statistics, resamples, seed):
    for name, value in metric.summarize(totals).items():
      drawn[name].append(value)
  return {
    name: Estimate(
      value=values[name],
      standard_error=float(np.std(scores, ddof=1)),
      interval=wilson(values[name], len(statistics))
      if are_shares(statistics, len(values))[position]
      else percentiles(scores),
    )
    for position, (name, scores) in enumerate(drawn.items())
  }


def mean_standard_error(scores: Sequence[float]) -> float:
  """Standard error of the mean of independent scores: sd / sqrt(n); NaN for fewer than two."""
  if len(scores) < 2:
    return math.nan
  return float(np.std(scores, ddof=1) / math.sqrt(len(scores)))


def percentiles(scores: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
  """The central 95 % of resampled scores; None where none differs from another."""
  low, high = np.percentile(scores, [2.5, 97.5])
  # No resample differs where all examples score alike: that tells nothing of others.
  return None if low == high else (float(low), float(high))


def resampled_totals(
  statistics: np.ndarray, resamples: int, seed: int | tuple[int, ...]
) -> np.ndarray:
  """Summed statistics of every resample: [examples, k] -> [resamples, k]."""
  examples = len(statistics)
  # The same draws for every metric of a task: their errors are of the same resamples.
  generator = np.random.default_rng(seed)
  totals = np.empty((resamples, statistics.shape[1]), np.float64)
  for index in range(resamples):  # one resample at a time: [resamples, examples] may be large
    counts = np.bincount(generator.integers(examples, size=examples), minlength=examples)
    totals[index] = counts @ statistics
  return totals


def are_shares(statistics: np.ndarray, names: int) -> list[bool]:
  """For each score whether it is the mean of zeros and hundreds (`metric.mean_statistics`)."""
  if statistics.shape[1] != names + 1 or not (statistics[:, 0] == 1).all():
    return [False] * names
  return [bool(np.isin(column, (0, 100)).all()) for column in statistics.T[1:]]
