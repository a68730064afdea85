"""ROUGE-1, ROUGE-2 and ROUGE-L by the rouge-score package.

The paper reports ROUGE-2 without saying whether words are stemmed; ours stem by default (Porter,
words of more than three letters), as T5's and most summarization results do.  Scores are means of
per-example F-measures, times 100.  Of several references the best one counts, for each ROUGE type
by itself.

rouge-score ignores what ROUGE-1.5.5 knows beyond the Porter stemmer (its exceptions, its own splitting
of words), which moves a corpus by a few tenths.  `rougeLsum` unites the common subsequences of each
sentence, one a line, as ROUGE-1.5.5 does for summaries of several sentences.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from promot_jax.metrics import metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rouge(metric.Mean):
  """Mean ROUGE, 0 to 100.

  Args:
    types: rouge-score type names, in the order of the returned scores.
    stemming: compare Porter stems instead of words.
    measure: F-measure, or one of the two that it is made of.

  A target is a string or a sequence of references.  Returns `{"rouge1": .., "rouge2": ..,
  "rougeL": ..}`.
  """

  types: tuple[str, ...] = ("rouge1", "rouge2", "rougeL")
  stemming: bool = True
  measure: Literal["fmeasure", "precision", "recall"] = "fmeasure"

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    return self.types

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    scorer = _scorer(self)
    columns = np.zeros((len(self.types), len(targets)), np.float64)
    references = metric.all_references(targets)
    for index, (texts, prediction) in enumerate(zip(references, predictions, strict=True)):
      # Of several references the best F-measure of each type counts, whichever `measure` is shown.
      scores = scorer.score_multi(texts, str(prediction))
      columns[:, index] = [100.0 * getattr(scores[name], self.measure) for name in self.types]
    return metric.mean_statistics(columns)

  @property
  def signature(self) -> str:
    """The settings in words, for reports."""
    measure = "F-measure" if self.measure == "fmeasure" else self.measure
    return f"rouge-score {measure}, {'Porter stemming' if self.stemming else 'no stemming'}"


rouge = Rouge()
rouge_sum = Rouge(types=("rougeLsum",))


@functools.cache
def _scorer(settings: Rouge):
  from rouge_score import rouge_scorer  # imported on use: it brings in nltk

  return rouge_scorer.RougeScorer(list(settings.types), use_stemmer=settings.stemming)
