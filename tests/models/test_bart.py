"""The BART backbone as a whole: forms of its stack, precision, dropout, slots, decoding, sizes.

That its arithmetic is BART's is proved in tests/parity/test_bart_transformers.py.
"""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.errors import ConfigError
from promot_jax.models import bart_sizes, stack_layers, unstack_layers
from promot_jax.models.attention import prepend
from promot_jax.models.bart import Bart
from promot_jax.models.bart_config import BartConfig
from promot_jax.models.kv_cache import KVCache
from tiny_models import logits_and_gradients, reconfigured

PAD, EOS = 1, 2


def _config(**changes):
  shape = {
    "vocab_size": 31,
    "width": 12,
    "heads": 3,
    "mlp_width": 18,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "max_positions": 14,
    "init_std": 0.4,
  }
  return BartConfig(**{**shape, **changes})


@functools.lru_cache
def _model(**changes):
  """Biases and norms drawn too, as 0 and 1 would hide mistakes."""
  model = jax.jit(lambda key: Bart(_config(**changes), nnx.Rngs(key)))(jax.random.key(0))
  draw = np.random.default_rng(1).normal
  leaves = {
    name: leaf + 0.3 * draw(size=leaf.shape).astype(np.float32) if leaf.ndim == 1 else leaf
    for name, leaf in paths.named_leaves(model).items()
  }
  return paths.replace_leaves(model, leaves)


def _batch():
  random = np.random.default_rng(0)
  source = random.integers(3, 31, (2, 5)).astype(np.int32)
  source[-1, 3:] = PAD
  targets = random.integers(3, 31, (2, 4)).astype(np.int32)
  shifted = np.concatenate([np.full((2, 1), EOS, np.int32), targets[:, :-1]], 1)
  return {"encoder_input_tokens": source, "decoder_input_tokens": shifted}


@jax.jit
def _logits(model, batch, key=None):
  return model.logits(model.hidden(batch, key=key))


def _assert_close(actual, expected, tolerance=2e-5):
  actual, expected = paths.named_leaves(actual), paths.named_leaves(expected)
  assert actual.keys() == expected.keys()
  overall = max(np.abs(leaf).max() for leaf in expected.values())
  for name, leaf in expected.items():
    # Softmax does not see a bias of the keys: its gradient is rounding of larger ones.
    largest = overall if name.endswith("key/bias") else np.abs(leaf).max()
    np.testing.assert_allclose(actual[name], leaf, atol=tolerance * largest, rtol=0, err_msg=name)


# Random bits take most of the compile time, so only one form is tried with dropout, and is smaller.
@pytest.mark.parametrize(
  ("scanned", "remat", "dropout_rate"),
  [(True, "full", 0.3), (True, "none", 0.0), (False, "minimal", 0.0)],
)
def test_forms_of_the_stack_have_equal_outputs_and_gradients(scanned, remat, dropout_rate):
  names = ("dropout_rate", "attention_dropout_rate", "activation_dropout_rate")
  layers = {"encoder_layers": 1, "decoder_layers": 2} if dropout_rate else {}
  model = _model(**dict.fromkeys(names, dropout_rate), **layers)
  key = jax.random.key(4) if dropout_rate else None
  other = reconfigured(stack_layers(model) if scanned else model, remat=remat)
  expected, expected_gradients = logits_and_gradients(model, _batch(), key)
  logits, gradients = logits_and_gradients(other, _batch(), key)
  _assert_close(logits, expected)
  _assert_close(unstack_layers(gradients), expected_gradients, 1e-4)


def test_the_bias_of_the_logits_is_added_has_no_gradient_and_is_never_trained():
  model, batch = _model(), _batch()
  bias = np.asarray(model.final_logits_bias[...])
  without = paths.copy(model)
  without.final_logits_bias = type(model.final_logits_bias)(jnp.zeros_like(bias))
  np.testing.assert_allclose(_logits(model, batch) - bias, _logits(without, batch), atol=2e-5)
  _, gradients = logits_and_gradients(model, batch)
  assert not np.asarray(gradients.final_logits_bias[...]).any()
  _, trained, frozen = paths.split(model, ".*")
  assert list(paths.named_leaves(frozen)) == ["final_logits_bias"]
  assert len(paths.named_leaves(trained)) == len(paths.named_leaves(model)) - 1
  with pytest.raises(paths.PathError, match="final_logits_bias"):
    paths.split(model, "final_logits_bias")


def test_bfloat16_compute_normalizes_and_softmaxes_in_float32():
  model = nnx.eval_shape(lambda: Bart(_config(dtype="bfloat16"), nnx.Rngs(0)))
  traced = jax.make_jaxpr(lambda model: _logits(model, _batch()))(model)
  kinds = {"exp", "rsqrt"}  # of softmax and of norms
  found = [
    (equation.primitive.name, equation.outvars[0].aval.dtype)
    for equation in _equations(traced.jaxpr)
    if equation.primitive.name in kinds
  ]
  assert {name for name, _ in found} == kinds
  assert all(dtype == jnp.float32 for _, dtype in found), found


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from _equations(inner)


class _Prompt(nnx.Module):
  """P vectors in front of the input of every example."""

  def __init__(self, vectors):
    self.prompt = nnx.Param(vectors)

  def __call__(self, embeddings, mask):
    shape = (embeddings.shape[0], *self.prompt.shape)
    rows = jnp.broadcast_to(self.prompt[...], shape).astype(embeddings.dtype)
    return jnp.concatenate([rows, embeddings], 1), jnp.pad(
      mask, [(0, 0), (self.prompt.shape[0], 0)], constant_values=True
    )


