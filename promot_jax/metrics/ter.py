"""Translation edit rate by sacrebleu, which reimplements tercom (Snover et al. 2006): lower is better.

Edits (insertions, deletions, substitutions, shifts of words) of the reference that needs fewest,
divided by the mean length of all references, times 100; it may exceed 100.  The scorers of WebNLG and
DART give tercom no empty reference (`written_only`), sacrebleu counts one as of length 0.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from promot_jax.metrics import metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ter(metric.Summed):
  """TER of the whole corpus, in percent.

  Args:
    case_sensitive: tercom's default is not to be.
    normalized: tokenize as tercom does with -N.
    written_only: leave empty references out.

  A target is a string or a sequence of references.  Returns `{"ter": score}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("ter",)
  scale: ClassVar[metric.Scale] = metric.Scale(high=None, higher_is_better=False)

  case_sensitive: bool = False
  normalized: bool = False
  written_only: bool = False

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    """Rows of [edits, mean reference length]."""
    scorer = _scorer(self)
    rows = np.zeros((len(targets), 2), np.float64)
    references = metric.all_references(targets)
    for row, texts, prediction in zip(rows, references, predictions, strict=True):
      kept = metric.written(texts) if self.written_only else texts
      # For its counts: edits and lengths add up to the corpus's, and can be resampled.
      score = scorer.sentence_score(str(prediction), kept)
      row[:] = score.num_edits, score.ref_length
    return rows

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    edits, length = totals
    if not length:  # tercom's own rule: any edit of nothing is a whole error
      return {"ter": 100.0 if edits else 0.0}
    return {"ter": float(100.0 * edits / length)}

  @property
  def signature(self) -> str:
    """Settings and library version, as sacrebleu writes them (number of references left out)."""
    import sacrebleu

    case = "mixed" if self.case_sensitive else "lc"
    normalized = "yes" if self.normalized else "no"
    kept = "refs:written|" if self.written_only else ""
    settings = f"case:{case}|tok:tercom|norm:{normalized}|punct:yes|asian:no|{kept}"
    return f"{settings}version:{sacrebleu.__version__}"


ter = Ter()
tercom = Ter(written_only=True)


@functools.cache
def _scorer(settings: Ter):
  from sacrebleu.metrics import TER

  return TER(case_sensitive=settings.case_sensitive, normalized=settings.normalized)
