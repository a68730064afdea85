"""The micro world for seqio: data sources with the fields of TensorFlow Datasets, and the vocabulary.

The only file of the micro world that imports seqio and TensorFlow.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from promot_jax.micro import vocabulary


def source(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> seqio.FunctionDataSource:
  """Records by split, as a source of data."""

  def dataset(split: str, shuffle_files: bool = False, seed: int | None = None) -> tf.data.Dataset:
    del shuffle_files, seed  # there are no files: the order is the world's
    # The identity makes plain tensors of the rows of ragged columns.
    return tf.data.Dataset.from_tensor_slices(_columns(splits[split])).map(lambda record: record)

  sizes = {split: len(records) for split, records in splits.items()}
  return seqio.FunctionDataSource(dataset, splits=tuple(splits), num_input_examples=sizes)


@functools.cache
def seqio_vocabulary(*, special_tokens: bool = False) -> "WordVocabulary":
  """The package's vocabulary for seqio tasks.

  Args:
    special_tokens: whether texts may spell sentinels, as sentinel-wrapped targets do.
  """
  return WordVocabulary(vocabulary.vocabulary(), special_tokens=special_tokens)


class WordVocabulary(seqio.Vocabulary):
  """A `vocabulary.Vocabulary` whose ids seqio can also compute inside a tf.data graph."""

  def __init__(self, words: vocabulary.Vocabulary, *, special_tokens: bool = False):
    # Otherwise seqio would append its own behind them.
    super().__init__(extra_ids=0)  # the sentinels are among the words
    self.words = words
    self._special_tokens = special_tokens
    self._table: tf.lookup.StaticHashTable | None = None

  @property
  def bos_id(self) -> int | None:
    return None

  @property
  def eos_id(self) -> int:
    return vocabulary.EOS

  @property
  def unk_id(self) -> int:
    return vocabulary.UNKNOWN

  @property
  def _base_vocab_size(self) -> int:
    return self.words.size

  def _encode(self, s: str) -> Sequence[int]:
    return self.words.encode(s, special_tokens=self._special_tokens)

  def _decode(self, ids: Iterable[int]) -> str:
    return self.words.decode(ids)

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    # The same cuts as in Python, in TensorFlow's own operations.
    for pattern, replacement in vocabulary.BREAKS:
      s = tf.strings.regex_replace(s, pattern, replacement)
    return self._lookup().lookup(tf.strings.split(s))

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    words = tf.constant(self.words.words)
    # What no word has would be outside of the table.
    ids = tf.where((ids < 0) | (ids >= self.words.size), vocabulary.UNKNOWN, ids)
    # Everything from the first end on, the end itself included.
    ended = tf.cumsum(tf.cast(tf.equal(ids, vocabulary.EOS), tf.int32), axis=-1) > 0
    kept = tf.ragged.boolean_mask(tf.gather(words, ids), ~(ended | (ids == vocabulary.PAD)))
    text = tf.strings.reduce_join(kept, axis=-1, separator=" ")
    # A mark belongs to the word before it.
    return tf.strings.regex_replace(text, r" ([.,?!;])", r"\1")

  def _lookup(self) -> tf.lookup.StaticHashTable:
    if self._table is None:
      with tf.init_scope():  # the table must outlive the graph in which it is first asked for
        ids = self.words.all_ids if self._special_tokens else self.words.text_ids
        self._table = tf.lookup.StaticHashTable(
          tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(ids)), tf.constant(list(ids.values()), tf.int32)
          ),
          default_value=vocabulary.UNKNOWN,
        )
    return self._table

  def __eq__(self, other: object) -> bool:
    same = isinstance(other, WordVocabulary) and self.words == other.words
    return same and self._special_tokens == other._special_tokens

  def __hash__(self) -> int:
    # Not of the second field, which equality compares: equal objects still have equal hashes.
    return hash(self.words)

  def __getstate__(self) -> Mapping[str, Any]:
    return {**self.__dict__, "_table": None}  # a table belongs to its process


def _columns(records: Sequence[Mapping[str, Any]]) -> Any:
  """Records -> one tensor per field, in the nesting of a record; lists become ragged rows."""
  # One structure for all records of a split.
  first = records[0]
  columns = {}
  for name, value in first.items():
    values = [record[name] for record in records]
    if isinstance(value, Mapping):
      columns[name] = _columns(values)
    elif isinstance(value, Sequence) and not isinstance(value, str):
      # Type and nesting are said, because a column of empty lists shows neither.
      columns[name] = tf.ragged.constant(values, dtype=tf.string, ragged_rank=1)
    elif isinstance(value, str):
      columns[name] = tf.constant(values)
    else:
      dtype = tf.float32 if isinstance(value, float) else tf.int64
      columns[name] = tf.constant(values, dtype)
  return columns
