"""ROUGE-1, ROUGE-2 and ROUGE-L F-measures by the rouge-score package.

The paper reports ROUGE-2 without saying whether words are stemmed; ours stem by default (Porter,
words of more than three letters), as T5's and most summarization results do.  Scores are means of
per-example F-measures, times 100.  Of several references the best one counts, for each ROUGE type
by itself.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from promot_jax.metrics import metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rouge:
  """Mean ROUGE F-measures, 0 to 100.

  Args:
    types: rouge-score type names, in the order of the returned scores.
    stemming: compare Porter stems instead of words.

  A target is a string or a sequence of references.  Returns `{"rouge1": .., "rouge2": ..,
  "rougeL": ..}`.
  """

  types: tuple[str, ...] = ("rouge1", "rouge2", "rougeL")
  stemming: bool = True

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    return self.types

  def __call__(self, targets: Sequence, predictions: Sequence) -> dict[str, float]:
    return metric.evaluate(self, targets, predictions)

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    scorer = _scorer(self)
    columns = np.zeros((len(self.types), len(targets)), np.float64)
    for index, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
      scores = scorer.score_multi(metric.references(target), str(prediction))
      columns[:, index] = [100.0 * scores[name].fmeasure for name in self.types]
    return metric.mean_statistics(columns)

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    return metric.mean_summary(self.types, totals)

  @property
  def signature(self) -> str:
    """The settings in words, for reports."""
    return f"rouge-score F-measure, {'Porter stemming' if self.stemming else 'no stemming'}"


rouge = Rouge()


@functools.cache
def _scorer(settings: Rouge):
  from rouge_score import rouge_scorer  # imported on use: it brings in nltk

  return rouge_scorer.RougeScorer(list(settings.types), use_stemmer=settings.stemming)
