"""The vocabularies of the tasks as seqio objects that read their file on first use."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import seqio
import tensorflow as tf

from promot_jax.data import frames, vocabularies
from promot_jax.data.frames import Frame
from promot_jax.data.joining import TWO_TEXTS
from promot_jax.data.sentencepiece_vocabulary import SentencePiece
from promot_jax.data.vocabulary_files import local_copy


class PlainVocabulary(seqio.Vocabulary):
  """One of our vocabularies for seqio; in a tf.data graph it is called back in Python.

  Args:
    plain: its sentinels are among its tokens, so that there are no extra ids.
    special_tokens: whether texts may spell special tokens; None: as the vocabulary's name says.
  """

  def __init__(self, plain: vocabularies.Vocabulary, *, special_tokens: bool | None = None):
    super().__init__(extra_ids=0)
    self.plain = plain
    self._special_tokens = special_tokens

  @property
  def bos_id(self) -> int | None:
    return self.plain.bos

  @property
  def eos_id(self) -> int:
    return self.plain.eos

  @property
  def pad_id(self) -> int:
    return self.plain.pad

  @property
  def unk_id(self) -> int | None:
    return self.plain.unknown

  @property
  def _base_vocab_size(self) -> int:
    return self.plain.size

  def _encode(self, s: str) -> Sequence[int]:
    return self.plain.encode(s, special_tokens=self._special_tokens)

  def _decode(self, ids: Iterable[int]) -> str:
    return self.plain.decode(list(ids))

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    # A feature of rank 2 has rows of texts.
    if s.shape.rank == 1:
      return tf.map_fn(self._encode_tf, s, fn_output_signature=_ROW)
    ids = tf.numpy_function(self._encode_bytes, [s], tf.int32)
    # A function in Python tells the graph no shape.
    ids.set_shape([None])
    return ids

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    if ids.shape.rank > 1:
      return tf.map_fn(self._decode_tf, ids, fn_output_signature=tf.string)
    text = tf.numpy_function(lambda row: self.plain.decode(row.tolist()), [ids], tf.string)
    text.set_shape([])
    return text

  def _encode_bytes(self, text: bytes) -> np.ndarray:
    # Bytes of a graph are text of the user's, which may be no UTF-8.
    return np.asarray(self._encode(text.decode("utf-8", errors="replace")), np.int32)

  def __eq__(self, other: object) -> bool:
    # The same object: two files of equal content would have to be compared token by token.
    same = isinstance(other, PlainVocabulary) and self.plain is other.plain
    return same and self._special_tokens == other._special_tokens

  def __hash__(self) -> int:
    return id(self.plain)


class T5Vocabulary(seqio.SentencePieceVocabulary):
  """seqio's, for which "<extra_id_0>" in a text is text.

  Args:
    plain: the same model without TensorFlow.
  """

  def __init__(self, plain: SentencePiece):
    file = str(local_copy(plain.file))
    # Ids that seqio would give: it appends as many sentinels as the file lacks.
    super().__init__(file, extra_ids=plain.extra_ids)
    # A file without sentinels cannot find them in a text; seqio's own tokenizer is the faster one.
    self._of_text: seqio.Vocabulary = PlainVocabulary(plain)
    if plain.extra_ids:
      self._of_text = seqio.SentencePieceVocabulary(file, extra_ids=0)

  def _encode(self, s: str) -> Sequence[int]:
    return self._of_text.encode(s)

  def _encode_tf(self, tokens: tf.Tensor) -> tf.Tensor:
    return self._of_text.encode_tf(tokens)


class LazyVocabulary(seqio.Vocabulary):
  """A seqio vocabulary that is built when it is first asked for something.

  Args:
    name: what the registry and error messages call it; two of the same name are equal.
    build: makes the real vocabulary.
    open_plain: gives our own vocabulary with the same ids.
  """

  def __init__(
    self,
    name: str,
    build: Callable[[], seqio.Vocabulary],
    open_plain: Callable[[], vocabularies.Vocabulary],
  ):
    self.name = name
    self._build = build
    self._open_plain = open_plain
    # seqio counts extra ids at the top, and here that would read the file.
    super().__init__(extra_ids=0)

  @functools.cached_property
  def built(self) -> seqio.Vocabulary:
    return self._build()

  @functools.cached_property
  def plain(self) -> vocabularies.Vocabulary:
    """The same ids without TensorFlow; it knows what belongs around a text."""
    return self._open_plain()

  @property
  def extra_ids(self) -> int:
    return self.built.extra_ids

  @property
  def bos_id(self) -> int | None:
    return self.built.bos_id

  @property
  def eos_id(self) -> int:
    return self.built.eos_id

  @property
  def pad_id(self) -> int:
    return self.built.pad_id

  @property
  def unk_id(self) -> int | None:
    return self.built.unk_id

  @property
  def vocab_size(self) -> int:
    return self.built.vocab_size

  @property
  def _base_vocab_size(self) -> int:
    return self.built._base_vocab_size

  def _encode(self, s: str):
    return self.built.encode(s)

  def _decode(self, ids):
    return self.built.decode(ids)

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    return self.built.encode_tf(s)

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    return self.built.decode_tf(ids)

  def __eq__(self, other) -> bool:
    return isinstance(other, LazyVocabulary) and self.name == other.name

  def __hash__(self) -> int:
    return hash(self.name)

  def __str__(self) -> str:
    return f"LazyVocabulary({self.name})"


@dataclasses.dataclass(frozen=True)
class Foreign:
  """A seqio vocabulary of somebody's, asked as ours are (`promot_jax.data.vocabularies.Vocabulary`)."""

  found: seqio.Vocabulary
  input_frame: Frame
  target_frame: Frame
  # What seqio puts around a text is T5's way: an end, and nothing in front.
  family = "t5"
  joining = TWO_TEXTS

  @property
  def size(self) -> int:
    return self.found.vocab_size

  @property
  def pad(self) -> int:
    return self.found.pad_id

  @property
  def eos(self) -> int:
    return self.found.eos_id

  @property
  def bos(self) -> int | None:
    return None

  @property
  def unknown(self) -> int | None:
    return self.found.unk_id

  def sentinel(self, number: int, /) -> int | None:
    """seqio counts its extra ids from the end."""
    # Descending from the end, as seqio appends them.
    return self.size - 1 - number if number < self.found.extra_ids else None

  def encode(self, text: str, /, *, special_tokens: bool | None = None) -> list[int]:
    del special_tokens  # as it does for the task itself
    return list(self.found.encode(text))

  def decode(self, tokens: Sequence[int], /) -> str:
    ids = [int(token) for token in tokens]
    ids = ids[: ids.index(self.eos)] if self.eos in ids else ids
    return self.found.decode([token for token in ids if token != self.pad])


