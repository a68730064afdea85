"""F1 of every class, their mean, and the confusion matrix they come from.

An output that is no label at all (the model wrote something else) is an error of the class it should
have been and of no other: so do T5's and SuperGLUE's scores, which look at the given labels only.
A class that is neither a target nor a prediction has no F1 and is left out of the mean.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from promot_jax import errors
from promot_jax.metrics import metric

MACRO = "macro_f1"
"""Name of the mean over the classes."""
OTHER = "other"
"""Name of what is none of the labels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfusionMatrix:
  """How often each class was taken for which.

  Attributes:
    labels: of the rows, and of the columns but the last, which is `OTHER`.
    counts: int64 [targets, predictions].
  """

  labels: tuple[str, ...]
  counts: np.ndarray

  @property
  def f1(self) -> dict[str, float | None]:
    """F1 by label, 0 to 100; None of a class that does not occur."""
    hits = np.diagonal(self.counts)
    # F1 = 2 hits / (targets + predictions): the two are all that it needs.
    return self._shares(2 * hits, self._targets + self._predictions)

  @property
  def precision(self) -> dict[str, float | None]:
    """Share of its predictions that are right, by label, 0 to 100; None of a class that was never predicted."""
    return self._shares(np.diagonal(self.counts), self._predictions)

  @property
  def recall(self) -> dict[str, float | None]:
    """Share of its examples that were found, by label, 0 to 100; None of a class without examples."""
    return self._shares(np.diagonal(self.counts), self._targets)

  @property
  def _targets(self) -> np.ndarray:
    return self.counts.sum(1)

  @property
  def _predictions(self) -> np.ndarray:
    return self.counts.sum(0)[: len(self.labels)]

  def _shares(self, hits: np.ndarray, counts: np.ndarray) -> dict[str, float | None]:
    return {
      label: 100.0 * float(hit) / float(count) if count else None
      for label, hit, count in zip(self.labels, hits, counts, strict=True)
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassF1(metric.Summed):
  """Macro-averaged F1 and the F1 of each class, 0 to 100.

  Args:
    labels: the classes, at least two; spaces around labels and outputs do not matter.

  A target is a label.  Returns `{"macro_f1": .., "f1_<label>": ..}`; a class that does not occur has 0.

  Raises:
    ConfigError: fewer than two labels, or one twice.
  """

  labels: tuple[str, ...]

  def __post_init__(self):
    if len({label.strip() for label in self.labels}) != len(self.labels) or len(self.labels) < 2:
      raise errors.ConfigError(
        f"F1 of classes got the labels {list(self.labels)}; name at least two, each once."
      )

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    return (MACRO, *(f"f1_{label.strip()}" for label in self.labels))

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    """Rows of the confusion matrix of one example, flattened.

    Raises:
      DataError: a target is none of the labels.
    """
    places = {label.strip(): index for index, label in enumerate(self.labels)}
    # A column more than rows: outputs that are no label, which are never a target.
    counts = np.zeros((len(targets), len(places), len(places) + 1), np.float64)
    for index, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
      (label,) = metric.references(target)[:1] or [""]
      if label.strip() not in places:
        raise errors.DataError(
          f"The target '{label}' of example {index} is none of the labels {', '.join(places)}; name "
          "every label of the task."
        )
      counts[index, places[label.strip()], places.get(str(prediction).strip(), len(places))] = 1
    return counts.reshape(len(targets), -1)

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    each = self.confusion(totals).f1
    occurring = [value for value in each.values() if value is not None]
    macro = float(np.mean(occurring)) if occurring else 0.0
    return dict(zip(self.names, [macro, *(value or 0.0 for value in each.values())], strict=True))

  def confusion(self, totals: np.ndarray) -> ConfusionMatrix:
    """The matrix behind rows summed over the examples."""
    labels = tuple(label.strip() for label in self.labels)
    counts = np.rint(totals).astype(np.int64).reshape(len(labels), len(labels) + 1)
    return ConfusionMatrix(labels=labels, counts=counts)

  @property
  def signature(self) -> str:
    return f"macro over {', '.join(label.strip() for label in self.labels)}"


def confusion_matrix(
  labels: Sequence[str], targets: Sequence[str], predictions: Sequence[str]
) -> ConfusionMatrix:
  """The confusion matrix of predictions.

  Raises:
    DataError: the lists differ in length or are empty, or a target is none of the labels.
  """
  metric.check_lengths(targets, predictions)
  scorer = ClassF1(labels=tuple(labels))
  return scorer.confusion(scorer.statistics(targets, predictions).sum(axis=0))
