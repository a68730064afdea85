"""BERTScore by its authors' bert-score package: words matched by their vectors (Zhang et al. 2020).

The paper's table of layers, baselines for rescaling and hash of settings come from the package; its
models are downloaded by transformers.  Of several references the best counts, for precision, recall and
F each by itself.  An empty text matches nothing.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from promot_jax.metrics import extras, learned, metric

INSTALL = "'promot_jax[bertscore]'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertScore(metric.Mean):
  """Mean BERTScore, times 100: up to 100, and below 0 for texts with opposite vectors.

  Args:
    model: a model's name or folder; empty takes the package's for the language.
    layers: whose vectors are compared; None takes the package's for the model, which it must know.
    language: two letters.
    rescale: by the package's baseline, so that unrelated texts have about 0.
    idf: weigh words by how few references have them.
    device: for torch; empty takes a GPU if there is one.

  Returns `{"bertscore": F, "bertscore_precision": .., "bertscore_recall": ..}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("bertscore", "bertscore_precision", "bertscore_recall")
  scale: ClassVar[metric.Scale] = metric.Scale(low=None)

  model: str = ""
  layers: int | None = None
  language: str = "en"
  rescale: bool = False
  idf: bool = False
  device: str = ""

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    references = [
      [text for text in texts if text.strip()] for texts in metric.all_references(targets)
    ]
    # Without empty texts, whose vectors are those of the special tokens alone.
    full = [i for i, texts in enumerate(references) if texts and str(predictions[i]).strip()]
    columns = np.zeros((3, len(references)), np.float64)
    scorer = learned.loaded(
      lambda: _scorer(self), of="bertscore", model=self.model or self.language
    )
    if full:
      kept = [references[i] for i in full]
      # Of all references before anything is scored: the frequencies are those of the corpus.
      if self.idf:
        scorer.compute_idf([text for texts in kept for text in texts])
      precision, recall, f = scorer.score([str(predictions[i]) for i in full], kept)
      columns[:, full] = [100.0 * each.cpu().numpy() for each in (f, precision, recall)]
    return metric.mean_statistics(columns)

  @property
  def signature(self) -> str:
    layers = "the package's" if self.layers is None else self.layers
    settings = f"model:{self.model or self.language}|layers:{layers}"
    return f"{settings}|idf:{_said(self.idf)}|rescaled:{_said(self.rescale)}"


bertscore = BertScore()


def _said(flag: bool) -> str:
  return "yes" if flag else "no"


# One model at a time: they are large, and an evaluation scores with one.
@functools.lru_cache(maxsize=1)
def _scorer(settings: BertScore):
  package = extras.library("bert_score", of="bertscore", install=INSTALL)
  return package.BERTScorer(
    model_type=settings.model or None,
    num_layers=settings.layers,
    lang=settings.language,
    idf=settings.idf,
    rescale_with_baseline=settings.rescale,
    device=settings.device or None,
  )
