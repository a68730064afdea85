"""The seqio source of a task: its records, the splits derived from them, its demonstrations."""

import dataclasses
import functools
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from promot_jax import errors
from promot_jax.data import few_shot, low_data
from promot_jax.data.task import DERIVED, Origin, Task
from tasks import records

_Keyed = tuple[str, tuple[str, str]]
"""What a record is told apart by, and its input and target; empty where it cannot be used."""


class TaskSource(seqio.DataSource):
  """Records of one task, with derived splits and, for few-shot tasks, demonstrations.

  Derived of 'train' are its two parts of `data.task.DERIVED`, and the subsamples of `data.low_data`.

  Each element is an element of the underlying source.  With `shots` > 0 it also has
  `demonstrations` [shots, 2]: rendered input and target of training examples, chosen by
  `few_shot.Demonstrations` from the start of the training split ('train_strict' for the derived
  splits, the subsample itself for those of little data).  They depend on the example and on the seed, not
  on the order of reading.

  Args:
    task: its template makes the demonstrations.
    origin: gives the underlying source; asked on first use, so that a registration reads nothing.
    shots: number of demonstrations.
    pool_size: how many training records may become demonstrations.
  """

  def __init__(
    self,
    task: Task,
    origin: Origin,
    *,
    shots: int = 0,
    pool_size: int = few_shot.POOL_SIZE,
  ):
    self.task = task
    self.origin = origin
    self._shots = shots
    self._pool_size = pool_size
    self._pairs: list[_Keyed] | None = None
    # Read once for each split, however many examples ask.
    self._pools: dict[str, few_shot.Demonstrations] = {}  # by the split that they are of
    super().__init__(splits=())  # `splits` is read on use

  @functools.cached_property
  def _source(self) -> seqio.DataSource:
    return self.origin.data_source()

  @property
  def splits(self) -> Sequence[str]:
    with _explained(self):
      own = tuple(self._source.splits)
      if not own and isinstance(self._source, seqio.TfdsDataSource):
        # Without network TFDS does not know the splits of a set that was never prepared, and with
        # it preparing is what the caller is about to need.
        _check_network()
        self._source.tfds_dataset.builder.download_and_prepare()
        own = tuple(self._source.tfds_dataset.builder.info.splits)
    # Those that are made of 'train' only where there is one.
    return own + DERIVED + low_data.NAMES if "train" in own else own

  @property
  def supports_arbitrary_sharding(self) -> bool:
    # A derived part would not be the same in several shards.
    return False

  def list_shards(self, split: str) -> Sequence[str]:
    with _explained(self):
      return self._source.list_shards(_stored(split))

  def num_input_examples(self, split: str) -> int | None:
    # How many texts fall into a part only reading tells.
    return None if _stored(split) != split else self._source.num_input_examples(split)

  def get_dataset(
    self,
    split: str = "train",
    shuffle: bool = True,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    sequence_length: Mapping[str, int] | None = None,
    use_cached: bool = False,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """See `seqio.DataSource.get_dataset`; `seed` also chooses the demonstrations (None = 0)."""
    # Chosen from all of 'train', and so from a reading in its own order.
    subsample = low_data.of(split)
    if subsample is not None:
      dataset = self._subsample(subsample)
    else:
      with _explained(self):
        dataset = self._source.get_dataset(
          split=_stored(split), shuffle=shuffle, seed=seed, shard_info=shard_info
        )
    if split in DERIVED:
      dataset = self._part(dataset, held_out=split == "selection")
    if self._shots:
      dataset = self._with_demonstrations(dataset, self._pool(split), seed or 0)
    return dataset

  def _subsample(self, subsample: low_data.Subsample) -> tf.data.Dataset:
    train = self._all_of_train()
    keyed = ((key, target) for key, (_, target) in self._texts(train))
    numbers = low_data.choose(subsample, keyed, what=self.task.name)
    chosen = tf.constant(numbers, tf.int64)
    # Not beyond the last one that was chosen: 'train' may have millions.
    numbered = train.enumerate().take(chosen[-1] + 1)
    return numbered.filter(lambda number, _: tf.reduce_any(number == chosen)).map(
      lambda _, element: element
    )

  def _part(self, dataset: tf.data.Dataset, *, held_out: bool) -> tf.data.Dataset:
    def belongs(record):
      try:
        text = self.task.key_of(record())
      except errors.DataError:
        return [not held_out]  # stays in train_strict, where it is counted and reported
      return [few_shot.is_held_out(text) == held_out]

    dataset = records.mapped(
      self.task, dataset, belongs, {"_belongs": tf.TensorSpec([], tf.bool)}
    ).filter(lambda element: element["_belongs"])
    return dataset.map(lambda element: {k: v for k, v in element.items() if k != "_belongs"})

  def _with_demonstrations(
    self, dataset: tf.data.Dataset, pool: few_shot.Demonstrations, seed: int
  ) -> tf.data.Dataset:
    shots = self._shots

    def demonstrations(record):
      try:
        query = self.task.render(record()).input
      except errors.DataError:
        return [np.full((shots, 2), "", dtype=object)]  # rendering will report the record
      return [np.array(pool.choose(query, shots=shots, seed=seed), dtype=object)]

    outputs = {"demonstrations": tf.TensorSpec([shots, 2], tf.string)}
    return records.mapped(self.task, dataset, demonstrations, outputs)

  def _pool(self, split: str) -> few_shot.Demonstrations:
    subsample = low_data.of(split)
    if subsample is not None:
      # A subsample shows what it trains on, and nothing of the rest of 'train'.
      of = dataclasses.replace(subsample, part="train").name
    else:
      # What chooses must not be shown: a held-out example would be its own demonstration.
      of = "train_strict" if split in DERIVED else "train"
    if of not in self._pools:
      self._pools[of] = few_shot.Demonstrations(self._pairs_of(of))
    return self._pools[of]

  def _pairs_of(self, split: str) -> Iterator[tuple[str, str]]:
    subsample = low_data.of(split)
    if subsample is not None:
      yield from (pair for _, pair in self._texts(self._subsample(subsample)))
      return
    if self._pairs is None:
      # Rendered once for both pools, that of 'train' and that of its larger part.
      self._pairs = list(self._texts(self._all_of_train().take(self._pool_size)))
    for key, pair in self._pairs:
      if split == "train" or not few_shot.is_held_out(key):
        yield pair

  def _all_of_train(self) -> tf.data.Dataset:
    with _explained(self):
      # Not shuffled: which records become demonstrations must not depend on a seed of reading.
      return self._source.get_dataset(split="train", shuffle=False)

  def _texts(self, dataset: tf.data.Dataset) -> Iterator[_Keyed]:
    for record in records.plain(self.task, dataset):
      # Empty, so that numbers stay those of the records.
      found: _Keyed = ("", ("", ""))
      try:
        if self.task.is_usable(record()):
          text = self.task.render(record())
          found = self.task.key_of(record()), (text.input, text.target)
      except errors.DataError:
        pass  # reported when the training split itself is read
      yield found


@functools.cache
def task_source(task: Task, place: str, shots: int) -> TaskSource:
  """The source of a task in a place (`catalog.place`); shared by its vocabularies and target forms."""
  return TaskSource(task, task.source(place).origin, shots=shots)


def _stored(split: str) -> str:
  return "train" if split in DERIVED or low_data.of(split) is not None else split


def _check_network() -> None:
  """Raises OSError at once where there is no network; TFDS would retry for minutes."""
  try:
    urllib.request.urlopen("https://storage.googleapis.com", timeout=10).close()
  except urllib.error.HTTPError:
    return  # an answer, if an unfriendly one


class _explained:
  """Turns the errors of a data set that is not on this machine into one that says what to do."""

  def __init__(self, source: TaskSource):
    self._source = source

  def __enter__(self) -> None:
    return None

  def __exit__(self, kind, error, trace) -> None:
    # Errors of ours say what to do already, and an interruption is none of the data set.
    if error is None or isinstance(error, errors.PromotError) or not isinstance(error, Exception):
      return
    source = self._source
    found = source.origin.explained(source.task.name, error)
    if found is None:
      return
    # The whole of it for whoever looks for the cause; the user gets a sentence.
    logging.getLogger(__name__).debug(
      "reading %s failed", source.origin.description, exc_info=error
    )
    raise found from error
