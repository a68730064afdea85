"""Exact match of short answers over all accepted ones, each data set by its own scorer's rule.

| normalization | data sets                              | "U.S." | punctuation                        |
|---------------|----------------------------------------|--------|------------------------------------|
| squad         | SQuAD, WebQuestions, Natural Questions | us     | ASCII's is deleted                 |
| trivia_qa     | TriviaQA                               | u s    | it and ‘ ’ ´ become blanks         |

Both then remove the words a, an and the, and make one space of any white space; both ignore case.
Those are the rules of the data sets' own scripts (Rajpurkar et al., 2016; Joshi et al., 2017) and of
T5's evaluation, which scores closed-book WebQuestions and Natural Questions by SQuAD's (Roberts et al.,
2020).  A question with several accepted answers (aliases) is right when any of them is matched; one
without any, as SQuAD 2 has them, when the output is empty after that (Rajpurkar et al., 2018).
"""

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from promot_jax.metrics import metric

Normalization = Literal["squad", "trivia_qa"]

_PUNCTUATION: dict[Normalization, Mapping[int, Any]] = {
  "squad": str.maketrans("", "", string.punctuation),
  "trivia_qa": str.maketrans(dict.fromkeys(string.punctuation + "\u2018\u2019\u00b4", " ")),
}
_ARTICLE = re.compile(r"\b(a|an|the)\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactMatch(metric.Mean):
  """Percentage of predictions that equal one of their targets after `normalize_answer`.

  A target is a string or a sequence of accepted strings.  Returns `{"exact_match": score}`.

  Attributes:
    normalization: whose rule, see the module.
  """

  scores: ClassVar[tuple[str, ...]] = ("exact_match",)

  normalization: Normalization = "squad"

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    hits = []
    for target, prediction in zip(targets, predictions, strict=True):
      answer = normalize_answer(str(prediction), self.normalization)
      accepted = [normalize_answer(text, self.normalization) for text in metric.references(target)]
      # No accepted answer is the empty one, as in SQuAD 2's script: only an empty output is right then.
      hits.append(100.0 * (answer in (accepted or [""])))
    return metric.mean_statistics([hits])


exact_match = ExactMatch()
trivia_qa = ExactMatch(normalization="trivia_qa")


def normalize_answer(text: str, normalization: Normalization = "squad") -> str:
  """`text` in lower case without punctuation, articles and extra white space."""
  # Punctuation before articles, as in the official scripts: "a-b" is one word by SQuAD's rule.
  without_punctuation = text.lower().translate(_PUNCTUATION[normalization])
  return " ".join(_ARTICLE.sub(" ", without_punctuation).split())
