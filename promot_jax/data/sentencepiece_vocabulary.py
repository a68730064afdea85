"""A SentencePiece model as vocabulary: T5, mT5, and decoders that were trained with one.

Evaluation and inference decode tokens in processes that read their examples from the cache, and
importing TensorFlow would cost them seconds; so this is the sentencepiece library alone.  Token
numbers are those of `seqio.SentencePieceVocabulary`.  For T5's family the 100 sentinels are appended
in descending order where the model file does not hold them itself.
"""

import functools
from collections.abc import Sequence

from promot_jax import errors
from promot_jax.data import token_families, vocabulary_files

SENTINELS = 100


class SentencePiece:
  """A SentencePiece model.

  Args:
    file: path of the model, local or gs://.
    family: what belongs around texts, see `token_families`; 't5' has sentinels too.
    special_tokens: whether sentinels that a text spells are those tokens, if `encode` is not told
      otherwise.  Control pieces (pad, eos, bos) are never read from a text.
    separator: text between input and target of a decoder-only family; None = a newline, a blank
      makes them one text (`joining`).

  Raises:
    ConfigError: the file is absent, cannot be fetched, is no SentencePiece model, or lacks a token
      that the family needs.
  """

  def __init__(
    self,
    file: str,
    *,
    family: str = "t5",
    separator: str | None = None,
    special_tokens: bool = False,
  ):
    # Not at the top: a vocabulary's name is looked at where none is opened.
    from sentencepiece import SentencePieceProcessor

    self.file = file
    # As bytes, since the model may be changed before it is opened.
    serialized = vocabulary_files.local_copy(file).read_bytes()
    try:
      processor = SentencePieceProcessor(model_proto=serialized)
      # T5's 32000-piece model has no sentinels, the "100extra" files do.
      inside = _has_sentinels(processor)
      self.extra_ids = SENTINELS if family == "t5" and not inside else 0
      # Texts are cut by the model as it was trained; sentinels are found only where they are asked
      # for.
      self._text_processor = processor
      if self.extra_ids:
        processor = SentencePieceProcessor(model_proto=_with_sentinels(serialized))
      elif inside:
        # T5's "100extra" files have them as pieces that any text may spell.
        self._text_processor = SentencePieceProcessor(model_proto=_of_text(serialized))
    except (RuntimeError, ValueError) as cause:
      raise errors.ConfigError(f"{file} is not a SentencePiece model: {cause}") from cause
    self._processor = processor
    self._reads_special_tokens = special_tokens
    self.family = family
    self.eos: int = self._required("eos", processor.eos_id())
    bos = processor.bos_id()
    # SentencePiece says -1 where there is none.
    self.bos: int | None = None if bos < 0 else bos
    self.unknown: int | None = processor.unk_id()
    self.joining = token_families.joining(family, separator, source=file)
    separator_ids: tuple[int, ...] = ()
    if token_families.needs_bos(family):
      self._required("bos", bos)
    if token_families.is_decoder_only(family):
      self.pad = token_families.NO_TOKEN
      spelled = functools.partial(self.encode, special_tokens=True)  # a recipe means what it says
      separator_ids = token_families.separator_ids(spelled, separator, source=file)
    else:
      self.pad = self._required("pad", processor.pad_id())
    self.input_frame, self.target_frame = token_families.frames(
      family, bos=self.bos, eos=self.eos, separator=separator_ids
    )

  @property
  def size(self) -> int:
    """Number of tokens, sentinels included: 32100 for T5, 250100 for mT5."""
    return self._processor.GetPieceSize()

  def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
    """Tokens of `text`, without anything around them.

    Args:
      special_tokens: whether "<extra_id_0>" in the text is the sentinel, or its characters; None: as
        the vocabulary's name says, which is the latter without ?special_tokens=read.
    """
    read = self._reads_special_tokens if special_tokens is None else special_tokens
    return (self._processor if read else self._text_processor).EncodeAsIds(text)

  def decode(self, tokens: Sequence[int]) -> str:
    """Text of `tokens` up to the first end of sequence; padding and bos are left out.

    Numbers above the vocabulary (the padded rows of an embedding) become unknown.
    """
    kept: list[int] = []
    for token in map(int, tokens):
      if token == self.eos:
        break
      if token >= 0 and token not in (self.pad, self.bos):
        # Rows of an embedding that is padded to a multiple have no piece.
        kept.append(token if token < self.size else self._processor.unk_id())
    return self._processor.DecodeIds(kept)

  def sentinel(self, number: int) -> int | None:
    """Id of <extra_id_number>; None where the model has no such piece."""
    # Under either form: appended ones begin with a word's mark, those of a file may not.
    for piece in _sentinel_pieces(number):
      found = self._processor.PieceToId(piece)
      if found != self._processor.unk_id():
        return found
    return None

  def _required(self, name: str, token: int) -> int:
    if token < 0:
      raise errors.ConfigError(
        f"SentencePiece model {self.file} has no {name} token, which the family '{self.family}'"
        " needs; name another one: ?family=" + " or ".join(token_families.FAMILIES)
      )
    return token


def _sentinel_pieces(number: int) -> tuple[str, str]:
  return f"▁<extra_id_{number}>", f"<extra_id_{number}>"


def _has_sentinels(processor) -> bool:
  return any(processor.PieceToId(piece) != processor.unk_id() for piece in _sentinel_pieces(0))


def _of_text(serialized: bytes) -> bytes:
  """The model with its own sentinels as control pieces, which no text is cut into; ids stay."""
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(serialized)
  sentinels = {piece for number in range(SENTINELS) for piece in _sentinel_pieces(number)}
  for piece in model.pieces:
    if piece.piece in sentinels:
      # A control piece keeps its id and is never cut out of a text.
      piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.CONTROL
  return model.SerializeToString()


def _with_sentinels(serialized: bytes) -> bytes:
  """The model with <extra_id_99> ... <extra_id_0> appended, so that <extra_id_0> is the last."""
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(serialized)
  # Descending, as seqio appends them: <extra_id_0> is the largest id.
  for number in reversed(range(SENTINELS)):
    model.pieces.add(
      piece=f"▁<extra_id_{number}>",
      score=0.0,
      type=sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED,
    )
  return model.SerializeToString()
