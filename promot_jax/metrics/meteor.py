"""METEOR 1.5 by its authors' Java scorer, and nltk's metric of the same name under its own.

    F = P R / (alpha P + (1 - alpha) R),  score = F (1 - gamma (chunks / matches)^beta)

P and R weigh matches of words, stems, synonyms and paraphrases, and content against function words
(Denkowski and Lavie 2014, English: alpha .85, beta .2, gamma .6, delta .75, weights 1, .6, .8, .6).  The
score of a corpus comes from summed counts, not from the mean over examples.  pycocoevalcap brings the
Java archive with its paraphrase table; starting it takes seconds, the examples then take little.

E2E tokenizes with the COCO tokenizer first (`tokenizer="ptb"`), WebNLG and DART do not.  nltk's version
knows neither paraphrases nor function words, so its numbers are others: `meteor_nltk`.
"""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from promot_jax import errors
from promot_jax.metrics import captions, extras, metric

_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGES = np.asarray([1.0, 0.6, 0.8, 0.6])  # words, stems, synonyms, paraphrases
_COUNTS, _CHUNKS = 23, 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meteor(metric.Summed):
  """METEOR of the whole corpus, 0 to 100, in English.

  Args:
    tokenizer: what is done before METEOR's own normalization; see the module.

  A target is a string or a sequence of references, of which the best counts.  Returns
  `{"meteor": score}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("meteor",)

  tokenizer: captions.Tokenizer = "none"

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    """The scorer's 23 counts of each example: lengths, matches by stage and kind of word, chunks."""
    package = extras.library("pycocoevalcap.meteor.meteor", of="meteor", install=captions.INSTALL)
    references, outputs = captions.tokenized(targets, predictions, self.tokenizer, of="meteor")
    # Texts are separated by bars in the scorer's own protocol.
    asked = [
      " ||| ".join(["SCORE", *(text.replace("|||", " ") for text in [*texts, output])])
      for texts, output in zip(references, outputs)
    ]
    archive = extras.beside(package, package.METEOR_JAR)
    lines = captions.java(
      ["-Xmx2G", "-jar", str(archive), "-", "-", "-stdio", "-l", "en", "-norm"],
      "".join(f"{line}\n" for line in asked),
      of="meteor",
      instead=", or take 'meteor_nltk', which is another metric",
    )
    rows = [line.split() for line in lines if line]
    if len(rows) != len(asked) or any(len(row) != _COUNTS for row in rows):
      raise errors.DataError(
        f"METEOR gave {len(rows)} lines of counts for {len(asked)} examples; look for control "
        "characters in the predictions and references."
      )
    counts = np.asarray(rows, np.float64)
    # The scorer adds no fragment to the corpus where output and reference match as wholes.
    whole = (counts[:, _CHUNKS] == 1) & (counts[:, _CHUNKS + 1 :] == counts[:, :2]).all(axis=1)
    counts[whole, _CHUNKS] = 0
    return counts

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    words, function_words = totals[:2], totals[2:4]  # of [outputs, references]
    matches = totals[4:20].reshape(4, 2, 2)  # [stage, content and function, output and reference]
    # A match has words in both texts: half of the sum of the two.
    chunks, matched = totals[_CHUNKS], totals[_CHUNKS + 1 :].sum() / 2
    weighed = np.einsum("s,k,sko->o", _STAGES, [_DELTA, 1 - _DELTA], matches)
    # Lengths are weighed as matches are, or P and R of equal texts would not be 1.
    whole = _DELTA * (words - function_words) + (1 - _DELTA) * function_words
    precision, recall = np.divide(weighed, whole, out=np.zeros(2), where=whole > 0)
    if not precision or not recall:
      return {"meteor": 0.0}
    mean = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
    penalty = _GAMMA * (chunks / matched) ** _BETA
    return {"meteor": float(100.0 * mean * (1 - penalty))}

  @property
  def signature(self) -> str:
    return f"METEOR 1.5 (Java), en, norm, tokenizer {self.tokenizer}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NltkMeteor(metric.Mean):
  """nltk's METEOR, 0 to 100: the mean over the examples of the best reference's score.

  Words are nltk's Treebank tokens in lower case.  Needs nltk's WordNet, which nltk downloads:
  `python -m nltk.downloader wordnet`.

  Args:
    wordnet: another source of synonyms with `synsets(word)`; None takes nltk's.

  Returns `{"meteor_nltk": score}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("meteor_nltk",)

  wordnet: Any = dataclasses.field(default=None, repr=False)

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    nltk = extras.library("nltk.translate.meteor_score", of="meteor_nltk", install=captions.INSTALL)
    wordnet, words = self.wordnet or _wordnet(), _treebank()
    scores = [
      nltk.meteor_score([words(text) for text in texts], words(str(output)), wordnet=wordnet)
      for texts, output in zip(metric.all_references(targets), predictions, strict=True)
    ]
    return metric.mean_statistics(100.0 * np.asarray([scores], np.float64))

  @property
  def signature(self) -> str:
    return f"nltk {importlib.metadata.version('nltk')}, Treebank tokens, alpha .9, beta 3, gamma .5"


meteor = Meteor()
meteor_nltk = NltkMeteor()


def _wordnet():
  corpus = extras.library("nltk.corpus", of="meteor_nltk", install=captions.INSTALL).wordnet
  try:
    # nltk loads a corpus when it is first read: asked here, where the sentence says what to do.
    corpus.ensure_loaded()
  except LookupError:
    raise errors.ConfigError(
      "The metric 'meteor_nltk' looks synonyms up in nltk's WordNet, which is not on this machine: "
      "python -m nltk.downloader wordnet"
    ) from None
  return corpus


@functools.cache
def _treebank():
  module = extras.library("nltk.tokenize.treebank", of="meteor_nltk", install=captions.INSTALL)
  return module.TreebankWordTokenizer().tokenize
