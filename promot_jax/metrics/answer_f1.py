"""F1 of the words that an answer shares with an accepted one: SQuAD, MRQA, TriviaQA.

Words are compared as bags after `exact_match.normalize_answer`; the best accepted answer counts, for
F1 and exact match by themselves, as in the official scripts (Rajpurkar et al. 2016, 2018).  Where an
answer has no words left, or a question no answer at all (SQuAD 2), F1 is whether both are empty: the
rule of SQuAD 2's script, whose forerunner gave 0.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from promot_jax.metrics import metric
from promot_jax.metrics.exact_match import Normalization, normalize_answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerF1(metric.Mean):
  """Mean F1 and exact match of short answers, 0 to 100.

  A target is a string or a sequence of accepted strings.  Returns `{"f1": .., "exact_match": ..}`.

  Attributes:
    normalization: whose rule, see `exact_match`.
  """

  scores: ClassVar[tuple[str, ...]] = ("f1", "exact_match")

  normalization: Normalization = "squad"

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    columns = np.zeros((2, len(targets)), np.float64)
    for index, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
      answer = normalize_answer(str(prediction), self.normalization)
      accepted = [normalize_answer(text, self.normalization) for text in metric.references(target)]
      # No accepted answer is the empty one: only an empty output is right then.
      pairs = [(_f1(answer, text), answer == text) for text in accepted or [""]]
      # Each maximum by itself, as in the official scripts: they may come from two answers.
      columns[:, index] = 100.0 * np.max(pairs, axis=0)
    return metric.mean_statistics(columns)


f1 = AnswerF1()
trivia_qa = AnswerF1(normalization="trivia_qa")


def _f1(answer: str, accepted: str) -> float:
  """Harmonic mean of the shares of words, each counted as often as it occurs, that are common."""
  ours, theirs = collections.Counter(answer.split()), collections.Counter(accepted.split())
  # 0 / 0 without words: right where both are empty.
  if not ours or not theirs:
    return float(ours == theirs)
  return 2.0 * (ours & theirs).total() / (ours.total() + theirs.total())
