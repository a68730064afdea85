"""Which tokens belong around a text for each family of models.

| family | input                | target      | padding            |
|--------|----------------------|-------------|--------------------|
| t5     | x eos                | y eos       | the pad token      |
| bart   | bos x eos            | bos y eos   | the pad token      |
| gpt2   | x separator          | y eos       | -1: no token       |
| llama  | bos x separator      | y eos       | -1: no token       |

The last two are decoder-only: y follows the separator directly, or, where the separator is a blank, x
and y are one text (`joining`) and the blank is y's.  Their tokenizers often have no
pad token, or use eos as one; a number that no token has cannot be mistaken for text.
"""

from promot_jax import errors
from promot_jax.data.frames import Frame
from promot_jax.data.joining import TWO_TEXTS, Joining
from promot_jax.data.templates import BLANK

SEPARATOR = "\n"
"""Text between input and target of a decoder-only model."""
BETWEEN_EXAMPLES = "\n\n"
"""Text between demonstrations of a decoder-only model: an answer ends where its line ends."""
NO_TOKEN = -1

_AROUND_INPUT = {  # family -> (bos before, eos after)
  "t5": (False, True),
  "bart": (True, True),
  "gpt2": (False, False),
  "llama": (True, False),
}
FAMILIES = tuple(_AROUND_INPUT)


def recognized(*, bos: bool, eos: bool) -> str:
  """The family whose inputs have bos before and eos after them, or not."""
  return next(name for name, around in _AROUND_INPUT.items() if around == (bos, eos))


def is_decoder_only(family: str) -> bool:
  """Whether input and target are one sequence."""
  # Encoder-decoders end their inputs with eos; what goes on behind an input does not.
  return not _AROUND_INPUT[family][1]


def needs_bos(family: str) -> bool:
  """Whether inputs begin with bos."""
  return _AROUND_INPUT[family][0]


def frames(
  family: str, *, bos: int | None, eos: int, separator: tuple[int, ...]
) -> tuple[Frame, Frame]:
  """The frames of inputs and of targets.

  Args:
    bos: needed by the families that begin with it.
    separator: ids of the separator; only decoder-only families have it.
  """
  start = (bos,) if needs_bos(family) and bos is not None else ()
  if is_decoder_only(family):
    return Frame(prefix=start, suffix=separator), Frame(suffix=(eos,))
  # Both texts have the same frame there: either stack reads one.
  return Frame(prefix=start, suffix=(eos,)), Frame(prefix=start, suffix=(eos,))


def joining(family: str, separator: str | None, *, source: str) -> Joining:
  """How a family's inputs and answers are written together.

  Args:
    separator: None = the family's own.
    source: what the vocabulary is called, for the message.

  Raises:
    ConfigError: an encoder-decoder, which reads two texts, was given a separator.
  """
  if not is_decoder_only(family):
    if separator is not None:
      raise errors.ConfigError(
        f"vocabulary {source} has a separator {separator!r}, and the family '{family}' reads input and"
        " target apart: leave the option out, or name a decoder-only family, ?family=gpt2 or"
        " ?family=llama."
      )
    return TWO_TEXTS
  text = SEPARATOR if separator is None else separator
  return Joining(answer=text, examples=BETWEEN_EXAMPLES, one_text=text == BLANK)


def separator_ids(encode, separator: str | None, *, source: str) -> tuple[int, ...]:
  """Ids of a separator at the end of a text; none of a blank, which begins the answer instead.

  They are what it adds to a text, because a tokenizer may begin every text with a blank.

  Args:
    encode: text -> ids.
    separator: None = `SEPARATOR`.
    source: what the vocabulary is called, for the message.

  Raises:
    ConfigError: the vocabulary drops the separator, as T5's does with a newline.
  """
  text = SEPARATOR if separator is None else separator
  if text == BLANK:
    return ()
  alone, joined = list(encode("x")), list(encode("x" + text))
  # Not where both are cut together: 'x' and the separator became one token.
  ids = joined[len(alone) :] if joined[: len(alone)] == alone else list(encode(text))
  if not ids:
    raise errors.ConfigError(
      f"vocabulary {source} has no tokens for the separator {text!r} between input and target;"
      " choose another one, percent-encoded: ?separator=%20answer%3A"
    )
  return tuple(ids)
