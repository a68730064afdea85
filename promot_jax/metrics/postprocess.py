"""From what a model wrote to what is scored; the same for every task, backbone and metric.

Wang et al. (ICLR 2024) keep the text between the first two sentinels, stop where the model begins
another question by itself, and for the classification tasks look at the first output token only.
Where the paper leaves a choice open, ours is: an output without a sentinel is taken whole; the
prefix at which it is cut is the first one found after the output's first character; SNLI, which the
paper uses for training only, is treated like CB.
"""

import dataclasses
import re
from collections.abc import Sequence

_OPENING, _CLOSING = "<extra_id_0>", "<extra_id_1>"
# Not inside of a word: 'FAQ:' ends in 'Q:'.
_PREFIX = re.compile(r"(?<!\w)(?:Q:|Translate\b|Article:)")
_WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
  """The part of a decoded output that is compared with the answers.

  task: name of the task the output answers, without its number of shots: 'rte', 'xsum'.
  first_token: whether only the first word counts, as for the labels of a classification.
  """

  task: str
  first_token: bool = False

  def __call__(self, output: str) -> str:
    """Of a decoded text, with sentinels written '<extra_id_0>' if the model emitted them."""
    text = cut_at_prefix(between_sentinels(output))
    return first_word(text) if self.first_token else text

  @property
  def described(self) -> str:
    """As results have recorded it from the start: their fingerprints contain this text."""
    return f"postprocess{(self.task,)!r}[]"


def between_sentinels(output: str) -> str:
  """Text after the first `<extra_id_0>`, if any, and before the next `<extra_id_1>`, if any."""
  _, opening, after = output.partition(_OPENING)
  return (after if opening else output).partition(_CLOSING)[0].strip()


def until(text: str, stop: Sequence[str]) -> str:
  """Text before the first of the texts `stop`, as generation would have ended there."""
  found = [place for place in map(text.find, stop) if place >= 0]
  return text[: min(found)] if found else text


def cut_at_prefix(text: str) -> str:
  """Text before the first `Q:`, `Translate` or `Article:` that is not at its very start."""
  text = text.strip()
  found = _PREFIX.search(text, 1)
  return text[: found.start()].rstrip() if found else text


def first_word(text: str) -> str:
  """The leading word without what follows it, as one output token would be: 'True.' -> 'True'."""
  found = _WORD.match(text.strip())
  return found.group() if found else ""
