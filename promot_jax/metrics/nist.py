"""NIST (Doddington 2002) by the rules of mteval-v13a.pl, the official scorer of E2E.

    NIST = sum_n (information of the matched n-grams / output's n-grams) * penalty(length ratio)
    information(w_1 .. w_n) = log2(count(w_1 .. w_{n-1}) / count(w_1 .. w_n)), over all references
    penalty(r) = exp(log(0.5) * (log(r) / log(1.5))^2) for r < 1, else 1

Matches are clipped by the largest count of any one reference.  nltk's corpus_nist is another number:
it takes for each example and order the one reference that scores best.  Tokens are sacrebleu's 13a.

The reference length is where scorers differ as soon as examples have unequal numbers of references:
E2E's copy of mteval-v13a.pl divides all reference words by the mean number of written references
(`pooled`), its Python twin pymteval sums each example's mean length (`per_example`).
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from promot_jax.metrics import metric

_Words = tuple[str, ...]
_ORDER = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nist(metric.Summed):
  """NIST of the whole corpus: 0 where nothing matches, open above; 8 to 9 is usual on E2E.

  Args:
    lowercase: compare in lower case, as mteval does unless told otherwise.
    reference_length: see the module.

  A target is a string or a sequence of references.  Returns `{"nist": score}`.  The information of an
  n-gram comes from the references of all examples given, so the score of one example alone is not a
  part of the corpus's.
  """

  scores: ClassVar[tuple[str, ...]] = ("nist",)
  scale: ClassVar[metric.Scale] = metric.Scale(high=None)

  lowercase: bool = True
  reference_length: Literal["pooled", "per_example"] = "pooled"

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    """Rows of [information by order, n-grams by order, reference words, references, 1, mean length]."""
    references = [
      [_ngrams(self._words(text)) for text in texts] for texts in metric.all_references(targets)
    ]
    information = _information(references)
    rows = np.zeros((len(targets), 2 * _ORDER + 4), np.float64)
    for row, each, prediction in zip(rows, references, predictions, strict=True):
      words = self._words(str(prediction))
      for ngram, count in _ngrams(words).items():
        # The empty n-gram counts words; it is no match.
        if ngram and (matched := min(count, max(reference[ngram] for reference in each))):
          row[len(ngram) - 1] += matched * information[ngram]
      row[_ORDER : 2 * _ORDER] = [max(0, len(words) - order) for order in range(_ORDER)]
      lengths = [reference[()] for reference in each]
      # Both rules for the length are kept in sums: which one counts is decided at the end.
      row[2 * _ORDER :] = sum(lengths), np.count_nonzero(lengths), 1, np.mean(lengths)
    return rows

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    information, ngrams = totals[:_ORDER], totals[_ORDER : 2 * _ORDER]
    words, references, examples, mean_lengths = totals[2 * _ORDER :]
    length = mean_lengths
    if self.reference_length == "pooled":
      length = words * examples / references if references else 0.0
    # An output shorter than an order has no n-grams of it: 0, not 0 / 0.
    precision = float((information / np.maximum(ngrams, 1)).sum())
    return {"nist": precision * _penalty(ngrams[0], length)}

  @property
  def signature(self) -> str:
    """Settings and the version of the tokenizer's library."""
    import sacrebleu

    case = "lc" if self.lowercase else "mixed"
    length = self.reference_length
    return f"case:{case}|tok:13a|ngram:{_ORDER}|length:{length}|version:{sacrebleu.__version__}"

  def _words(self, text: str) -> _Words:
    tokens = _tokenizer()(text)
    return tuple((tokens.lower() if self.lowercase else tokens).split())


nist = Nist()


def _information(references: Sequence[Sequence[collections.Counter]]) -> dict[_Words, float]:
  """Bits that each n-gram of the references adds to its first n-1 words."""
  counts: collections.Counter[_Words] = collections.Counter()
  for each in references:
    for reference in each:
      counts.update(reference)
  return {ngram: math.log2(counts[ngram[:-1]] / counts[ngram]) for ngram in counts if ngram}


def _ngrams(words: _Words) -> collections.Counter[_Words]:
  """How often each n-gram of 1 to 5 words occurs; the empty one stands for the number of words."""
  counts = collections.Counter(
    words[start : start + order]
    for order in range(1, _ORDER + 1)
    for start in range(len(words) - order + 1)
  )
  counts[()] = len(words)
  return counts


def _penalty(output: float, reference: float) -> float:
  # log(0) would be asked for.
  if not output:
    return 0.0
  if output >= reference:
    return 1.0
  return math.exp(math.log(0.5) * (math.log(output / reference) / math.log(1.5)) ** 2)


@functools.cache
def _tokenizer():
  from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

  return Tokenizer13a()
