"""Corpus BLEU by sacrebleu.

The paper does not name its tokenizer; ours is sacrebleu's default, `13a` (mteval-v13a), case kept,
exponential smoothing, order 4.  `signature` gives the settings in sacrebleu's own notation.

| value           | official scorer                            | used by                               |
|-----------------|--------------------------------------------|---------------------------------------|
| `bleu`          | sacrebleu                                  | WMT, and whoever names nothing else   |
| `multi_bleu`    | Moses multi-bleu.perl on tokenized text    | DART                                  |
| `multi_bleu_lc` | multi-bleu.perl -lc                        | WebNLG 2017                           |
| `mteval_bleu`   | NIST mteval-v13a.pl, lower case by default | E2E                                   |

All of them take the closest reference length, and keep an empty reference as one of length 0: so do
multi-bleu and the official WebNLG figures.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from promot_jax.metrics import metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bleu(metric.Summed):
  """BLEU of the whole corpus, 0 to 100, against one or several references for each example.

  Args:
    tokenizer: a sacrebleu tokenizer name: 13a (default), none, intl, zh, char ...
    lowercase: compare in lower case.
    smoothing: sacrebleu's smooth_method; it acts only where an n-gram order has no match at all.
    order: longest n-grams that count.
    name: of the score.

  A target is a string or a sequence of references.  Returns `{name: score}`.
  """

  tokenizer: str = "13a"
  lowercase: bool = False
  smoothing: str = "exp"
  order: int = 4
  name: str = "bleu"

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the scores."""
    return (self.name,)

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    """Rows of [output length, closest reference length, match counts, n-gram counts by order]."""
    scorer = _scorer(self)
    rows = np.zeros((len(targets), 2 + 2 * self.order), np.float64)
    references = metric.all_references(targets)
    for row, texts, prediction in zip(rows, references, predictions, strict=True):
      # For its counts: those of the sentences add up to the corpus's, and can be resampled.
      score = scorer.sentence_score(str(prediction), texts)
      row[:2] = score.sys_len, score.ref_len
      row[2 : 2 + self.order] = score.counts
      row[2 + self.order :] = score.totals
    return rows

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    # Integers, as sacrebleu's own are: its smoothing asks which of them are 0.
    counts = [round(float(total)) for total in totals]
    score = _scorer(self).compute_bleu(
      correct=counts[2 : 2 + self.order],
      total=counts[2 + self.order :],
      sys_len=counts[0],
      ref_len=counts[1],
      smooth_method=self.smoothing,
      max_ngram_order=self.order,
    )
    return {self.name: float(score.score)}

  @property
  def signature(self) -> str:
    """Settings and library version, as sacrebleu writes them (number of references left out)."""
    import sacrebleu

    case = "lc" if self.lowercase else "mixed"
    order = "" if self.order == 4 else f"ngram:{self.order}|"
    return (
      f"case:{case}|tok:{self.tokenizer}|smooth:{self.smoothing}|{order}"
      f"version:{sacrebleu.__version__}"
    )


bleu = Bleu()
multi_bleu = Bleu(tokenizer="none", smoothing="none", name="multi_bleu")
multi_bleu_lc = Bleu(tokenizer="none", lowercase=True, smoothing="none", name="multi_bleu_lc")
mteval_bleu = Bleu(lowercase=True, name="mteval_bleu")


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
    max_ngram_order=settings.order,
    effective_order=True,
    force=True,
  )
