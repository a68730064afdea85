"""Exact match of short answers after the SQuAD normalization, over all accepted answers.

Normalization (Rajpurkar et al. 2016): lower case, ASCII punctuation removed, the words a, an and
the removed, runs of white space made one space.  TriviaQA and WebQuestions give several accepted
answers (aliases) for one question: a prediction is right when it matches any of them.
"""

import dataclasses
import re
import string
from collections.abc import Sequence

import numpy as np

from promot_jax.metrics import metric

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactMatch:
  """Percentage of predictions that equal one of their targets after `normalize_answer`.

  A target is a string or a sequence of accepted strings.  Returns `{"exact_match": score}`.
  """

  def __call__(self, targets: Sequence, predictions: Sequence) -> dict[str, float]:
    return metric.evaluate(self, targets, predictions)

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    hits = []
    for target, prediction in zip(targets, predictions, strict=True):
      answer = normalize_answer(str(prediction))
      hits.append(100.0 * any(answer == normalize_answer(a) for a in metric.references(target)))
    return metric.mean_statistics([hits])

  def summarize(self, totals: np.ndarray) -> dict[str, float]:
    return metric.mean_summary(["exact_match"], totals)


exact_match = ExactMatch()


def normalize_answer(text: str) -> str:
  """`text` in lower case without punctuation, articles and extra white space."""
  without_punctuation = text.lower().translate(_PUNCTUATION)
  return " ".join(_ARTICLE.sub(" ", without_punctuation).split())