def plain(inputs: seqio.Feature, targets: seqio.Feature) -> vocabularies.Vocabulary:
  """The vocabulary of a task's features without TensorFlow where it is one of ours, else wrapped."""
  found = targets.vocabulary
  # Ours have their plain form under one of these names.
  ours = getattr(found, "plain", None) or getattr(found, "words", None)
  if ours is not None:
    return ours
  return Foreign(found, frames.of_feature(inputs, "inputs"), frames.of_feature(targets, "targets"))


# One object for a name, which features of several tasks share.
@functools.cache
def seqio_vocabulary(name: str, *, special_tokens: bool = False) -> LazyVocabulary:
  """The seqio vocabulary 'micro', or that of a name in `vocabularies`; nothing is read yet.

  Args:
    special_tokens: whether texts may spell special tokens, as sentinel-wrapped targets do.
  """
  # Two objects of one name are equal to seqio, and these are not.
  label = f"{name}, special tokens read" if special_tokens else name
  if name == "micro":
    build_micro = functools.partial(_build_micro, special_tokens)
    return LazyVocabulary(label, build_micro, _plain_micro)
  open_plain = functools.partial(vocabularies.open_vocabulary, name)
  return LazyVocabulary(label, functools.partial(_build, name, special_tokens), open_plain)


def _build_micro(special_tokens: bool) -> seqio.Vocabulary:
  from promot_jax.micro import sources

  return sources.seqio_vocabulary(special_tokens=special_tokens)


def _plain_micro() -> vocabularies.Vocabulary:
  from promot_jax.micro import vocabulary

  return vocabulary.vocabulary()


def _build(name: str, special_tokens: bool) -> seqio.Vocabulary:
  opened = vocabularies.open_vocabulary(name)
  own = vocabularies.reference(name)
  # seqio's own tokenizer runs inside of the graph; the others are called back in Python.
  if isinstance(opened, SentencePiece) and opened.family == "t5":
    if special_tokens or (own is not None and own.special_tokens):
      return seqio.SentencePieceVocabulary(str(local_copy(opened.file)), extra_ids=opened.extra_ids)
    return T5Vocabulary(opened)
  return PlainVocabulary(opened, special_tokens=special_tokens or None)


_ROW = tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0)
