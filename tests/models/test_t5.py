"""The T5 backbone as a whole: forms of its stack, precision, dropout, prompts and decoding."""

import dataclasses
import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.errors import ConfigError
from promot_jax.models import T5, T5Config, stack_layers, unstack_layers
from tiny_models import logits_and_gradients, reconfigured


def _config(**changes):
  shape = {
    "vocab_size": 31,
    "width": 14,
    "heads": 3,
    "head_width": 4,
    "mlp_width": 18,
    "encoder_layers": 2,
    "decoder_layers": 3,
  }
  return T5Config(**{**shape, **changes})


@functools.lru_cache
def _model(**changes):
  return jax.jit(lambda key: T5(_config(**changes), nnx.Rngs(key)))(jax.random.key(0))


def _batch(rows=2):
  random = np.random.default_rng(0)
  source = random.integers(2, 31, (rows, 5)).astype(np.int32)
  source[-1, 3:] = 0
  targets = random.integers(2, 31, (rows, 4)).astype(np.int32)
  shifted = np.concatenate([np.zeros((rows, 1), np.int32), targets[:, :-1]], 1)
  return {
    "encoder_input_tokens": source,
    "decoder_input_tokens": shifted,
    "decoder_target_tokens": targets,
  }


@jax.jit
def _logits(model, batch, key=None):
  return model.logits(model.hidden(batch, key=key))


def _assert_close(actual, expected, tolerance=2e-5):
  actual, expected = paths.named_leaves(actual), paths.named_leaves(expected)
  assert actual.keys() == expected.keys()
  for name, leaf in expected.items():
    largest = np.abs(leaf).max()
    np.testing.assert_allclose(actual[name], leaf, atol=tolerance * largest, rtol=0, err_msg=name)


# Random bits take most of the compile time, so only one form is tried with dropout.
@pytest.mark.parametrize(
  ("scanned", "remat", "dropout_rate"),
  [(True, "full", 0.3), (True, "none", 0.0), (True, "minimal", 0.0), (False, "full", 0.0)],
)
def test_forms_of_the_stack_have_equal_outputs_and_gradients(scanned, remat, dropout_rate):
  model = _model(dropout_rate=dropout_rate)
  key = jax.random.key(4) if dropout_rate else None
  other = reconfigured(stack_layers(model) if scanned else model, remat=remat)
  expected, expected_gradients = logits_and_gradients(model, _batch(), key)
  logits, gradients = logits_and_gradients(other, _batch(), key)
  _assert_close(logits, expected)
  _assert_close(unstack_layers(gradients), expected_gradients, 1e-4)


@pytest.mark.parametrize("scanned, remat", [(True, "none"), (True, "full"), (False, "minimal")])
def test_forms_of_a_stack_with_a_bias_table_in_every_layer_are_equal(scanned, remat):
  model, batch = _model(relative_bias="per_layer"), _batch()
  own = [name for name in paths.named_leaves(model) if "relpos_bias" in name]
  assert own == [
    *(f"decoder/layers/{i}/relpos_bias/rel_embedding" for i in range(3)),
    *(f"encoder/layers/{i}/relpos_bias/rel_embedding" for i in range(2)),
  ]
  expected, gradients = logits_and_gradients(model, batch)
  for name in own:
    assert np.abs(paths.named_leaves(gradients)[name]).max() > 1e-7, name
  other = stack_layers(model) if scanned else model
  other = reconfigured(other, remat=remat)
  logits, found = logits_and_gradients(other, batch)
  np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
  _assert_close(unstack_layers(found) if scanned else found, gradients)


def test_equal_tables_in_all_layers_are_one_that_is_shared():
  shared = _model()
  leaves = paths.named_leaves(shared)
  other = _reconfigured_biases(shared)
  np.testing.assert_array_equal(_logits(other, _batch()), _logits(shared, _batch()))
  name = "decoder/layers/1/relpos_bias/rel_embedding"
  changed = paths.named_leaves(other)
  changed[name] = changed[name] + jnp.linspace(-1, 1, 32)
  changed = paths.replace_leaves(other, changed)
  assert np.abs(_logits(changed, _batch()) - _logits(shared, _batch())).max() > 1e-3
  assert "decoder/relpos_bias/rel_embedding" in leaves


def _reconfigured_biases(shared):
  """The weights of a model with shared biases, in one whose layers have tables of their own."""
  leaves = paths.named_leaves(shared)
  config = dataclasses.replace(shared.config, relative_bias="per_layer")
  other = nnx.eval_shape(lambda: T5(config, nnx.Rngs(1)))
  return paths.replace_leaves(
    other,
    {
      name: leaves[f"{name.split('/')[0]}/relpos_bias/rel_embedding"]
      if "relpos_bias" in name
      else leaves[name]
      for name in paths.named_leaves(other)
    },
  )


def test_stacking_and_unstacking_are_inverse_and_build_equal_weights():
  model = _model()
  stacked = stack_layers(model)
  kernel = stacked.encoder.layers.attention.query.kernel
  assert kernel.shape == (2, 14, 12)
  assert model.config.scan_layers is False and stacked.config.scan_layers is True
  _assert_close(unstack_layers(stacked), model, 0)
  _assert_close(_model(scan_layers=True), stacked, 1e-6)


