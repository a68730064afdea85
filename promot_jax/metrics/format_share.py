"""Format specialization: how much of an output is in the format of the task a model was tuned on.

Wang et al. 2024 (Figure 2) count, on 1-shot TriviaQA, the outputs that are exactly True or False
after fine-tuning on RTE.  For a model tuned on translation the same loss of other formats shows as
words of the tuned target language in outputs for other languages.  Both take the whole answer text
(the sentinels removed, nothing cut off), and ignore the targets.
"""

import dataclasses
import string
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from promot_jax.metrics import metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class FormatShare(metric.Mean):
  """Percentage of outputs that are exactly one of the tuned task's labels, spaces aside.

  Returns `{"format_share": score}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("format_share",)

  labels: tuple[str, ...] = ("True", "False")

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    del targets  # the format of an output does not depend on the right answer
    labels = {label.strip() for label in self.labels}
    return metric.mean_statistics([[100.0 * (str(text).strip() in labels) for text in predictions]])

  @property
  def signature(self) -> str:
    return f"outputs that are exactly {' or '.join(self.labels)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageShare(metric.Summed):
  """Percentage of all output words that belong to the tuned target language.

  Args:
    is_word: whether a word (lower case, punctuation stripped) belongs to the language.
    language: its name, for reports.

  Words are counted over the whole corpus, so long outputs weigh more; a corpus of empty outputs
  scores 0.  Returns `{"format_share": score}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("format_share",)

  is_word: Callable[[str], bool]
  language: str = "the tuned target language"

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    del targets
    rows = np.zeros((len(predictions), 2), np.float64)  # [words, words of the language]
    for row, text in zip(rows, predictions, strict=True):
      words = [word.strip(string.punctuation).lower() for word in str(text).split()]
      # What was punctuation alone is no word.
      words = [word for word in words if word]
      row[:] = len(words), sum(bool(self.is_word(word)) for word in words)
    return rows

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    return {"format_share": float(100.0 * totals[1] / totals[0]) if totals[0] else 0.0}

  @property
  def signature(self) -> str:
    return f"output words of {self.language}"
