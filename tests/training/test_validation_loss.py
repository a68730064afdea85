"""The validation loss is the plain weighted mean, however the examples are cut into batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from promot_jax.models.readout import Readout
from promot_jax.token_ids import T5
from promot_jax.training import validation_loss
from promot_jax.training.objectives import Supervised

ROWS, LENGTH, WIDTH, VOCABULARY = 7, 5, 6, 11


class Tiny(nnx.Module):
  """Logits of a table row for each input token, with dropout where there is a key."""

  token_ids = T5

  def __init__(self):
    self.table = nnx.Param(jax.random.normal(jax.random.key(0), (VOCABULARY, WIDTH)))
    self.kernel = nnx.Param(jax.random.normal(jax.random.key(1), (WIDTH, VOCABULARY)))

  def hidden(self, batch, *, key=None):
    found = self.table[...][batch["decoder_input_tokens"]]
    return found if key is None else found * 0

  @property
  def readout(self):
    return Readout(kernel=self.kernel[...])


def examples():
  random = np.random.default_rng(5)
  weights = (np.arange(LENGTH) < random.integers(1, LENGTH + 1, (ROWS, 1))).astype(np.float32)
  return {
    "decoder_input_tokens": random.integers(2, VOCABULARY, (ROWS, LENGTH)).astype(np.int32),
    "decoder_target_tokens": random.integers(2, VOCABULARY, (ROWS, LENGTH)).astype(np.int32),
    "decoder_loss_weights": weights,
  }


def plain(model, batch, *, smoothing=0.0, by_sequence=False):
  """(loss, token accuracy) by numpy in float64."""
  table, kernel = (np.asarray(leaf[...], np.float64) for leaf in (model.table, model.kernel))
  logits = table[batch["decoder_input_tokens"]] @ kernel
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"].astype(float)
  chosen = np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
  low = smoothing / (VOCABULARY - 1)
  high = 1.0 - smoothing
  each = -(high * chosen + low * (log_p.sum(-1) - chosen))
  if smoothing:
    each += high * np.log(high) + (VOCABULARY - 1) * low * np.log(low)
  correct = logits.argmax(-1) == targets
  if by_sequence:
    weights /= weights.sum(-1, keepdims=True)
  return (each * weights).sum() / weights.sum(), (correct * weights).sum() / weights.sum()


def cut(batch, size, *, more_padding=0):
  """Batches of a size, the last filled with copies of weight 0, wider by some padding."""
  for start in range(0, ROWS, size):
    numbers = np.arange(start, start + size)
    found = {name: array[np.minimum(numbers, ROWS - 1)] for name, array in batch.items()}
    found["decoder_loss_weights"] = found["decoder_loss_weights"] * (numbers < ROWS)[:, None]
    yield {name: np.pad(array, ((0, 0), (0, more_padding))) for name, array in found.items()}


@pytest.mark.parametrize("factor", ["NUM_REAL_TARGET_TOKENS", "NUM_TOTAL_TARGET_TOKENS", None, 8])
@pytest.mark.parametrize(("size", "more"), [(7, 0), (3, 0), (2, 4)])
def test_it_is_the_mean_over_target_tokens_whatever_the_batches(factor, size, more):
  model, batch = Tiny(), examples()
  objective = Supervised(label_smoothing=0.1, loss_normalizing_factor=factor)
  found = validation_loss.means(
    validation_loss.add(validation_loss.sums(model, objective, cut(batch, size, more_padding=more)))
  )
  loss, accuracy = plain(model, batch, smoothing=0.1)
  assert found == pytest.approx({"loss": loss, "token_accuracy": accuracy}, rel=1e-5)


def test_sequences_weigh_alike_where_the_objective_says_so():
  model, batch = Tiny(), examples()
  objective = Supervised(loss_normalizing_factor="AVERAGE_PER_SEQUENCE")
  found = validation_loss.add(validation_loss.sums(model, objective, cut(batch, 3)))
  loss, accuracy = plain(model, batch, by_sequence=True)
  means = validation_loss.means(found)
  assert means == pytest.approx({"loss": loss, "token_accuracy": accuracy}, rel=1e-5)
  assert loss != pytest.approx(plain(model, batch)[0], rel=1e-3)


def test_an_objective_of_ones_own_is_divided_by_its_normalizer(tiny):
  model = tiny.TinyModel(nnx.Rngs(0))
  batches = [tiny.batch_of(step) for step in range(3)]
  found = validation_loss.add(validation_loss.sums(model, tiny.LeastSquares(), batches))
  squares = [np.square(np.asarray(model(jnp.asarray(b["x"]))) - b["y"]) for b in batches]
  assert validation_loss.means(found) == pytest.approx({"loss": np.mean(squares)}, rel=1e-5)


def test_batches_of_one_shape_compile_once_in_all_validations():
  objective, batch = Supervised(z_loss=1e-4), examples()
  before = validation_loss.compiled._cache_size()
  model = Tiny()
  for _ in range(3):
    list(validation_loss.sums(model, objective, cut(batch, 2)))
    model.table[...] = model.table[...] * 0.5  # as training does
  assert validation_loss.compiled._cache_size() == before + 1


def test_a_split_batch_gives_the_same_sums():
  mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
  split = NamedSharding(mesh, PartitionSpec("data"))
  everywhere = NamedSharding(mesh, PartitionSpec())
  model, objective = Tiny(), Supervised()
  alone = validation_loss.add(validation_loss.sums(model, objective, cut(examples(), 4)))
  graphdef, state = nnx.split(model)
  placed = nnx.merge(graphdef, jax.device_put(state, everywhere))
  batches = (jax.device_put(batch, split) for batch in cut(examples(), 4))
  together = validation_loss.add(validation_loss.sums(placed, objective, batches))
  for name, (value, weight) in alone.items():
    assert together[name] == pytest.approx((value, weight), rel=1e-6)
