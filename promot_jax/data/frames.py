"""What a model family puts around the two texts of an example: bos, eos, the separator.

The same frame is written by the seqio preprocessors, kept when a long text is cut, and put around
texts that come from no task.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Side = Literal["inputs", "targets"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """Token ids before and after a text; `len` is how many there are together."""

  prefix: tuple[int, ...] = ()
  suffix: tuple[int, ...] = ()

  def __len__(self) -> int:
    return len(self.prefix) + len(self.suffix)

  def around(self, tokens: Sequence[int]) -> np.ndarray:
    """int32 [prefix, tokens, suffix]."""
    return np.asarray([*self.prefix, *tokens, *self.suffix], np.int32)

  def cut(self, framed: np.ndarray, limit: int, *, at: Literal["start", "end"]) -> np.ndarray:
    """At most `limit` tokens of a framed text: the frame stays, the text loses its start or end."""
    if len(framed) <= limit:
      return framed
    first, last = len(self.prefix), len(framed) - len(self.suffix)
    # The frame is never cut: a model that was trained with an end must see it.
    room = limit - len(self)
    text = framed[last - room : last] if at == "start" else framed[first : first + room]
    return np.concatenate([framed[:first], text, framed[last:]])


def of_feature(feature: Any, side: Side) -> Frame:
  """The frame of one side of a seqio task.

  Args:
    feature: a `seqio.Feature`.  Its vocabulary says what belongs around a text if it has a `plain`
      vocabulary of ours; with any other one it is the end of sequence, where `add_eos` says so.
  """
  plain = getattr(feature.vocabulary, "plain", None)
  if plain is not None:
    return plain.input_frame if side == "inputs" else plain.target_frame
  # Any other vocabulary knows nothing of frames, and seqio puts at most an end behind a text.
  return Frame(suffix=(feature.vocabulary.eos_id,) if feature.add_eos else ())
