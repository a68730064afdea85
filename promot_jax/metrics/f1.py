"""F1: of labels the macro average, of free answers the overlap of words, both in percent.

Of labels (as CommitmentBank's and scikit-learn's macro F1): the mean over the labels that occur among
targets or predictions of 2 TP / (2 TP + FP + FN); a prediction that is no label is a miss of its target
and no label of its own.  Of free answers (Rajpurkar et al., 2016): the F1 of the normalized words that
prediction and answer share, of the best accepted answer, averaged over the examples.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from promot_jax.metrics import metric
from promot_jax.metrics.exact_match import normalize_answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelF1:
  """Macro F1 of predictions that are labels, surrounding spaces aside.

  A target may also be a sequence of labels, any of which counts.  Returns `{"f1": score}`.
  """

  labels: tuple[str, ...]

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    return ("f1",)

  def __call__(self, targets: Sequence, predictions: Sequence) -> dict[str, float]:
    return metric.evaluate(self, targets, predictions)

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    """[examples, 3 labels]: right, predicted and true, of each label in turn."""
    rows = np.zeros((len(targets), len(self.labels), 3), np.float64)
    place = {label.strip(): number for number, label in enumerate(self.labels)}
    for row, target, prediction in zip(rows, targets, predictions, strict=True):
      accepted = [text.strip() for text in metric.references(target)]
      said = str(prediction).strip()
      right = said in accepted
      if said in place:
        row[place[said]] += (right, 1, 0)
      if (truth := said if right else accepted[0]) in place:
        row[place[truth], 2] += 1
    return rows.reshape(len(targets), -1)

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    right, predicted, true = totals.reshape(-1, 3).T
    occurs = predicted + true > 0
    each = 200.0 * right[occurs] / (predicted + true)[occurs]
    return {"f1": float(each.mean()) if len(each) else 0.0}

  @property
  def signature(self) -> str:
    """The settings in words, for reports."""
    return f"macro F1 of {', '.join(self.labels)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordF1:
  """Mean F1 of the words of predictions, after `normalize_answer`.

  A target is a string or a sequence of accepted strings.  Returns `{"f1": score}`.
  """

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    return ("f1",)

  def __call__(self, targets: Sequence, predictions: Sequence) -> dict[str, float]:
    return metric.evaluate(self, targets, predictions)

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    scores = [
      100.0 * max(_overlap(str(prediction), text) for text in metric.references(target))
      for target, prediction in zip(targets, predictions, strict=True)
    ]
    return metric.mean_statistics([scores])

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    return metric.mean_summary(["f1"], totals)


def _overlap(prediction: str, answer: str) -> float:
  said, wanted = (collections.Counter(normalize_answer(t).split()) for t in (prediction, answer))
  if not said or not wanted:
    return float(said == wanted)  # as in SQuAD 2.0: an answer of no words is matched by none
  return 2 * (said & wanted).total() / (said.total() + wanted.total())
