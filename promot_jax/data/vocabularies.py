"""Vocabularies by name: T5's and mT5's, and any tokenizer of a user's own.

  t5, mt5                                  the public SentencePiece models with their sentinels
  sentencepiece:FILE                       another SentencePiece model, of T5's kind
  hf:FOLDER                                a Hugging Face tokenizer; a hub name and @revision, too
  hf:FOLDER?family=llama&separator=%20     how texts are framed and joined, see `token_families` and
                                           `joining`; values are percent-encoded

None of them needs TensorFlow.
"""

import dataclasses
import functools
import hashlib
import pathlib
import re
import urllib.parse
from collections.abc import Sequence
from typing import Protocol

from promot_jax import errors
from promot_jax.data import token_families, vocabulary_files
from promot_jax.data.frames import Frame
from promot_jax.data.joining import Joining
from promot_jax.data.sentencepiece_vocabulary import SentencePiece
from promot_jax.data.templates import BLANK
from promot_jax.data.tokenizer_vocabulary import Tokenizer

NAMED = tuple(vocabulary_files.FILES)
KINDS = ("hf", "sentencepiece")
_looked_up: dict[tuple[int, tuple[str, ...]], tuple["Vocabulary", tuple[int, ...]]] = {}
_RULES = "special tokens in texts are text\0"  # what caches made under others must not be taken for


class Vocabulary(Protocol):
  """What tokenization is asked for; SentencePiece models, tokenizers and the micro words have it."""

  @property
  def size(self) -> int:
    """One more than the largest id."""

  @property
  def pad(self) -> int:
    """Id that fills rows; -1 where no token does."""

  @property
  def eos(self) -> int:
    """Id that ends a target."""

  @property
  def bos(self) -> int | None:
    """Id that begins a text, where there is one."""

  @property
  def unknown(self) -> int | None:
    """Id of what is not in the vocabulary, where there is one."""

  @property
  def family(self) -> str:
    """One of `token_families.FAMILIES`."""

  @property
  def input_frame(self) -> Frame:
    """What belongs around an input."""

  @property
  def target_frame(self) -> Frame:
    """What belongs around a target."""

  @property
  def joining(self) -> Joining:
    """How an input and its answer are written together."""

  def sentinel(self, number: int, /) -> int | None:
    """Id of <extra_id_number>, where there is one."""

  def encode(self, text: str, /, *, special_tokens: bool | None = None) -> list[int]:
    """Ids of a text, without its frame; special tokens that it spells are text unless told."""

  def decode(self, tokens: Sequence[int], /) -> str:
    """Text of ids up to the first eos, without padding and bos."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
  """A user's own vocabulary: what the name 'KIND:PLACE?family=...&separator=...' says.

  Attributes:
    kind: 'hf' or 'sentencepiece'.
    place: folder, file or hub name.
    family: None = what the files say; of SentencePiece models 't5'.
    separator: None = the usual one.
    special_tokens: whether texts may spell special tokens ('?special_tokens=read').
  """

  kind: str
  place: str
  family: str | None = None
  separator: str | None = None
  special_tokens: bool = False


def open_vocabulary(name: str) -> Vocabulary:
  """The vocabulary of this name (see the module); read on first use and then kept.

  Raises:
    ConfigError: no vocabulary has this name, or its files cannot be read.
  """
  # Reads no file, so that a mistake in the name costs nothing.
  own = reference(name)
  if own is None:
    return _sentencepiece(vocabulary_files.path(name), "t5", None, False)
  if own.kind == "sentencepiece":
    return _sentencepiece(own.place, own.family or "t5", own.separator, own.special_tokens)
  return _tokenizer(own)


def reference(name: str) -> Reference | None:
  """What the name of a user's own vocabulary says; None for 't5' and 'mt5'.  Reads no file.

  Raises:
    ConfigError: the name is neither.
  """
  if name in NAMED:
    return None
  kind, colon, rest = name.partition(":")
  if not colon or kind not in KINDS or not rest:
    folder = f" For this folder write hf:{name}." if pathlib.Path(name).is_dir() else ""
    raise errors.ConfigError(
      f"vocabulary {name!r} is not known; there are: {', '.join(NAMED)}, hf:FOLDER and"
      f" sentencepiece:FILE.{folder}"
    )
  place, _, options = rest.partition("?")
  try:
    # Strictly: a typing error in an option is an error and not another vocabulary.
    given = dict(urllib.parse.parse_qsl(options, keep_blank_values=True, strict_parsing=True))
  except ValueError:
    given = {} if not options else {options: ""}
  family, separator = given.pop("family", None), given.pop("separator", None)
  special = given.pop("special_tokens", None)
  if special not in (None, "read"):
    raise errors.ConfigError(
      f"vocabulary {name!r}: special_tokens={special!r} is not known; write special_tokens=read for"
      " texts that spell special tokens, or leave it out: then they are text."
    )
  if given:
    raise errors.ConfigError(
      f"vocabulary {name!r} has an option {next(iter(given))!r}; there are: family=NAME,"
      " separator=TEXT and special_tokens=read, joined by '&'."
    )
  if family is not None and family not in token_families.FAMILIES:
    raise errors.ConfigError(
      f"vocabulary {name!r}: family {family!r} is not known; there are:"
      f" {', '.join(token_families.FAMILIES)}."
    )
  return Reference(
    kind=kind, place=place, family=family, separator=separator, special_tokens=special is not None
  )


def as_one_text(name: str) -> str:
  """The same vocabulary, with inputs and answers that are one text; reads it.

  For encoder-decoders, which know no other way than theirs, it is `name`.

  Raises:
    ConfigError: see `open_vocabulary`.
  """
  own = reference(name)
  if own is None or not token_families.is_decoder_only(open_vocabulary(name).family):
    return name
  special = "read" if own.special_tokens else None
  # Everything else that the name said stays.
  options = {"family": own.family, "separator": BLANK, "special_tokens": special}
  given = {key: value for key, value in options.items() if value is not None}
  query = urllib.parse.urlencode(given, quote_via=urllib.parse.quote)
  return f"{own.kind}:{own.place}?{query}"


def is_one_text(name: str) -> bool:
  """Whether a vocabulary's name says that inputs and answers are one text; reads no file."""
  own = reference(name)
  return own is not None and own.separator == BLANK


