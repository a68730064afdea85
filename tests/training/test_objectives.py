"""The supervised objective: normalizers against hand-worked sums, metrics, T5X's stored loss."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths, token_ids
from promot_jax.models.readout import Readout
from promot_jax.training import objectives
from promot_jax.training.objectives import Supervised
from tiny_models import T5X_SIZES, tiny

B, T, D, V = 2, 3, 4, 11


class FixedHidden(nnx.Module):
  """A backbone whose hidden states are given, for expected values without a network."""

  token_ids = token_ids.T5

  def __init__(self, scale=1.0):
    generator = np.random.default_rng(0)
    self.states = nnx.Param(jnp.asarray(generator.normal(size=(B, T, D)), jnp.float32))
    self.kernel = nnx.Param(jnp.asarray(generator.normal(size=(D, V)), jnp.float32))
    self.scale = scale

  def hidden(self, batch, *, input_embeddings=None, key=None):
    return self.states[...]

  @property
  def readout(self):
    return Readout(kernel=self.kernel[...], scale=self.scale)

  def logits(self, hidden):
    return hidden @ self.kernel[...] * self.scale


BATCH = {
  "encoder_input_tokens": np.array([[4, 5, 0, 0, 0], [6, 7, 8, 1, 0]], np.int32),
  "decoder_target_tokens": np.array([[3, 1, 0], [9, 2, 1]], np.int32),
  "decoder_loss_weights": np.array([[1, 1, 0], [1, 0, 1]], np.float32),
}


def token_losses(model):
  """-log p of each target [B, T], by numpy."""
  logits = np.asarray(model.logits(model.hidden(BATCH)), np.float64)
  log_z = np.log(np.exp(logits).sum(-1))
  return log_z - np.take_along_axis(logits, BATCH["decoder_target_tokens"][..., None], -1)[..., 0]


@pytest.mark.parametrize(
  "factor, divisor",
  [
    ("NUM_REAL_TARGET_TOKENS", 4),
    ("real_target_tokens", 4),
    ("NUM_TOTAL_TARGET_TOKENS", B * T),
    ("sum", 1),
    (None, 1),
    (233472, 233472),
  ],
)
def test_loss_is_divided_by_the_chosen_number(factor, divisor):
  model = FixedHidden()
  objective = Supervised(loss_normalizing_factor=factor)
  loss, _ = objective(model, BATCH)
  total = (token_losses(model) * BATCH["decoder_loss_weights"]).sum()
  np.testing.assert_allclose(loss / objective.normalizer(BATCH), total / divisor, rtol=1e-5)


def test_average_per_sequence_weighs_all_sequences_equally():
  model = FixedHidden()
  objective = Supervised(loss_normalizing_factor="AVERAGE_PER_SEQUENCE")
  batch = {**BATCH, "decoder_loss_weights": np.array([[1, 1, 0], [1, 1, 1]], np.float32)}
  loss, _ = objective(model, batch)
  losses = token_losses(model)
  expected = (losses[0, :2].mean() + losses[1].mean()) / 2
  np.testing.assert_allclose(loss / objective.normalizer(batch), expected, rtol=1e-5)
  # A sequence without targets counts for nothing.
  batch = {**BATCH, "decoder_loss_weights": np.array([[0, 0, 0], [1, 1, 1]], np.float32)}
  loss, _ = objective(model, batch)
  np.testing.assert_allclose(loss / objective.normalizer(batch), losses[1].mean(), rtol=1e-5)


def test_a_batch_without_targets_has_loss_zero_not_nan():
  batch = {**BATCH, "decoder_loss_weights": np.zeros((B, T), np.float32)}
  for factor in ("NUM_REAL_TARGET_TOKENS", "AVERAGE_PER_SEQUENCE"):
    objective = Supervised(loss_normalizing_factor=factor)
    assert objective(FixedHidden(), batch)[0] / objective.normalizer(batch) == 0.0


def test_a_batch_must_say_which_targets_are_padding():
  batch = {name: value for name, value in BATCH.items() if name != "decoder_loss_weights"}
  with pytest.raises(errors.ConfigError, match="has no decoder_loss_weights"):
    Supervised().normalizer(batch)


@pytest.mark.parametrize("chunk", [None, 4])
def test_metrics_are_sums_and_weights(chunk):
  model = FixedHidden(scale=0.5)
  loss, metrics = Supervised(z_loss=1e-3, vocabulary_chunk=chunk)(model, BATCH)
  weights, losses = BATCH["decoder_loss_weights"], token_losses(model)
  logits = np.asarray(model.logits(model.hidden(BATCH)))
  z_losses = 1e-3 * np.log(np.exp(logits).sum(-1)) ** 2
  correct = logits.argmax(-1) == BATCH["decoder_target_tokens"]
  expected = {
    "accuracy": ((correct * weights).sum(), 4),
    "cross_ent_loss": ((losses * weights).sum(), 4),
    "z_loss": ((z_losses * weights).sum(), 4),
    "loss_per_nonpadding_target_token": (((losses + z_losses) * weights).sum(), 4),
    "loss_per_all_target_tokens": (((losses + z_losses) * weights).sum(), 6),
    "non_padding_fraction/decoder_target_tokens": (5, 6),
    "non_padding_fraction/encoder_input_tokens": (6, 10),
  }
  assert set(metrics) == set(expected)
  for name, pair in expected.items():
    np.testing.assert_allclose(metrics[name], pair, rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(loss, expected["loss_per_all_target_tokens"][0], rtol=1e-5)
  share = expected["accuracy"][0] / 4
  assert objectives.mean_metrics(metrics)["accuracy"] == pytest.approx(share)
  assert np.isnan(objectives.mean_metrics({"empty": (0.0, 0.0)})["empty"])


def test_impossible_normalizers_are_refused():
  with pytest.raises(errors.ConfigError, match="'mean' is not one of NUM_REAL_TARGET_TOKENS"):
    Supervised(loss_normalizing_factor="mean")
  with pytest.raises(errors.ConfigError, match="a finite number above 0"):
    Supervised(loss_normalizing_factor=0)


@pytest.mark.parametrize("chunk", [None, 50])
def test_summed_loss_is_the_one_t5x_computed(shared_data, chunk):
  """T5X's default is the plain sum over the target tokens of the batch."""
  folder = shared_data / "t5x_checkpoint" / "t5_1_1_tiny"
  stored, io = np.load(folder / "expected_state.npz"), np.load(folder / "expected_io.npz")
  model = paths.replace_leaves(
    tiny("t5", **T5X_SIZES["t5_1_1_tiny"]),
    {
      re.sub(r"layers_(\d+)", r"layers/\1", path.removeprefix("target/")): jnp.asarray(stored[path])
      for path in stored.files
      if path.startswith("target/")
    },
  )
  batch = {path.removeprefix("batch/"): io[path] for path in io.files if path.startswith("batch/")}
  objective = Supervised(loss_normalizing_factor=None, vocabulary_chunk=chunk)
  loss, _ = jax.jit(lambda state: objective(nnx.merge(nnx.split(model)[0], state), batch))(
    nnx.state(model)
  )
  np.testing.assert_allclose(loss, io["loss"], rtol=1e-5)


@pytest.mark.parametrize(
  "options",
  [
    {"z_loss": float("inf")},
    {"z_loss": -1e-4},
    {"label_smoothing": float("nan")},
    {"label_smoothing": 1.0},
    {"loss_normalizing_factor": float("inf")},
    {"loss_normalizing_factor": 0.0},
  ],
)
def test_numbers_that_cannot_be_are_refused_by_name(options):
  (name,) = options
  with pytest.raises(errors.ConfigError, match=f"Supervised: {name}="):
    Supervised(**options)
