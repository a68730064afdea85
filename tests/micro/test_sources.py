import functools
import pickle

import numpy as np
import pytest
import seqio
import tensorflow as tf

import tasks
from promot_jax.micro import sources, vocabulary, world

# Looked up once for thousands of records.
find_task = functools.cache(tasks.find)

TASKS = [name for name in tasks.task_names() if "micro" in find_task(name).sources]


def records(task: str, split: str) -> tuple[dict, ...]:
  return world.records(twin(task), split)


def twin(task: str) -> world.Twin:
  return world.twin_of(find_task(task))


@pytest.mark.parametrize("task", TASKS)
def test_a_source_gives_the_records_of_the_world_in_order(task):
  dataset = twin(task).data_source().get_dataset("validation", shuffle=False)
  found = list(dataset.take(5).as_numpy_iterator())
  for got, expected in zip(found, records(task, "validation"), strict=False):
    assert plain(got) == expected
  assert twin(task).data_source().num_input_examples("train") == len(records(task, "train"))


def plain(value):
  """A record of numpy values as Python values."""
  if isinstance(value, dict):
    return {name: plain(each) for name, each in value.items()}
  if isinstance(value, np.ndarray):
    return [plain(each) for each in value]
  return value.decode() if isinstance(value, bytes) else value.item()


def test_a_source_can_be_read_in_shards():
  source = twin("cb").data_source()
  shards = [
    source.get_dataset("test", shuffle=False, shard_info=seqio.ShardInfo(index=n, num_shards=1))
    for n in range(1)
  ]
  assert sum(1 for shard in shards for _ in shard.as_numpy_iterator()) == 512


def test_ids_in_a_tf_data_graph_are_those_of_plain_python():
  words = sources.seqio_vocabulary()
  texts = [
    find_task(task).render(record).input for task in TASKS for record in records(task, "test")[:40]
  ]
  texts += ["", " two  blanks.and,marks ", "<extra_id_0>True<extra_id_1>", "unknown Zeppelin?"]
  dataset = tf.data.Dataset.from_tensor_slices(texts).map(words.encode_tf)
  for text, ids in zip(texts, dataset.as_numpy_iterator(), strict=True):
    assert ids.tolist() == vocabulary.vocabulary().encode(text) == words.encode(text)


def test_text_in_a_tf_graph_is_that_of_plain_python():
  words = sources.seqio_vocabulary()
  ids = words.encode("Q: where does Anna live? A: Oslo, now.")
  padded = tf.constant([[*ids, 1, 7, 7], [0, *ids, 1, 7]], tf.int32)
  decoded = [text.decode() for text in words.decode_tf(padded).numpy()]
  assert decoded == [words.decode(row) for row in padded.numpy()]


def test_the_vocabulary_can_be_pickled_and_compared():
  words = sources.seqio_vocabulary()
  words.encode_tf(tf.constant("the dog."))
  assert pickle.loads(pickle.dumps(words)) == words
  assert (words.pad_id, words.eos_id, words.unk_id) == (0, 1, 2)
  assert words.vocab_size == vocabulary.vocabulary().size
  assert sources.seqio_vocabulary() is words