def tokens_with(vocabulary: Vocabulary, texts: tuple[str, ...]) -> tuple[int, ...]:
  """Ids of the tokens that hold one of these texts; each is looked up once in a process."""
  key = (id(vocabulary), texts)
  if texts and key not in _looked_up:
    written = ((token, vocabulary.decode([token])) for token in range(vocabulary.size))
    found = tuple(token for token, own in written if any(text in own for text in texts))
    _looked_up[key] = (vocabulary, found)  # as long as it is kept, nothing else has its id
  return _looked_up[key][1] if texts else ()


def label(name: str) -> str:
  """A vocabulary's name as part of a task's name: letters, digits, ':' and '_'.

  The digits at the end tell two places of one folder name apart.
  """
  own = reference(name)
  if own is None:
    return name
  # ASCII and short, for the name goes into gin files, folders and seqio's registry.
  folder = re.sub(r"\W+", "_", pathlib.PurePath(own.place).name, flags=re.ASCII)[:40]
  return f"{own.kind}:{folder}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def digest(name: str) -> str:
  """SHA-256 of the files of a user's own vocabulary: another content is another vocabulary.

  Raises:
    ConfigError: they are not there.
  """
  own = reference(name)
  # The name as well: family and separator are in it.
  total = hashlib.sha256(_RULES.encode() + name.encode())
  # The content of the files, for a folder's name stays when somebody trains another tokenizer.
  for file in [] if own is None else _files(own):
    total.update(file.name.encode() + b"\0" + file.read_bytes())
  return total.hexdigest()


def _files(own: Reference) -> list[pathlib.Path]:
  if own.kind == "sentencepiece":
    return [vocabulary_files.local_copy(own.place)]
  return vocabulary_files.tokenizer_files(vocabulary_files.tokenizer_folder(own.place))


@functools.cache
def _tokenizer(own: Reference) -> Vocabulary:
  folder = vocabulary_files.tokenizer_folder(own.place)
  main = vocabulary_files.tokenizer_files(folder)[0]
  if main.name == vocabulary_files.TOKENIZER:
    return Tokenizer(
      folder, family=own.family, separator=own.separator, special_tokens=own.special_tokens
    )
  # T5's folders call their model spiece.model; decoders call theirs tokenizer.model.
  usual = "llama" if main.name == "tokenizer.model" else "t5"
  return _sentencepiece(str(main), own.family or usual, own.separator, own.special_tokens)


@functools.cache
def _sentencepiece(
  file: str, family: str, separator: str | None, special_tokens: bool
) -> SentencePiece:
  return SentencePiece(file, family=family, separator=separator, special_tokens=special_tokens)
