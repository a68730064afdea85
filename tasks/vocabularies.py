"""The vocabularies of the tasks as seqio objects that read their file on first use."""

import functools
from collections.abc import Callable

import seqio
import tensorflow as tf

from promot_jax.data import vocabularies


class LazyVocabulary(seqio.Vocabulary):
  """A seqio vocabulary that is built when it is first asked for something.

  Args:
    name: what the registry and error messages call it; two of the same name are equal.
    build: makes the real vocabulary.
  """

  def __init__(self, name: str, build: Callable[[], seqio.Vocabulary]):
    self.name = name
    self._build = build
    super().__init__(extra_ids=0)

  @functools.cached_property
  def built(self) -> seqio.Vocabulary:
    return self._build()

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
  def unk_id(self) -> int:
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


@functools.cache
def seqio_vocabulary(name: str) -> LazyVocabulary:
  """The seqio vocabulary 't5', 'mt5' or 'micro'; nothing is read yet."""
  return LazyVocabulary(name, functools.partial(_build, name))


def _build(name: str) -> seqio.Vocabulary:
  if name == "micro":
    from promot_jax.micro import sources

    return sources.seqio_vocabulary()
  opened = vocabularies.open_vocabulary(name)
  return seqio.SentencePieceVocabulary(
    str(vocabularies.local_copy(opened.file)), extra_ids=opened.extra_ids
  )
