"""What every metric is: a callable, and the per-example sums it is made of.

A metric is called as `metric(targets, predictions) -> {name: score}`, the form seqio expects, with
scores from 0 to 100.  It also shows the statistics behind the score: one row of numbers per
example, which are summed over the examples and only then turned into scores.  That one form covers
means (accuracy, ROUGE) and corpus ratios (BLEU), and lets `confidence.py` resample examples without
tokenizing or comparing any text twice.

Nothing under `metrics/` imports JAX or TensorFlow: the task registrations import these functions.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from promot_jax import errors


@runtime_checkable
class Metric(Protocol):
  """Scores of a list of predictions against a list of targets of equal length."""

  def __call__(self, targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """Scores by name, 0 to 100."""
    ...

  def statistics(self, targets: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray:
    """One row of summable numbers per example: float64 [examples, statistics]."""
    ...

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    """Scores from rows summed over the examples: [statistics] -> {name: score}."""
    ...


def evaluate(
  metric: Metric, targets: Sequence[Any], predictions: Sequence[Any]
) -> dict[str, float]:
  """The scores of `metric`: its statistics, summed and summarized.

  Raises:
    DataError: the two lists differ in length, or are empty.
  """
  check_lengths(targets, predictions)
  return metric.summarize(metric.statistics(targets, predictions).sum(axis=0))


def check_lengths(targets: Sequence[Any], predictions: Sequence[Any]) -> None:
  """Raises DataError unless both lists hold the same number of examples, at least one."""
  if len(targets) != len(predictions):
    raise errors.DataError(
      f"A metric got {len(targets)} targets and {len(predictions)} predictions; it needs one "
      "prediction for each target, in the same order."
    )
  if not len(targets):
    raise errors.DataError(
      "A metric got no examples, and a score of nothing is undefined; check the split and limit."
    )


def mean_statistics(columns: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
  """Statistics of metrics that are means of per-example scores: [1, score, score, ...] rows.

  Args:
    columns: one sequence of per-example scores for each named score.
  """
  scores = np.asarray(columns, np.float64)  # [scores, examples]
  return np.concatenate([np.ones((1, scores.shape[1])), scores]).T


def mean_summary(names: Sequence[str], totals: np.ndarray) -> dict[str, float]:
  """The inverse of `mean_statistics`: summed scores divided by the summed count."""
  return {name: float(total / totals[0]) for name, total in zip(names, totals[1:], strict=True)}


def references(target: Any) -> list[str]:
  """The acceptable answers of one example: a string is one, a sequence of strings several."""
  if isinstance(target, str):
    return [target]
  return [str(text) for text in target]
