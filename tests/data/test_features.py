"""Passages, a preference pair and a teacher's distributions, from the task to the devices."""

import functools

import jax
import numpy as np
import pytest

from promot_jax import errors, partitioning
from promot_jax.data import batches, cache, features
from promot_jax.data import examples as example_lists
from promot_jax.data.features import Feature
from promot_jax.token_ids import T5

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")

BYTES = seqio.ByteVocabulary()
WHOLE = seqio.PassThroughVocabulary(size=300)
ROWS = 7  # passages: 1 to 3 of 2 to 5 tokens; distributions [2 to 4, 3]


def record(number: int) -> dict:
  return {
    "inputs": np.arange(3, 4 + number % 4, dtype=np.int32),
    "targets": np.array([5 + number, 1], np.int32),
    "rejected": np.full(1 + number % 3, 40 + number, np.int32),
    "passages": np.arange((1 + number % 3) * (2 + number % 4), dtype=np.int32).reshape(
      1 + number % 3, -1
    ),
    "teacher": np.full((2 + number % 3, 3), number / 8, np.float32),
    "source": np.int32(number),
  }


OUTPUT = {
  "inputs": seqio.Feature(BYTES, add_eos=False),
  "targets": seqio.Feature(BYTES, add_eos=False),
  "rejected": seqio.Feature(BYTES, add_eos=False),
  "passages": seqio.Feature(WHOLE, add_eos=False, rank=2),
  "teacher": seqio.ContinuousFeature(dtype=tf.float32, rank=2),
  "source": seqio.Feature(WHOLE, add_eos=False, rank=0),
}


def register(name: str, output, rows=ROWS) -> None:
  spec = {
    key: tf.TensorSpec([None] * np.ndim(value), tf.as_dtype(value.dtype))
    for key, value in record(0).items()
  }

  def dataset(split, shuffle_files=False, seed=None):
    return tf.data.Dataset.from_generator(lambda: map(record, range(rows)), output_signature=spec)

  if name not in seqio.TaskRegistry.names():
    seqio.TaskRegistry.add(
      name,
      source=seqio.FunctionDataSource(dataset, splits=["train"]),
      preprocessors=[],
      output_features=output,
    )


register("rich", OUTPUT)
load = functools.partial(example_lists.load_examples, "rich", "train", {})


def test_every_declared_feature_is_read_by_its_kind():
  found = load()
  assert found.kinds == {
    "rejected": Feature(),
    "passages": Feature(rank=2),
    "teacher": Feature(rank=2, dtype="float32"),
    "source": Feature(rank=0),
  }
  for number in range(ROWS):
    for name in found.kinds:
      np.testing.assert_array_equal(found.features[name][number], record(number)[name])


def test_a_batch_has_padded_rows_and_their_masks_on_the_devices():
  made = batches.TrainBatches(load(), batch_size=4, seed=3, special=T5)
  again = batches.TrainBatches(load(), batch_size=4, seed=3, special=T5)
  mesh = partitioning.make_mesh(data=2, model=1, devices=jax.devices()[:2])
  for step in (0, 5):  # any step by its number, as after a restart
    host, repeated = made(step), again(step)
    placed = partitioning.global_batch(host, mesh)
    for name in host:
      np.testing.assert_array_equal(host[name], repeated[name])
      np.testing.assert_array_equal(np.asarray(placed[name]), host[name])
    assert host["passages"].shape == (4, 3, 5) and host["teacher"].shape == (4, 4, 3)
    assert host["rejected"].shape == (4, 3) and host["teacher"].dtype == np.float32
    for row, index in enumerate(made.indices(step)):
      whole = record(int(index))
      assert host["source"][row] == index
      for name in ("passages", "teacher", "rejected"):
        mask = host[f"{name}_mask"][row]
        np.testing.assert_array_equal(host[name][row][mask], whole[name].ravel())
        assert not host[name][row][~mask].any()


def test_what_reads_only_gets_everything_but_the_answers():
  (batch, _), *_ = batches.EvalBatches(load(), batch_size=ROWS, special=T5)
  read = batches.read_only(batch)
  assert {"passages", "passages_mask", "encoder_input_tokens", "prompt_ids"} <= set(read)
  assert not [name for name in read if name.startswith("decoder_")]


def test_a_cached_split_has_them_and_one_of_before_is_still_read(tmp_path):
  first, second = load(cache_dir=tmp_path), load(cache_dir=tmp_path)
  assert first.kinds == second.kinds and first.content == second.content
  for name in first.kinds:
    for one, other in zip(first.features[name], second.features[name], strict=True):
      np.testing.assert_array_equal(one, other)
  old = tmp_path / "old.npz"
  arrays = {"inputs": np.array([3, 1]), "input_lengths": np.array([2])}
  arrays |= {"targets": np.array([1]), "target_lengths": np.array([1])}
  cache.write(old, {**arrays, "records": [{}], "report": {}})
  stored = cache.read(old)
  assert (stored["kinds"], stored["features"]) == ({}, {})


def test_other_values_are_other_data():
  one, other = load(), load()
  changed = [array + (number == 2) for number, array in enumerate(other.features["teacher"])]
  other = example_lists.dataclasses.replace(other, features={**other.features, "teacher": changed})
  assert one.content != other.content
  assert one.select([2, 0]).features["passages"][1].shape == record(0)["passages"].shape


def test_buckets_are_taken_by_the_longest_of_a_batch():
  kind = Feature(rank=1, pad=-1, buckets=(2, 4))
  rows = kind.padded("x", [np.array([7]), np.array([8, 9])], (4,))
  np.testing.assert_array_equal(rows["x"], [[7, -1], [8, 9]])
  assert kind.padded("x", [np.array([7, 8, 9])], (4,))["x"].shape == (1, 4)
  with pytest.raises(errors.ConfigError, match=r"'x' has 5 entries, and its longest bucket is 4"):
    kind.padded("x", [np.arange(5)], (5,))


@pytest.mark.parametrize(
  ("kind", "value", "message"),
  [
    (Feature(rank=2), [1, 2], "has 1 dimensions; it was declared with 2"),
    (Feature(), ["a"], "holds no numbers"),
    (Feature(), [2**40], "does not fit int32"),
  ],
)
def test_a_value_of_another_kind_is_refused(kind, value, message):
  with pytest.raises(errors.DataError, match=message):
    kind.array("x", value)


def test_tasks_with_different_features_do_not_share_batches():
  register("poor", {name: OUTPUT[name] for name in ("inputs", "targets")})
  poor = example_lists.load_examples("poor", "train", {})
  with pytest.raises(errors.DataError, match="rich and poor declare different features"):
    example_lists.concatenate([load(), poor])
  assert features.declared(seqio.TaskRegistry.get("poor")) == {}
