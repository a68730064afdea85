"""Corpus BLEU by sacrebleu.

The paper does not name its tokenizer; ours is sacrebleu's default, `13a` (mteval-v13a), case kept,
exponential smoothing, order 4.  `Bleu(tokenizer="none", lowercase=True)` is Moses multi-bleu on
tokenized text.  `signature` gives the settings in sacrebleu's own notation for reports.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from promot_jax.metrics import metric

_ORDER = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bleu:
  """BLEU of the whole corpus, 0 to 100, against one or several references for each example.

  Args:
    tokenizer: a sacrebleu tokenizer name: 13a (default), none, intl, zh, char ...
    lowercase: compare in lower case.
    smoothing: sacrebleu's smooth_method; it acts only where an n-gram order has no match at all.

  A target is a string or a sequence of references.  An empty reference stays a reference of
  length 0, as in the official WebNLG figures.  Returns `{"bleu": score}`.
  """

  tokenizer: str = "13a"
  lowercase: bool = False
  smoothing: str = "exp"

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    return ("bleu",)

  def __call__(self, targets: Sequence, predictions: Sequence) -> dict[str, float]:
    return metric.evaluate(self, targets, predictions)

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    """Rows of [output length, closest reference length, 4 match counts, 4 n-gram counts]."""
    scorer = _scorer(self)
    rows = np.zeros((len(targets), 2 + 2 * _ORDER), np.float64)
    for row, target, prediction in zip(rows, targets, predictions, strict=True):
      score = scorer.sentence_score(str(prediction), metric.references(target))
      row[:2] = score.sys_len, score.ref_len
      row[2 : 2 + _ORDER] = score.counts
      row[2 + _ORDER :] = score.totals
    return rows

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    counts = [round(float(total)) for total in totals]
    score = _scorer(self).compute_bleu(
      correct=counts[2 : 2 + _ORDER],
      total=counts[2 + _ORDER :],
      sys_len=counts[0],
      ref_len=counts[1],
      smooth_method=self.smoothing,
    )
    return {"bleu": float(score.score)}

  @property
  def signature(self) -> str:
    """Settings and library version, as sacrebleu writes them (number of references left out)."""
    import sacrebleu

    case = "lc" if self.lowercase else "mixed"
    return (
      f"case:{case}|tok:{self.tokenizer}|smooth:{self.smoothing}|version:{sacrebleu.__version__}"
    )


bleu = Bleu()


@functools.cache
def _scorer(settings: Bleu):
  """The sacrebleu scorer of these settings; sentence scores are only read for their counts."""
  from sacrebleu.metrics import BLEU  # imported on use: half of the tasks never need it

  # effective_order changes sentence scores, which we ignore, not the counts; without it sacrebleu
  # warns at every sentence.  `force` silences the warning about text that looks tokenized.
  return BLEU(
    tokenize=settings.tokenizer,
    lowercase=settings.lowercase,
    smooth_method=settings.smoothing,
    effective_order=True,
    force=True,
  )