class _Prefix(nnx.Module):
  """P learned keys and values; `positions` of them are counted before position 0."""

  def __init__(self, keys, values, positions=0):
    self.keys, self.values = nnx.Param(keys), nnx.Param(values)
    self.positions = positions

  def __call__(self, keys, values, bias, mask):
    prefix = KVCache(keys=self.keys[...], values=self.values[...])
    return prepend(keys, values, bias, mask, prefix=prefix, biased=self.positions > 0)


def _tuned(model, *, positions=0):
  """The model with a prompt, and with a prefix of its own in every attention."""
  tuned = paths.copy(model)
  draw = np.random.default_rng(5).normal
  tuned.encoder.prompt = _Prompt(jnp.asarray(draw(size=(2, 12)), jnp.float32))

  def prefix():
    keys, values = (jnp.asarray(draw(size=(3, 2, 4)), jnp.float32) for _ in range(2))
    return _Prefix(keys, values, positions)

  for layer in tuned.encoder.layers:
    layer.attention.prefix = prefix()
  for layer in tuned.decoder.layers:
    layer.self_attention.prefix = prefix()
    layer.encoder_decoder_attention.prefix = prefix()
  return tuned


def test_every_slot_reaches_the_logits():
  tuned = _tuned(_model())
  graphdef, trained, frozen = paths.split(tuned, ".*(prompt|prefix/keys|prefix/values)")

  def loss(trained):
    return jnp.square(_logits(nnx.merge(graphdef, trained, frozen), _batch())).mean()

  gradients = paths.named_leaves(jax.grad(loss)(trained))
  assert len(gradients) == 1 + 2 * (2 + 3 + 3)
  for name, gradient in gradients.items():
    assert np.abs(gradient).max() > 1e-7, name


@pytest.mark.parametrize(("scanned", "positions"), [(False, 0), (True, 0), (False, 2)])
def test_cached_decoding_equals_teacher_forcing_with_prompt_and_prefixes(scanned, positions):
  model = _tuned(_model(), positions=positions)
  model = stack_layers(model) if scanned else model
  batch, length = _batch(), 4
  expected = _logits(model, batch)
  step = jax.jit(lambda model, tokens, cache: model.decode_step(tokens, cache))
  prefill = jax.jit(lambda model, batch: model.prefill(batch, max_length=length))
  logits, cache = prefill(model, batch)
  np.testing.assert_allclose(logits, expected[:, 0], atol=2e-5)
  for position in range(1, length):
    logits, cache = step(model, batch["decoder_input_tokens"][:, position], cache)
    np.testing.assert_allclose(logits, expected[:, position], atol=2e-5)


def test_counted_prefix_positions_move_the_learned_positions():
  counted, plain = _tuned(_model(), positions=2), _tuned(_model())
  moved = paths.copy(plain)
  for side in (moved.encoder, moved.decoder):
    table = side.position_embedder.embedding[...]
    side.position_embedder.embedding = nnx.Param(jnp.roll(table, -2, axis=0))
  np.testing.assert_allclose(_logits(counted, _batch()), _logits(moved, _batch()), atol=2e-5)


def test_rows_of_one_example_share_its_memory():
  model, batch, beams = _model(), _batch(), 3
  prefill = jax.jit(lambda model, batch: model.prefill(batch, max_length=3))
  step = jax.jit(lambda model, tokens, cache: model.decode_step(tokens, cache))
  _, cache = prefill(model, batch)
  cache = cache.repeat(beams)
  memory = jax.tree.leaves(cache.cross_attention)[0]
  assert memory.shape[-4] == 2, "the memory must not be repeated"
  tokens = np.arange(5, 5 + 2 * beams).astype(np.int32)
  logits, _ = step(model, tokens, cache)
  alone = {
    "encoder_input_tokens": np.repeat(batch["encoder_input_tokens"], beams, 0),
    "decoder_input_tokens": np.stack([np.full(2 * beams, EOS), tokens], 1).astype(np.int32),
  }
  np.testing.assert_allclose(logits, _logits(model, alone)[:, -1], atol=2e-5)


def test_longer_sequences_than_learned_positions_are_refused():
  model = _model()
  tokens = np.full((1, 13), 7, np.int32)
  long = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens}
  prompted = paths.copy(model)
  prompted.encoder.prompt = _Prompt(jnp.zeros((2, 12)))
  assert _logits(model, long).shape == (1, 13, 31)
  with pytest.raises(ConfigError, match=r"encoder input has 15 positions.* learned 14"):
    prompted.hidden(long)
  with pytest.raises(ConfigError, match="target has 15 positions"):
    model.prefill(long, max_length=15)


def test_wrong_configurations_are_reported_with_their_value():
  with pytest.raises(ConfigError, match=r"width=12 must be a multiple of BartConfig\.heads=5"):
    _config(heads=5)
  with pytest.raises(ConfigError, match="remat='some'"):
    _config(remat="some")
  with pytest.raises(ConfigError, match=r"attention_dropout_rate=1\.0"):
    _config(attention_dropout_rate=1.0)
  with pytest.raises(ConfigError, match="activation='tanh'"):
    _config(activation="tanh")


# Parameters of the released checkpoints, the shared table counted once.
@pytest.mark.parametrize(
  ("size", "published"), [("bart_base", 139_420_416), ("bart_large", 406_291_456)]
)
def test_size_has_the_parameters_of_the_published_checkpoint(size, published):
  config = bart_sizes.SIZES[size](scan_layers=True)
  model = nnx.eval_shape(lambda: Bart(config, nnx.Rngs(0)))
  leaves = paths.named_leaves(model)
  assert sum(leaves[name].size for name in paths.parameter_names(model)) == published
