"""The score of a given answer is the sum of its tokens' log p."""

import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.checkpoints import restore, t5x
from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding import scoring
from promot_jax.decoding.strategies import Greedy
from tiny_models import T5X_SIZES, tiny

V = 40


def make_batch(targets, seed=0):
  draw = np.random.default_rng(seed).integers
  targets = np.asarray(targets, np.int32)
  return {
    "encoder_input_tokens": draw(2, V, size=(len(targets), 4)).astype(np.int32),
    "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
    "decoder_target_tokens": targets,
    "decoder_loss_weights": (targets > 0).astype(np.float32),
  }


TARGETS = [[4, 9, 1, 0, 0], [7, 1, 0, 0, 0], [2, 2, 8, 22, 1]]


def numpy_scores(model, batch):
  logits = np.asarray(model.logits(model.hidden(batch)), np.float64)
  log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  chosen = np.take_along_axis(log_p, batch["decoder_target_tokens"][..., None], axis=-1)[..., 0]
  return chosen


def test_the_score_is_the_weighted_sum_of_log_softmax():
  model, batch = tiny("t5", seed=0), make_batch(TARGETS)
  expected = (numpy_scores(model, batch) * batch["decoder_loss_weights"]).sum(axis=1)
  np.testing.assert_allclose(scoring.score(model, batch), expected, rtol=1e-5)
  batch["decoder_loss_weights"] = np.random.default_rng(1).random((3, 5)).astype(np.float32)
  expected = (numpy_scores(model, batch) * batch["decoder_loss_weights"]).sum(axis=1)
  np.testing.assert_allclose(scoring.score(model, batch), expected, rtol=1e-5)


def test_without_weights_padding_is_left_out():
  model, batch = tiny("t5", seed=0), make_batch(TARGETS)
  expected = scoring.score(model, batch)
  del batch["decoder_loss_weights"]
  np.testing.assert_allclose(scoring.score(model, batch), expected, rtol=1e-6)


@pytest.mark.parametrize("numbers_at_once", [1, 3 * V, 2 * 3 * V, 4 * 3 * V])
def test_positions_scored_in_parts_give_the_same_scores(monkeypatch, numbers_at_once):
  model, batch = tiny("t5", seed=0), make_batch(TARGETS)
  expected = np.asarray(scoring.score(model, batch))
  monkeypatch.setattr(scoring, "_LOGITS_AT_ONCE", numbers_at_once)
  graphdef, state = nnx.split(model)
  parts = scoring._score(state, batch, graphdef=graphdef).log_p
  np.testing.assert_allclose(parts, expected, rtol=1e-6)


def test_scores_of_t5x_checkpoints_equal_score_batch_of_t5x(shared_data):
  folder = shared_data / "t5x_checkpoint" / "t5_1_1_tiny"
  model = tiny("t5", **T5X_SIZES["t5_1_1_tiny"])
  model = restore.restore_into(model, t5x.open_t5x(folder / "legacy"))
  with np.load(folder / "expected_io.npz") as file:
    batch = {name: file[f"batch/{name}"] for name in make_batch(TARGETS)}
    expected = file["score_batch"]
  np.testing.assert_allclose(scoring.score(model, batch), expected, rtol=2e-6)


def test_a_generated_output_scores_what_its_decoding_reported():
  model, batch = tiny("t5", seed=3), make_batch(TARGETS)
  result = generate_lib.generate(model, batch, strategy=Greedy(), max_length=6)
  tokens = np.asarray(result.tokens)[:, 0]
  ended = np.cumsum(tokens == 1, axis=1) - (tokens == 1)
  again = make_batch(tokens)
  again["encoder_input_tokens"] = batch["encoder_input_tokens"]
  again["decoder_loss_weights"] = (ended == 0).astype(np.float32)
  found = scoring.scores(model, again)
  np.testing.assert_allclose(found.log_p, result.scores[:, 0], rtol=1e-4)
  assert np.asarray(found.greedy).all()
  other = np.array(again["decoder_target_tokens"])
  other[1, 0] += 1  # which greedy decoding does not write
  again["decoder_target_tokens"] = other
  assert np.asarray(scoring.scores(model, again).greedy).tolist() == [True, False, True]


def test_batches_and_checkpoints_of_one_shape_share_one_program():
  models = [tiny("t5", seed=seed) for seed in range(2)]
  scoring.score(models[0], make_batch(TARGETS))
  programs = scoring.compiled._cache_size()
  for model in [*models, paths.copy(models[1])]:
    scoring.score(model, make_batch(TARGETS, seed=5))
  assert scoring.compiled._cache_size() == programs


def test_a_toy_without_positions_scores_by_the_same_protocol(toy, toy_log_p):
  model = toy(23, seed=2)
  batch = make_batch(TARGETS)
  for row, expected in enumerate(np.asarray(scoring.score(model, batch))):
    number, target = batch["encoder_input_tokens"][row, 0], [t for t in TARGETS[row] if t]
    log_p = sum(toy_log_p(model, number, target[:i])[target[i]] for i in range(len(target)))
    np.testing.assert_allclose(expected, log_p, rtol=1e-5)
