"""How an input and its answer become tokens, and how solved examples are written before a query.

| vocabulary                           | joining                                                       |
|--------------------------------------|---------------------------------------------------------------|
| of an encoder-decoder                | two texts, each tokenized by itself                           |
| of a decoder-only model              | two texts, the separator (a newline) at the input's end       |
| of a decoder-only model, ?separator= | one text, "x y", tokenized at once and cut where the answer   |
| %20 (a blank)                        | begins: what the model met in pretraining                     |

In one text the blank belongs to the answer: byte-level BPE and SentencePiece write a word and the blank
before it as one token, so that after "answer:" the model goes on with " True", and would never go on
with "True".  An input that ends with a blank token, or an answer without its own, is text that the
model has not seen.  The cut is the one of EleutherAI's lm-evaluation-harness.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from promot_jax.data.frames import Frame
from promot_jax.data.templates import BLANK, joined


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joining:
  """What stands between the texts of examples.

  Attributes:
    answer: between an input and its answer, of demonstrations and of the query alike.
    examples: between an answer and the next input.
    one_text: whether an input and its answer are tokenized as one text.
  """

  answer: str = BLANK
  examples: str = BLANK
  one_text: bool = False


TWO_TEXTS = Joining()
"""Of encoder-decoders: T5's and mT5's models fold any white space into one blank anyway."""


class _Vocabulary(Protocol):
  @property
  def joining(self) -> Joining: ...
  @property
  def input_frame(self) -> Frame: ...
  @property
  def target_frame(self) -> Frame: ...
  def encode(self, text: str, /) -> list[int]: ...


def cut(
  encode: Callable[[str], Sequence[int]], context: str, continuation: str
) -> tuple[list[int], list[int]]:
  """Ids of a context and of its continuation, which were tokenized as one text.

  White space at the context's end is moved to the continuation.  The context's ids are those of the
  context alone, which is all that a model that has to go on is given; the continuation's are what
  the whole text has behind as many.
  """
  stripped = context.rstrip()
  # As it will be given to the model, which then has to go on by itself.
  before = list(encode(stripped))
  if not continuation:
    return before, []
  # Both at once, as the model met texts: a word and the blank before it are one token.
  return before, list(encode(context + continuation))[len(before) :]


def texts_to_tokens(vocabulary: _Vocabulary, text: str, answer: str) -> tuple[list[int], list[int]]:
  """Ids of an input and of its answer, without their frames; none for an empty answer."""
  joining = vocabulary.joining
  if not joining.one_text:
    return list(vocabulary.encode(text)), list(vocabulary.encode(answer))
  # What is between them included, which belongs to the answer.
  continuation = joined(text, answer, joining.answer)[len(text) :] if answer else ""
  return cut(vocabulary.encode, text, continuation)


def input_tokens(vocabulary: _Vocabulary, text: str) -> np.ndarray:
  """int32: a text that a model shall answer, in its frame.

  One text keeps the line feeds at its end: "assistant\\n" asks for the next line, and a model that
  is given "assistant" writes the end of the line, where its answer would stop.
  """
  if not vocabulary.joining.one_text:
    return vocabulary.input_frame.around(vocabulary.encode(text))
  last = text.rstrip()
  blanks = text[len(last) :]
  # The last line feed ends a line, and blanks behind it belong to the answer.
  return vocabulary.input_frame.around(vocabulary.encode(last + blanks[: blanks.rfind("\n") + 1]))


def option_tokens(vocabulary: _Vocabulary, text: str, answer: str) -> np.ndarray:
  """int32: an answer whose probability after `text` ranks it among others.

  Two texts end as the model was trained to end a target.  One text does not: how an answer goes on
  in running text says nothing about which one is right.
  """
  tokens = texts_to_tokens(vocabulary, text, answer)[1]
  if vocabulary.joining.one_text:
    return np.asarray(tokens, np.int32)
  return vocabulary.target_frame.around(tokens)
