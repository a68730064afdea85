"""Corpus chrF and chrF++ by sacrebleu: F-score of character n-grams (Popović 2015, 2017).

Of several references each example takes the one with the best F-score.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from promot_jax.metrics import metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chrf(metric.Summed):
  """chrF of the whole corpus, 0 to 100.

  Args:
    word_order: longest word n-grams that count beside the characters: 0 is chrF, 2 is chrF++.
    lowercase: compare in lower case.
    name: of the score.

  A target is a string or a sequence of references.  Returns `{name: score}`.
  """

  word_order: int = 0
  lowercase: bool = False
  name: str = "chrf"

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    return (self.name,)

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    """Rows of output n-grams, reference n-grams and matches for every order."""
    scorer = _scorer(self)
    # Its public functions give scores only; its own bootstrap is made of these rows, too.
    return np.asarray(
      [
        scorer._extract_corpus_statistics([str(prediction)], [[text] for text in texts])[0]
        for texts, prediction in zip(metric.all_references(targets), predictions, strict=True)
      ],
      np.float64,
    )

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    return {self.name: float(_scorer(self)._compute_score_from_stats(list(totals)).score)}

  @property
  def signature(self) -> str:
    """Settings and library version, as sacrebleu writes them (number of references left out)."""
    import sacrebleu

    case = "lc" if self.lowercase else "mixed"
    return f"case:{case}|eff:yes|nc:6|nw:{self.word_order}|space:no|version:{sacrebleu.__version__}"


chrf = Chrf()
chrf_plus_plus = Chrf(word_order=2, name="chrf++")


@functools.cache
def _scorer(settings: Chrf):
  from sacrebleu.metrics import CHRF

  return CHRF(word_order=settings.word_order, lowercase=settings.lowercase)
