"""The decoder-only model: PaLM against plain numpy, padding, caches, slots, scan, remat, precision.

GPT-2 and LLaMA are compared with transformers in tests/parity.  Tolerances: float32 sums of some
dozens of terms in another order differ by a few 1e-7 of the largest; logits are of size 1 to 10.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding.strategies import Beam, Greedy
from promot_jax.errors import ConfigError
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models import KVCache, stack_layers, unstack_layers
from promot_jax.models.attention import prepend
from promot_jax.models.decoder_lm import DecoderLM
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.decoder_stack import visible_positions

VOCABULARY = 19
SHAPE = {"vocab_size": VOCABULARY, "width": 24, "layers": 2, "mlp_width": 20, "eos": 1}
CONFIGS = {
  "gpt2": DecoderLMConfig(**SHAPE, heads=3, head_width=8, max_positions=30),
  "llama": DecoderLMConfig(
    **SHAPE,
    heads=6,
    kv_heads=2,
    head_width=10,
    mlp_activations=("silu", "linear"),
    positions="rotary",
    norm="rms",
    use_bias=False,
    tied_logits=False,
  ),
  "palm": DecoderLMConfig(
    **SHAPE,
    heads=4,
    kv_heads=1,
    head_width=6,
    mlp_activations=("silu", "linear"),
    positions="rotary",
    rope_theta=50.0,
    use_bias=False,
    parallel=True,
    scale_logits=True,
    embedding_std=1.0,
    init_std=None,
  ),
}
LENGTHS = ((5, 4), (1, 2), (3, 3))  # of x and y, in each row
SOURCE, TARGET = 6, 4


def _model(kind, *, seed=0, **changes):
  """Random weights, also where a fresh model has zeros and ones."""
  config = dataclasses.replace(CONFIGS[kind], **changes)
  model = nnx.eval_shape(lambda: DecoderLM(config, nnx.Rngs(0)))
  draw = np.random.default_rng(seed).normal
  return paths.replace_leaves(
    model,
    {
      name: jnp.asarray(0.25 * draw(size=leaf.shape) + name.endswith("scale"), jnp.float32)
      for name, leaf in paths.named_leaves(model).items()
    },
  )


def _rows(seed=0):
  draw = np.random.default_rng(seed)
  return [tuple(draw.integers(2, VOCABULARY, size=n) for n in lengths) for lengths in LENGTHS]


def _batch(rows, *, left=True):
  source = np.full((len(rows), SOURCE), -1, np.int32)
  target = np.full((len(rows), TARGET), -1, np.int32)
  for i, (x, y) in enumerate(rows):
    source[i, slice(SOURCE - len(x), None) if left else slice(len(x))] = x
    target[i, : len(y)] = y
  return {"encoder_input_tokens": source, "decoder_target_tokens": target}


@jax.jit
def _logits(model, batch):
  return model.logits(model.hidden(batch))


def _assert_equal_where_real(actual, expected, rows, atol):
  for i, (_, y) in enumerate(rows):
    np.testing.assert_allclose(actual[i, : len(y)], expected[i][: len(y)], rtol=0, atol=atol)


class Prefix(nnx.Module):
  """Learned keys and values [G P K] that take P positions before the first token."""

  def __init__(self, keys, values):
    self.keys, self.values = nnx.Param(keys), nnx.Param(values)
    self.positions = keys.shape[-2]

  def __call__(self, keys, values, bias, mask):
    prefix = KVCache(keys=self.keys[...], values=self.values[...])
    return prepend(keys, values, bias, mask, prefix=prefix, biased=True)


def _with_slots_filled(kind):
  """A model with a prompt of 3 vectors and prefixes of 2 positions."""
  model = SoftPrompt(length=3).attach(_model(kind), nnx.Rngs(1))
  config = model.config
  draw = np.random.default_rng(5).normal
  for layer in model.decoder.layers:
    shape = (2, config.key_heads, 2, config.head_width)
    keys, values = jnp.asarray(draw(size=shape), jnp.float32)
    layer.self_attention.prefix = Prefix(keys, values)
  return model


# PaLM, one row without any padding, in float64.


def _layer_norm(x, scale, epsilon):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale


def _rotate(x, theta):
  """[L ... K] at positions 0, 1, ...: features i and i + K/2 are a complex number."""
  half = x.shape[-1] // 2
  angles = np.arange(x.shape[0])[:, None] * theta ** (-np.arange(half) / half)
  angles = angles.reshape(x.shape[0], *(1,) * (x.ndim - 2), half)
  turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
  return np.concatenate([turned.real, turned.imag], -1)


def _palm(model, x, y):
  """Logits [len(y) V] that predict y."""
  config = model.config
  w = {name: np.asarray(leaf, np.float64) for name, leaf in paths.named_leaves(model).items()}
  table = w["token_embedder/embedding"]
  hidden = table[np.concatenate([x, y[:-1]])]
  length = len(hidden)
  for i in range(config.layers):
    layer = {k.removeprefix(f"decoder/layers/{i}/"): v for k, v in w.items()}
    scale = layer["pre_self_attention_layer_norm/scale"]
    n = _layer_norm(hidden, scale, config.norm_epsilon)
    q = (n @ layer["self_attention/query/kernel"]).reshape(length, config.heads, -1)
    k, v = (n @ layer[f"self_attention/{part}/kernel"] for part in ("key", "value"))
    q, k = _rotate(q, config.rope_theta), _rotate(k, config.rope_theta)
    mixed = np.zeros(q.shape)
    for j in range(length):
      last = len(x) if config.source_attention == "full" and j < len(x) else j + 1
      scores = q[j] @ k[:last].T / np.sqrt(config.head_width)  # [H L]
      weights = np.exp(scores - scores.max(-1, keepdims=True))
      mixed[j] = weights / weights.sum(-1, keepdims=True) @ v[:last]
    gate = n @ layer["mlp/wi_0/kernel"]
    gated = gate / (1 + np.exp(-gate)) * (n @ layer["mlp/wi_1/kernel"])
    attention = mixed.reshape(length, -1) @ layer["self_attention/out/kernel"]
    hidden = hidden + attention + gated @ layer["mlp/wo/kernel"]
  hidden = _layer_norm(hidden, w["decoder/decoder_norm/scale"], config.norm_epsilon)
  return (hidden @ table.T / np.sqrt(config.width))[len(x) - 1 :]


@pytest.mark.parametrize("source_attention", ["causal", "full"])
def test_palm_equals_plain_numpy(source_attention):
  model = _model("palm", source_attention=source_attention)
  rows = _rows()
  expected = [_palm(model, x, y) for x, y in rows]
  _assert_equal_where_real(_logits(model, _batch(rows)), expected, rows, 2e-5)


def test_a_palm_has_these_parameters_and_no_others():
  layer = (
    "mlp/wi_0/kernel",
    "mlp/wi_1/kernel",
    "mlp/wo/kernel",
    "pre_self_attention_layer_norm/scale",
    *(f"self_attention/{part}/kernel" for part in ("key", "out", "query", "value")),
  )
  names = set(paths.named_leaves(nnx.eval_shape(lambda: DecoderLM(CONFIGS["palm"], nnx.Rngs(0)))))
  layers = {f"decoder/layers/{i}/{name}" for i in range(2) for name in layer}
  assert names == {"token_embedder/embedding", "decoder/decoder_norm/scale"} | layers


def test_masks_of_a_causal_and_of_a_prefix_language_model():
  causal = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
  full = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
  np.testing.assert_array_equal(visible_positions(4), np.array(causal, bool))
  np.testing.assert_array_equal(visible_positions(4, 2), np.array(full, bool))


@pytest.mark.parametrize("kind", CONFIGS)
def test_left_and_right_padding_and_holes_give_equal_logits(kind):
  model = SoftPrompt(length=3).attach(_model(kind), nnx.Rngs(1))
  rows = _rows()
  batch = _batch(rows, left=True)
  left = _logits(model, batch)
  _assert_equal_where_real(_logits(model, _batch(rows, left=False)), left, rows, 2e-5)
  source = batch["encoder_input_tokens"]
  source[2] = -1
  source[2, [0, 2, 5]] = rows[2][0]
  _assert_equal_where_real(_logits(model, batch), left, rows, 2e-5)


def test_what_fills_the_padding_of_targets_changes_nothing():
  model, rows = _model("llama"), _rows()
  batch = _batch(rows)
  before = _logits(model, batch)
  targets = batch["decoder_target_tokens"]
  batch["decoder_target_tokens"] = np.where(targets < 0, 7, targets)
  _assert_equal_where_real(_logits(model, batch), before, rows, 0)


@jax.jit
def _decoded(model, batch):
  """Logits of the targets, fed one by one to two rows of each example that change places."""
  first, cache = model.prefill(batch, max_length=TARGET)
  rows = jnp.arange(2 * len(LENGTHS))
  cache, logits = cache.repeat(2), [jnp.repeat(first, 2, axis=0)]
  for column in range(TARGET - 1):
    tokens = jnp.repeat(batch["decoder_target_tokens"][:, column], 2)
    step, cache = model.decode_step(tokens, cache)
    cache = cache.reorder(rows ^ 1)
    logits.append(step)
  return jnp.stack(logits, axis=1)


@pytest.mark.parametrize("scanned", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_cached_decoding_is_teacher_forcing_with_prompt_and_prefix(kind, scanned):
  model, rows = _with_slots_filled(kind), _rows()
  expected = _logits(model, _batch(rows))
  plain = _logits(_model(kind), _batch(rows))
  assert not np.allclose(expected, plain, atol=1e-2)  # the slots are read
  model = stack_layers(model) if scanned else model
  decoded = np.asarray(_decoded(model, _batch(rows, left=False)))
  for copy in range(2):
    _assert_equal_where_real(decoded[copy::2], expected, rows, 3e-5)


def test_a_prefix_takes_the_first_positions():
  """A prefix with the keys and values of given tokens is those tokens before x."""
  model = _model("llama")
  front, (x, y) = np.array([3, 4]), _rows()[0]
  tokens = {"encoder_input_tokens": front[None].astype(np.int32)}
  _, cache = jax.jit(lambda model: model.prefill(tokens, max_length=1))(model)
  filled = paths.copy(model)
  for layer, memory in zip(filled.decoder.layers, cache.cross_attention):
    layer.self_attention.prefix = Prefix(memory.keys[0], memory.values[0])
  rows = [(x, y)]
  wide = {**_batch(rows), "encoder_input_tokens": np.concatenate([front, x])[None].astype(np.int32)}
  _assert_equal_where_real(_logits(filled, _batch(rows)), _logits(model, wide), rows, 2e-5)


def _loss(model, batch):
  logits = jax.nn.log_softmax(model.logits(model.hidden(batch)))
  targets = batch["decoder_target_tokens"]
  taken = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
  return -(taken * (targets >= 0)).sum()


@pytest.mark.parametrize("scanned, remat", [(True, "none"), (True, "full"), (False, "minimal")])
def test_scan_and_remat_change_neither_loss_nor_gradients(scanned, remat):
  plain = _model("gpt2")
  batch = _batch(_rows())
  expected, expected_gradients = jax.jit(jax.value_and_grad(_loss))(plain, batch)
  other = stack_layers(plain) if scanned else paths.copy(plain)
  other.config = dataclasses.replace(other.config, remat=remat)
  other.decoder.remat = remat
  loss, gradients = jax.jit(jax.value_and_grad(_loss))(other, batch)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  actual = paths.named_leaves(unstack_layers(gradients))
  for name, leaf in paths.named_leaves(expected_gradients).items():
    np.testing.assert_allclose(
      actual[name], leaf, rtol=0, atol=1e-5 * np.abs(leaf).max() + 1e-6, err_msg=name
    )


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _equations(inner)


@pytest.mark.parametrize("kind", CONFIGS)
def test_bfloat16_keeps_softmax_norms_rotations_logits_and_parameters_in_float32(kind):
  model, batch = _model(kind, dtype="bfloat16"), _batch(_rows())
  jaxpr = jax.make_jaxpr(jax.grad(_loss))(model, batch).jaxpr
  kinds: dict[str, set] = {}
  for equation in _equations(jaxpr):
    kinds.setdefault(equation.primitive.name, set()).add(equation.invars[0].aval.dtype)
  float32, bfloat16 = {jnp.dtype("float32")}, jnp.dtype("bfloat16")
  for name in ("exp", "log", "rsqrt", "reduce_max", *(() if kind == "gpt2" else ("cos", "sin"))):
    assert kinds[name] == float32, name
  assert bfloat16 in kinds["dot_general"]
  hidden = jax.eval_shape(lambda model: model.hidden(batch), model)
  assert hidden.dtype == bfloat16
  assert jax.eval_shape(model.logits, hidden).dtype == jnp.float32
  first, cache = jax.eval_shape(lambda model: model.prefill(batch, max_length=3), model)
  assert first.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(cache.self_attention)} == {bfloat16}
  assert {leaf.dtype for leaf in paths.named_leaves(model).values()} == float32


def test_bfloat16_is_near_float32():
  rows = _rows()
  exact = _logits(_model("palm"), _batch(rows))
  rounded = _logits(_model("palm", dtype="bfloat16"), _batch(rows))
  scale = float(np.abs(exact).max())
  _assert_equal_where_real(rounded, exact, rows, 0.05 * scale)  # 8 bits over two layers


def test_dropout_is_drawn_by_the_key_and_absent_without_one():
  model, batch = _model("gpt2", dropout_rate=0.3), _batch(_rows())
  run = jax.jit(lambda key: model.hidden(batch, key=key))
  first, second = run(jax.random.key(0)), run(jax.random.key(1))
  assert not np.allclose(first, second)
  np.testing.assert_array_equal(first, run(jax.random.key(0)))
  without = jax.jit(lambda model: model.hidden(batch))
  np.testing.assert_array_equal(without(model), without(_model("gpt2")))


def test_input_embeddings_take_the_place_of_x():
  model, rows = _model("gpt2"), _rows()
  batch = _batch(rows)
  embedded = model.token_embedder(np.maximum(batch["encoder_input_tokens"], 0))
  actual = jax.jit(lambda m, e: m.logits(m.hidden(batch, input_embeddings=e)))(model, embedded)
  _assert_equal_where_real(actual, _logits(model, batch), rows, 1e-5)


def test_greedy_decoding_follows_the_logits_and_compiles_once_per_shape():
  model, rows = _model("llama"), _rows()
  before = generate_lib.compiled._cache_size()
  for left in (True, False):
    for width in (SOURCE, SOURCE + 2):
      batch = _batch(rows, left=left)
      batch["encoder_input_tokens"] = np.pad(
        batch["encoder_input_tokens"], ((0, 0), (width - SOURCE, 0)), constant_values=-1
      )
      result = generate_lib.generate(
        model, batch, strategy=Greedy(), max_length=TARGET, eos=-2, pad=-1
      )
      written = np.asarray(result.tokens)[:, 0]
      forced = _logits(model, {**batch, "decoder_target_tokens": written})
      np.testing.assert_array_equal(np.argmax(forced, -1), written)
  assert generate_lib.compiled._cache_size() - before == 2


def test_beams_share_the_prompt_and_have_the_scores_of_their_tokens():
  model, rows = _with_slots_filled("palm"), _rows()
  batch = _batch(rows)
  result = generate_lib.generate(
    model, batch, strategy=Beam(width=3, alpha=0.0), max_length=TARGET, eos=-2, pad=-1
  )
  for beam in range(3):
    tokens = np.asarray(result.tokens)[:, beam]
    log_p = jax.nn.log_softmax(_logits(model, {**batch, "decoder_target_tokens": tokens}))
    total = np.take_along_axis(np.asarray(log_p), tokens[..., None], axis=-1).sum((1, 2))
    np.testing.assert_allclose(result.scores[:, beam], total, rtol=1e-4)
  # The prompt's keys have one row for each example, however many beams there are.
  _, cache = jax.eval_shape(lambda model: model.prefill(batch, max_length=TARGET), model)
  cache = jax.eval_shape(lambda cache: cache.repeat(3), cache)
  assert cache.cross_attention[0].keys.shape == (len(rows), 1, 3 + SOURCE, 6)
  assert cache.self_attention[0].keys.shape == (3 * len(rows), 1, TARGET, 6)


def test_more_positions_than_were_learned_are_refused():
  model = nnx.eval_shape(lambda: DecoderLM(CONFIGS["gpt2"], nnx.Rngs(0)))
  batch = {
    "encoder_input_tokens": np.ones((1, 28), np.int32),
    "decoder_target_tokens": np.ones((1, 4), np.int32),
  }
  with pytest.raises(ConfigError, match="have 31 positions together, and the model has learned 30"):
    jax.eval_shape(lambda model: model.hidden(batch), model)
  with pytest.raises(ConfigError, match="have 31 positions"):
    jax.eval_shape(lambda model: model.prefill(batch, max_length=4), model)


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"heads": 4, "kv_heads": 3}, "multiple of kv_heads=3"),
    ({"positions": "alibi"}, "learned, rotary"),
    ({"dtype": "float16"}, "float32, bfloat16"),
    ({"positions": "rotary", "head_width": 5}, "even"),
    ({"mlp_activations": ["swish"]}, "silu"),
    ({"layers": 0}, "layers=0"),
  ],
)
def test_values_that_cannot_work_are_refused(changes, words):
  with pytest.raises(ConfigError, match=words):
    dataclasses.replace(CONFIGS["gpt2"], **changes)
