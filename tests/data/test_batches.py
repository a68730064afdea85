"""Batches by step: complete, reproducible, resumable, the same for any number of hosts."""

import subprocess
import sys

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.data import buckets as bucketing
from promot_jax.data import examples as example_lists
from promot_jax.data import mixtures
from promot_jax.data.batches import EvalBatches, Interleaving, TrainBatches, collate
from promot_jax.token_ids import T5


def make_examples(count: int, *, longest: int = 40, name: str = "toy", seed: int = 0):
  """Examples whose first token is their number + 10."""
  random = np.random.default_rng(seed)
  lengths = random.integers(2, longest, size=count)
  return example_lists.Examples(
    name=name,
    split="train",
    features={
      "inputs": [
        np.r_[10 + n, np.full(length - 2, 3), 1].astype(np.int32)
        for n, length in enumerate(lengths)
      ],
      "targets": [np.r_[[5] * (n % 3 + 1), 1].astype(np.int32) for n in range(count)],
      "prompt_ids": np.zeros(count, np.int32),
    },
    records=[{"inputs": str(n)} for n in range(count)],
    lengths=example_lists.LengthReport(examples=count, inputs_limit=None, targets_limit=None),
  )


def numbers(batch) -> list[int]:
  return (batch["encoder_input_tokens"][:, 0] - 10).tolist()


def test_a_batch_has_padded_inputs_shifted_targets_and_weights():
  examples = make_examples(5)
  batch = collate(examples, [2, 1], (44, 6), T5)
  source = batch["encoder_input_tokens"]
  assert source.shape == (2, 44) and source.dtype == np.int32
  assert source[0, : len(examples.inputs[2])].tolist() == examples.inputs[2].tolist()
  assert not source[0, len(examples.inputs[2]) :].any()
  assert batch["decoder_target_tokens"].tolist() == [[5, 5, 5, 1, 0, 0], [5, 5, 1, 0, 0, 0]]
  assert batch["decoder_input_tokens"].tolist() == [[0, 5, 5, 5, 1, 0], [0, 5, 5, 1, 0, 0]]
  assert batch["decoder_loss_weights"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]
  assert batch["decoder_loss_weights"].dtype == np.float32
  assert batch["prompt_ids"].tolist() == [0, 0]


def test_every_epoch_has_every_example_exactly_once():
  batches = TrainBatches(make_examples(60), special=T5, batch_size=6, batches_per_window=5)
  first = [index for step in range(10) for index in batches.indices(step)]
  second = [index for step in range(10, 20) for index in batches.indices(step)]
  assert sorted(first) == sorted(second) == list(range(60))
  assert first != second


def test_examples_run_on_where_an_epoch_is_no_whole_number_of_batches():
  batches = TrainBatches(make_examples(10), special=T5, batch_size=4, batches_per_window=1)
  drawn = [index for step in range(5) for index in batches.indices(step)]  # two epochs
  assert sorted(drawn) == sorted([*range(10), *range(10)])
  assert sorted(set(drawn[:8])) == sorted(drawn[:8])


def test_any_step_can_be_asked_for_first():
  examples = make_examples(37)
  straight = TrainBatches(examples, special=T5, batch_size=4, seed=7)
  expected = [straight(step) for step in range(25)]
  for start in (0, 1, 9, 24, 13):
    resumed = TrainBatches(examples, special=T5, batch_size=4, seed=7)
    for name, array in resumed(start).items():
      np.testing.assert_array_equal(array, expected[start][name])


def test_the_seed_decides_over_the_order():
  examples = make_examples(37)
  orders = [
    [
      TrainBatches(examples, special=T5, batch_size=4, seed=seed).indices(s).tolist()
      for s in range(9)
    ]
    for seed in (1, 1, 2)
  ]
  assert orders[0] == orders[1] != orders[2]


def test_a_batch_without_rows_is_refused():
  with pytest.raises(errors.ConfigError, match="batch size 0"):
    TrainBatches(make_examples(9), special=T5, batch_size=0)


def test_all_batches_have_one_of_few_shapes():
  batches = TrainBatches(make_examples(300), special=T5, batch_size=8)
  shapes = {batches(step)["encoder_input_tokens"].shape for step in range(80)}
  assert len(shapes) <= 6
  assert {shape[1] for shape in shapes} <= set(batches.buckets.inputs)
  for step in (0, 17):
    batch = batches(step)
    assert batch["encoder_input_tokens"].shape[1] == batches.shape(step)[0]
    assert batch["decoder_target_tokens"].shape[1] == batches.shape(step)[1]


def test_sorting_by_length_saves_padding():
  examples = make_examples(400, longest=200)
  sorted_ratio = TrainBatches(examples, special=T5, batch_size=16).padding_ratio()
  in_order = TrainBatches(examples, special=T5, batch_size=16, batches_per_window=1).padding_ratio()
  assert sorted_ratio < 1.25 < in_order