def test_a_target_position_does_not_see_later_ones():
  model, batch = _model(), _batch()
  changed = dict(batch, decoder_input_tokens=batch["decoder_input_tokens"].copy())
  changed["decoder_input_tokens"][:, 2] = 17
  before, after = _logits(model, batch), _logits(model, changed)
  np.testing.assert_array_equal(before[:, :2], after[:, :2])
  assert np.abs(before[:, 2:] - after[:, 2:]).max() > 1e-3


def test_tied_logits_use_the_scaled_embedding_table():
  model = _model(tied_logits=True)
  assert "decoder/logits_dense/kernel" not in paths.named_leaves(model)
  hidden = np.random.default_rng(3).normal(size=(2, 14)).astype(np.float32)
  table = np.asarray(model.token_embedder.embedding[...])
  np.testing.assert_allclose(model.logits(hidden), hidden @ table.T / 14**0.5, atol=1e-5)
  readout = model.readout
  np.testing.assert_allclose(
    hidden @ readout.kernel * readout.scale, model.logits(hidden), atol=1e-5
  )
  assert _config(tied_logits=True, scale_logits=False).logits_scale == 1.0
  assert _config().logits_scale == 1.0


def _shapes_of_random_bits(jaxpr):
  for equation in jaxpr.eqns:
    if equation.primitive.name == "random_bits":
      yield equation.outvars[0].aval.shape
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from _shapes_of_random_bits(inner)


def test_dropout_sits_where_t5x_has_it_and_repeats_along_the_length():
  config = _config(dropout_rate=0.3, encoder_layers=1, decoder_layers=1)
  model = nnx.eval_shape(lambda: T5(config, nnx.Rngs(0)))
  traced = jax.make_jaxpr(lambda model, key: model.hidden(_batch(), key=key))(
    model, jax.random.key(0)
  )
  embedded, attended, mixed, wide = (2, 1, 14), (2, 3, 1), (2, 1, 14), (2, 1, 18)
  encoder = [embedded, (*attended, 5), mixed, wide, mixed, (2, 5, 14)]  # the last one: per position
  decoder = [embedded, (*attended, 4), mixed, (*attended, 5), mixed, wide, mixed, (2, 1, 14)]
  assert sorted(_shapes_of_random_bits(traced.jaxpr)) == sorted(encoder + decoder)


def test_one_hot_lookup_equals_gather():
  model = _model()
  other = reconfigured(model, embedding_lookup="one_hot")
  np.testing.assert_allclose(_logits(other, _batch()), _logits(model, _batch()), atol=1e-5)


def test_input_embeddings_replace_the_embedded_tokens():
  model, batch = _model(), _batch()
  embedded = model.token_embedder(batch["encoder_input_tokens"])
  expected = _logits(model, batch)
  swapped = dict(batch, encoder_input_tokens=np.where(batch["encoder_input_tokens"] > 0, 9, 0))
  hidden = jax.jit(lambda model, batch, x: model.hidden(batch, input_embeddings=x))
  actual = model.logits(hidden(model, swapped, embedded))
  np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("scanned", [False, True])
def test_rows_of_one_example_decode_like_examples_of_their_own(scanned):
  model = stack_layers(_model()) if scanned else _model()
  batch, beams, length = _batch(), 3, 5
  random = np.random.default_rng(6)
  tokens = random.integers(2, 31, (2 * beams, length)).astype(np.int32)
  parents = np.array([2, 0, 2, 3, 5, 4])  # always of the same example
  step = jax.jit(lambda model, tokens, cache: model.decode_step(tokens, cache))

  prefill = jax.jit(lambda model, batch: model.prefill(batch, max_length=length))
  _, cache = prefill(model, batch)
  cache = cache.repeat(beams)
  memory = jax.tree.leaves(cache.cross_attention)[0]
  assert memory.shape[-4] == 2, "the memory must not be repeated"
  for position in range(2):
    logits, cache = step(model, tokens[:, position], cache)
  cache = cache.reorder(parents)
  tokens[:, :2] = tokens[parents, :2]
  for position in range(2, length - 1):
    logits, cache = step(model, tokens[:, position], cache)

  start = np.zeros((2 * beams, 1), np.int32)
  alone = {
    "encoder_input_tokens": np.repeat(batch["encoder_input_tokens"], beams, 0),
    "decoder_input_tokens": np.concatenate([start, tokens[:, : length - 1]], 1),
  }
  np.testing.assert_allclose(logits, _logits(model, alone)[:, -1], atol=2e-5)


def test_wrong_configurations_are_reported_with_their_value():
  with pytest.raises(ConfigError, match="remat='some'"):
    _config(remat="some")
  with pytest.raises(ConfigError, match="encoder_layers=0"):
    _config(encoder_layers=0)
  with pytest.raises(ConfigError, match=r"relative_bias='own' is unknown.*shared, per_layer"):
    _config(relative_bias="own")
  with pytest.raises(ConfigError, match=r"embedding_lookup='hash' is unknown.*gather, one_hot"):
    _config(embedding_lookup="hash")
  with pytest.raises(ConfigError, match=r"dtype='bf16' is unknown.*float32, bfloat16"):
    _config(dtype="bf16")
  with pytest.raises(ConfigError, match=r"T5Config.width=0"):
    _config(width=0)


def test_a_configuration_from_lists_is_hashable():
  assert hash(_config(mlp_activations=["relu", "linear"])) == hash(
    _config(mlp_activations=("relu", "linear"))
  )
