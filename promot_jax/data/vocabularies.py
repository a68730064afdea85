"""SentencePiece vocabularies of T5 and mT5, read without TensorFlow.

Evaluation and inference decode tokens in processes that read their examples from the cache, and
importing TensorFlow would cost them seconds; so this is the sentencepiece library alone.  Token
numbers are those of `seqio.SentencePieceVocabulary`, including the 100 sentinels, which are
appended in descending order where the model file does not hold them itself.

The files are public.  A file named gs://... is fetched once over HTTPS into the user's cache;
`PROMOT_T5_VOCABULARY` and `PROMOT_MT5_VOCABULARY` name local copies instead.
"""

import functools
import os
import pathlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Protocol

from promot_jax import errors

FILES = {
  "t5": "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model",
  "mt5": "gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model",
}
SENTINELS = 100


class Vocabulary(Protocol):
  """What tokenization is asked for; `SentencePiece` and the micro world's vocabulary have it.

  Tokens 0, 1 and 2 are padding, end of sequence and unknown.
  """

  @property
  def size(self) -> int: ...

  def encode(self, text: str) -> list[int]: ...

  def decode(self, tokens: Sequence[int]) -> str: ...


def path(name: str) -> str:
  """Where the file of vocabulary `name` ('t5', 'mt5') is: the environment's word, or gs://."""
  if name not in FILES:
    raise errors.ConfigError(f"vocabulary {name!r} is not known; there are: {', '.join(FILES)}.")
  return os.environ.get(variable(name)) or FILES[name]


def variable(name: str) -> str:
  """Environment variable that overrides the path of vocabulary `name`."""
  return f"PROMOT_{name.upper()}_VOCABULARY"


def open_vocabulary(name: str) -> "SentencePiece":
  """The T5 ('t5') or mT5 ('mt5') vocabulary; read on first use and then kept."""
  return _opened(path(name))


class SentencePiece:
  """A SentencePiece model with sentinels.

  Args:
    file: path of the model, local or gs://.

  Raises:
    ConfigError: the file is absent, cannot be fetched, or is no SentencePiece model.
  """

  def __init__(self, file: str):
    from sentencepiece import SentencePieceProcessor

    self.file = file
    serialized = local_copy(file).read_bytes()
    try:
      processor = SentencePieceProcessor(model_proto=serialized)
      # T5's 32000-piece model has no sentinels, the "100extra" files do.
      self.extra_ids = 0 if _has_sentinels(processor) else SENTINELS
      if self.extra_ids:
        processor = SentencePieceProcessor(model_proto=_with_sentinels(serialized))
    except (RuntimeError, ValueError) as cause:
      raise errors.ConfigError(f"{file} is not a SentencePiece model: {cause}") from cause
    self._processor = processor

  @property
  def size(self) -> int:
    """Number of tokens, sentinels included: 32100 for T5, 250100 for mT5."""
    return self._processor.GetPieceSize()

  def encode(self, text: str) -> list[int]:
    """Tokens of `text`, without the end of sequence."""
    return self._processor.EncodeAsIds(text)

  def decode(self, tokens: Sequence[int]) -> str:
    """Text of `tokens` up to the first end of sequence; padding is left out.

    Numbers above the vocabulary (the padded rows of an embedding) become unknown.
    """
    unknown, size = self._processor.unk_id(), self.size
    kept = [token if token < size else unknown for token in _until_end(tokens)]
    return self._processor.DecodeIds(kept)


def local_copy(file: str) -> pathlib.Path:
  """Local path of a vocabulary file; a gs:// file is fetched into the cache the first time."""
  if not file.startswith("gs://"):
    local = pathlib.Path(file).expanduser()
    if not local.is_file():
      raise errors.ConfigError(f"vocabulary file {file} does not exist. {_advice(file)}")
    return local
  cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
  local = cache / "promot_jax" / "vocabularies" / file.removeprefix("gs://")
  if not local.is_file():
    _fetch("https://storage.googleapis.com/" + file.removeprefix("gs://"), local, file)
  return local


def _fetch(url: str, local: pathlib.Path, file: str) -> None:
  try:
    with urllib.request.urlopen(url, timeout=20) as answer:
      content = answer.read()
    local.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=local.parent, delete=False) as temporary:
      temporary.write(content)
    os.replace(temporary.name, local)  # another process may be fetching the same file
  except (urllib.error.URLError, TimeoutError, OSError) as cause:
    raise errors.ConfigError(
      f"vocabulary {file} could not be fetched ({cause}). {_advice(file)}"
    ) from cause


def _advice(file: str) -> str:
  names = [name for name in FILES if file in (FILES[name], os.environ.get(variable(name)))]
  if not names:
    return "Check the path."
  return f"Copy {FILES[names[0]]} to this machine and set {variable(names[0])} to its path."


def _until_end(tokens: Iterable[int]) -> list[int]:
  kept: list[int] = []
  for token in map(int, tokens):
    if token == 1:
      break
    if token != 0:
      kept.append(token)
  return kept


def _has_sentinels(processor) -> bool:
  names = ("<extra_id_0>", "▁<extra_id_0>")
  return any(processor.PieceToId(name) != processor.unk_id() for name in names)


def _with_sentinels(serialized: bytes) -> bytes:
  """The model with <extra_id_99> ... <extra_id_0> appended, so that <extra_id_0> is the last."""
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(serialized)
  for number in reversed(range(SENTINELS)):
    model.pieces.add(
      piece=f"▁<extra_id_{number}>",
      score=0.0,
      type=sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED,
    )
  return model.SerializeToString()


@functools.cache
def _opened(file: str) -> SentencePiece:
  return SentencePiece(file)
