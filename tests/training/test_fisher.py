"""Fisher information against float64 numpy: squared gradients of each example, drawn answers, passes in parts."""

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax.checkpoints.store import Store
from promot_jax.errors import ConfigError
from promot_jax.identity import Identity, part
from promot_jax.models.readout import Readout
from promot_jax.token_ids import T5
from promot_jax.training import fisher
from promot_jax.training.penalties import Fisher

B, T, D, V = 4, 3, 2, 5


class Linear(nnx.Module):
  """Logits of a table row for each input token; only the kernel is asked for."""

  token_ids = T5

  def __init__(self):
    keys = jax.random.split(jax.random.key(2))
    self.table = nnx.Param(jax.random.normal(keys[0], (V, D)))
    self.kernel = nnx.Param(jax.random.normal(keys[1], (D, V)))

  def hidden(self, batch, *, key=None):
    return self.table[...][batch["decoder_input_tokens"]]

  def logits(self, hidden):
    return hidden @ self.kernel[...]

  @property
  def readout(self):
    return Readout(kernel=self.kernel[...])


MODEL = Linear()


def batches(number):
  random = np.random.default_rng(number)
  return {
    "decoder_input_tokens": random.integers(0, V, (B, T)).astype(np.int32),
    "decoder_target_tokens": random.integers(0, V, (B, T)).astype(np.int32),
    "decoder_loss_weights": (np.arange(T) < random.integers(1, T + 1, (B, 1))).astype(np.float32),
  }


def measured(settings, store, **given):
  given = {
    "made_from": Identity(parts={"anchor": part("a")}),
    "batches": batches,
    "seed": 0,
    **given,
  }
  return fisher.measure(settings, MODEL, ["kernel"], store=store, **given)["kernel"]


def parts(number):
  """(hidden states [B T D], probabilities [B T V], weights [B T]), in float64."""
  batch = batches(number)
  hidden = np.float64(MODEL.table[...])[batch["decoder_input_tokens"]]
  logits = hidden @ np.float64(MODEL.kernel[...])
  odds = np.exp(logits - logits.max(-1, keepdims=True))
  return hidden, odds / odds.sum(-1, keepdims=True), batch["decoder_loss_weights"]


def test_with_the_answers_of_the_data_it_is_the_mean_of_each_examples_squared_gradient(tmp_path):
  found = measured(Fisher(examples=8, batch_size=B, targets="data"), Store(tmp_path))
  expected = np.zeros((D, V))
  for number in range(2):
    hidden, p, weights = parts(number)
    scores = (np.eye(V)[batches(number)["decoder_target_tokens"]] - p) * weights[..., None]
    expected += (np.einsum("btd,btv->bdv", hidden, scores) ** 2).sum(0) / 8
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_with_drawn_answers_it_tends_to_the_expectation_over_the_models_own(tmp_path):
  """E of the squared score of one place is sum_v p_v (1[v = j] - p_j)^2 = p_j (1 - p_j), times x_i^2."""
  many = 2000  # of each example: their draws differ
  both = {name: np.concatenate([batches(0)[name], batches(1)[name]] * many) for name in batches(0)}
  settings = Fisher(examples=2 * B * many, batch_size=2 * B * many)
  found = measured(settings, Store(tmp_path), batches=lambda number: both)
  expected = np.zeros((D, V))
  for number in range(2):
    hidden, p, weights = parts(number)
    expected += np.einsum("btd,btv,bt->dv", hidden**2, p * (1 - p), weights) / (2 * B)
  np.testing.assert_allclose(found, expected, rtol=0.1)


def test_a_pass_that_was_stopped_ends_with_the_same_bits_and_reads_nothing_twice(tmp_path):
  settings = Fisher(examples=20, batch_size=B)
  whole = measured(settings, Store(tmp_path / "whole"))
  read = []

  def until(last):
    def batch(number):
      if number == last:
        raise KeyboardInterrupt
      read.append(number)
      return batches(number)

    return batch

  with pytest.raises(KeyboardInterrupt):
    measured(settings, Store(tmp_path / "parts"), batches=until(3))
  again = measured(settings, Store(tmp_path / "parts"), batches=until(None))
  np.testing.assert_array_equal(again, whole)
  assert read == [0, 1, 2, 3, 4]
  measured(settings, Store(tmp_path / "parts"), batches=until(0))  # complete: nothing is read


def test_a_pass_over_another_model_is_not_gone_on_with(tmp_path):
  settings = Fisher(examples=4, batch_size=B)
  measured(settings, Store(tmp_path))
  with pytest.raises(ConfigError, match="the anchor changed"):
    measured(settings, Store(tmp_path), made_from=Identity(parts={"anchor": part("b")}))


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"examples": 0}, "examples=0 must be a finite number at least 1"),
    ({"batch_size": 2.5}, "batch_size=2.5 must be a whole number"),
    ({"targets": "labels"}, "targets='labels' must be 'sampled' or 'data'"),
    ({"tasks": "rte"}, "tasks='rte' must be a list of names"),
  ],
)
def test_settings_that_mean_nothing_are_refused(changes, said):
  with pytest.raises(ConfigError, match=said):
    Fisher(**changes)
