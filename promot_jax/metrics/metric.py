"""What every metric is: a callable, and the per-example sums it is made of.

A metric is called as `metric(targets, predictions) -> {name: score}`, the form seqio expects.  Scores
are from 0 to 100 where they are shares or correlations of words; `Scale` says so of the others (NIST,
CIDEr, TER) and which way is better.  It also shows the statistics behind the score: one row of numbers per
example, which are summed over the examples and only then turned into scores.  That one form covers
means (accuracy, ROUGE) and corpus ratios (BLEU), and lets `confidence.py` resample examples without
tokenizing or comparing any text twice.

Nothing under `metrics/` imports JAX or TensorFlow: the task registrations import these functions.
"""

import abc
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from promot_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
  """What a score may be, and which way is better.

  Attributes:
    low, high: ends of its range; None where there is no such end.
    higher_is_better: False of errors, such as TER.
  """

  low: float | None = 0.0
  high: float | None = 100.0
  higher_is_better: bool = True

  @property
  def range(self) -> str:
    """In words: '0 to 100'."""
    low, high = ("any number" if end is None else f"{end:g}" for end in (self.low, self.high))
    return f"{low} to {high}"

  def holds(self, value: float, *, tolerance: float = 1e-6) -> bool:
    """Whether `value` lies in the range; NaN does not."""
    above = value >= (-float("inf") if self.low is None else self.low - tolerance)
    return above and value <= (float("inf") if self.high is None else self.high + tolerance)


PERCENT = Scale()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sourced:
  """References with the text they translate, for metrics that read the source too (COMET)."""

  source: str
  references: tuple[str, ...]


@runtime_checkable
class Metric(Protocol):
  """Scores of a list of predictions against a list of targets of equal length."""

  def __call__(self, targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """Scores by name."""
    ...

  def statistics(self, targets: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray:
    """One row of summable numbers per example: float64 [examples, statistics]."""
    ...

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    """Scores from rows summed over the examples: [statistics] -> {name: score}."""
    ...


class ListedMetric(Metric, Protocol):
  """A metric that can be asked for by name (`registry.METRICS`)."""

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    ...

  @property
  def scale(self) -> Scale:
    """The scale of every one of its scores."""
    ...


class Summed(abc.ABC):
  """What the metrics here do alike; one of its own defines `statistics` and `summarize`.

  Attributes:
    scores: names of the scores, where settings do not decide them.
    scale: of every one of them.
  """

  scores: ClassVar[tuple[str, ...]] = ()
  scale: ClassVar[Scale] = PERCENT

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    return self.scores

  def __call__(self, targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    return evaluate(self, targets, predictions)

  @abc.abstractmethod
  def statistics(self, targets: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray:
    """As of `Metric`."""

  @abc.abstractmethod
  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    """As of `Metric`."""


class Mean(Summed):
  """Metrics that are means of the examples' scores; their statistics are `mean_statistics`."""

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    return mean_summary(self.names, totals)


def describe(metric: Any) -> str:
  """A metric's signature: its settings without memory addresses, the same in every process."""
  # What results have recorded before: their fingerprints are compared with this text.
  if described := getattr(metric, "described", ""):
    return described
  if hasattr(metric, "signature"):
    return f"{type(metric).__name__}({metric.signature})"
  if dataclasses.is_dataclass(metric):
    return repr(metric)
  # The repr of a partial has the address of its function.
  if isinstance(metric, functools.partial):
    return f"{describe(metric.func)}{metric.args}{sorted(metric.keywords.items())}"
  return getattr(metric, "__qualname__", type(metric).__name__)


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
  if isinstance(target, Sourced):
    return list(target.references)
  return [str(text) for text in target]


def all_references(targets: Iterable[Any]) -> list[list[str]]:
  """The references of every example, at least one each, for metrics that compare texts with them.

  Raises:
    DataError: an example has none, which is not the same as an empty one.
  """
  found = [references(target) for target in targets]
  for index, texts in enumerate(found):
    if not texts:
      raise errors.DataError(
        f"Example {index} has no reference to compare its prediction with; give each example at "
        "least one, which may be an empty text."
      )
  return found


def written(texts: Sequence[str]) -> list[str]:
  """References without the empty ones that fill up files of several references; never none."""
  return [text for text in texts if text.strip()] or list(texts[:1])