def test_the_padding_ratio_is_that_of_the_arrays():
  batches = TrainBatches(make_examples(64), special=T5, batch_size=8)
  needed = computed = 0
  for batch in map(batches, range(8)):
    needed += batch["encoder_input_mask"].sum() + (batch["decoder_loss_weights"] > 0).sum()
    computed += batch["encoder_input_tokens"].size + batch["decoder_target_tokens"].size
  assert batches.padding_ratio(8) == pytest.approx(computed / needed)


def test_short_and_long_batches_alternate_at_random():
  batches = TrainBatches(make_examples(512, longest=200), special=T5, batch_size=16)
  lengths = [batches.shape(step)[0] for step in range(32)]
  assert lengths != sorted(lengths)
  assert len(set(lengths[:8])) > 1


def test_a_small_data_set_is_never_twice_in_one_batch():
  batches = TrainBatches(make_examples(20), special=T5, batch_size=16, batches_per_window=8)
  assert batches.batches_per_window == 1
  indices = batches.indices(0)
  assert len(set(indices.tolist())) == len(indices)


def test_a_mixture_draws_by_rate_and_numbers_the_prompts():
  tasks = [make_examples(30, name="a"), make_examples(90, name="b", seed=1)]
  batches = TrainBatches(tasks, special=T5, batch_size=8, rates=mixtures.weighted([1, 3]))
  prompts = np.concatenate([batches(step)["prompt_ids"] for step in range(64)])
  assert prompts.mean() == pytest.approx(0.75, abs=0.02)
  indices = np.concatenate([batches.indices(step) for step in range(64)])
  np.testing.assert_array_equal(prompts, indices >= 30)


def test_the_rarest_tasks_of_a_mixture_are_drawn_too():
  counts = Interleaving(np.asarray([4.9e-7, 4.9e-7, 1 - 9.8e-7])).counts
  assert counts.tolist() == [1, 1, 65534]


def test_each_task_of_a_mixture_goes_through_its_own_epochs():
  tasks = [make_examples(16, name="a"), make_examples(64, name="b", seed=1)]
  batches = TrainBatches(
    tasks, special=T5, batch_size=16, rates=mixtures.equal, batches_per_window=4
  )
  drawn = np.concatenate([batches.indices(step) for step in range(8)])  # 64 draws of each task
  counts = np.bincount(drawn, minlength=80)
  assert counts[:16].tolist() == [4] * 16
  assert counts[16:].tolist() == [1] * 64


def test_epochs_are_counted():
  assert TrainBatches(make_examples(50), special=T5, batch_size=5).epoch(20) == pytest.approx(2.0)


def test_evaluation_sees_every_example_once_and_marks_the_filling_rows():
  examples = make_examples(21)
  batches = EvalBatches(examples, special=T5, batch_size=4)
  seen, shapes = [], set()
  for batch, rows in batches:
    assert batch["encoder_input_tokens"].shape[0] == len(rows) == 4
    real = rows >= 0
    assert [number for number, keep in zip(numbers(batch), real) if keep] == rows[real].tolist()
    assert not batch["decoder_loss_weights"][~real].any()
    assert batch["encoder_input_tokens"][~real].any(axis=1).all()  # a real row, no empty mask
    seen += rows[real].tolist()
    shapes.add(batch["encoder_input_tokens"].shape)
  assert sorted(seen) == list(range(21))
  assert len(batches) == 6
  assert len(shapes) <= 6


def test_evaluation_starts_with_the_longest():
  shapes = [
    batch["encoder_input_tokens"].shape[1]
    for batch, _ in EvalBatches(make_examples(60, longest=99), special=T5, batch_size=4)
  ]
  assert shapes == sorted(shapes, reverse=True)


def test_tasks_of_an_evaluation_can_share_batches():
  parts = [make_examples(5, name="a"), make_examples(6, name="b").with_prompt_ids(2)]
  rows = [
    (int(row), int(prompt))
    for batch, found in EvalBatches(parts, special=T5, batch_size=4)
    for row, prompt in zip(found, batch["prompt_ids"])
    if row >= 0
  ]
  assert sorted(rows) == [(row, 0 if row < 5 else 2) for row in range(11)]


def test_given_buckets_are_kept():
  buckets = bucketing.Buckets(inputs=(16, 64), targets=(8,))
  batches = TrainBatches(make_examples(40), special=T5, batch_size=4, buckets=buckets)
  assert {batches.shape(step) for step in range(20)} <= {(16, 8), (64, 8)}


def test_batches_and_templates_import_neither_tensorflow_nor_jax():
  code = (
    "import sys; import promot_jax.data.batches, promot_jax.data.templates, tasks;"
    "print([m for m in ('jax', 'tensorflow', 'seqio') if m in sys.modules])"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"
