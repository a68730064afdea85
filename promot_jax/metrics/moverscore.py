"""MoverScore (Zhao et al. 2019): how far the words of an output must move to become a reference.

    score = 1 - min_flow sum_ij flow_ij |u_i - v_j|,   u, v: vectors of unit length, flow: idf weights

The authors' package (1.0.3, 2020) runs with no current transformers or numpy and moves its model to a GPU
when it is imported, so its second version is written anew here: last layer, single words, idf of the
references and of the outputs, stop words, punctuation and continued word pieces left out, exact transport
by POT.  Of several references the best counts; an output or reference without words scores 0.
"""

import dataclasses
import functools
import math
import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from promot_jax.metrics import extras, learned, metric

INSTALL = "'promot_jax[moverscore]'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoverScore(metric.Mean):
  """Mean MoverScore, times 100: 100 for equal texts, down to -100.

  Args:
    model: name or folder of a BERT-like model with a WordPiece tokenizer.
    stop_words: word pieces that do not count.
    batch_size: texts encoded together.
    device: for torch.

  Returns `{"moverscore": score}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("moverscore",)
  scale: ClassVar[metric.Scale] = metric.Scale(low=-100.0)

  model: str = "distilbert-base-uncased"
  stop_words: tuple[str, ...] = ()
  batch_size: int = 64
  device: str = "cpu"

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    transport = extras.library("ot", of="moverscore", install=INSTALL)

    def score(pairs: learned.Pairs) -> list[float]:
      references = _encoded(self, [reference for reference, _ in pairs])
      outputs = _encoded(self, [prediction for _, prediction in pairs])
      return [100.0 * _moved(transport, *both) for both in zip(references, outputs, strict=True)]

    return metric.mean_statistics([list(learned.best(targets, predictions, score))])

  @property
  def signature(self) -> str:
    return f"version 2|model:{self.model}|stop words:{len(self.stop_words)}|idf:yes|ngram:1"


moverscore = MoverScore()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Words:
  """Vectors of unit length [words, width] and weights that sum to 1 [words]."""

  vectors: np.ndarray
  weights: np.ndarray


def _moved(transport: Any, reference: _Words, output: _Words) -> float:
  if not len(reference.weights) or not len(output.weights):
    return 0.0
  # Rounding may give a cosine a little above 1, and a root of less than 0.
  products = np.clip(reference.vectors @ output.vectors.T, -1.0, 1.0)
  distances = np.sqrt(2.0 - 2.0 * products)
  return 1.0 - float(transport.emd2(reference.weights, output.weights, distances))


def _encoded(settings: MoverScore, texts: Sequence[str]) -> list[_Words]:
  """The words of every text, with the idf among these texts."""
  tokenizer, model = learned.loaded(
    lambda: _model(settings.model, settings.device), of="moverscore", model=settings.model
  )
  torch = extras.library("torch", of="moverscore", install=INSTALL)
  # Some tokenizers say that they take any length; the model's table of positions does not.
  longest = min(tokenizer.model_max_length, model.config.max_position_embeddings)
  ids = [tokenizer(text, truncation=True, max_length=longest)["input_ids"] for text in texts]
  idf = _idf(ids)
  encoded = []
  for start in range(0, len(ids), settings.batch_size):
    part = ids[start : start + settings.batch_size]
    padded = tokenizer.pad({"input_ids": part}, return_tensors="pt").to(settings.device)
    with torch.no_grad():
      hidden = model(**padded).last_hidden_state.double().cpu().numpy()
    for each, vectors in zip(part, hidden, strict=True):
      encoded.append(_weighed(settings, tokenizer.convert_ids_to_tokens(each), each, vectors, idf))
  return encoded


def _weighed(
  settings: MoverScore,
  tokens: Sequence[str],
  ids: Sequence[int],
  vectors: np.ndarray,
  idf: Mapping[int, float],
) -> _Words:
  left_out = {*settings.stop_words, *string.punctuation}
  # '##' marks a piece that continues a word.
  weights = [
    0.0 if token in left_out or "##" in token else idf[number]
    for token, number in zip(tokens, ids, strict=True)
  ]
  kept = [place for place, weight in enumerate(weights) if weight > 0]
  chosen, mass = vectors[kept], np.asarray([weights[place] for place in kept])
  lengths = np.linalg.norm(chosen, axis=1, keepdims=True)
  return _Words(vectors=chosen / lengths, weights=mass / mass.sum() if kept else mass)


def _idf(ids: Sequence[Sequence[int]]) -> dict[int, float]:
  """log((texts + 1) / (texts with the piece + 1)): 0 for what every text has, its ends among them."""
  holding: dict[int, int] = {}
  for each in ids:
    for number in set(each):
      holding[number] = holding.get(number, 0) + 1
  return {number: math.log((len(ids) + 1) / (count + 1)) for number, count in holding.items()}


@functools.lru_cache(maxsize=1)
def _model(name: str, device: str):
  transformers = extras.library("transformers", of="moverscore", install=INSTALL)
  extras.library("torch", of="moverscore", install=INSTALL)
  tokenizer = transformers.AutoTokenizer.from_pretrained(name)
  return tokenizer, transformers.AutoModel.from_pretrained(name).to(device).eval()
