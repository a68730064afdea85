"""What this project asks of flax NNX; if one of these fails after an upgrade, the design is at stake.

Modules are pytrees that hold parameters only, and everything else is plain JAX: a method swaps a
linear layer or fills a slot, freezing is a split by path, and randomness and caches are arguments.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from promot_jax import paths
from promot_jax.models import KVCache, stack, stack_layers
from promot_jax.models.attention import prepend
from tiny_models import tiny

TARGETS = 4


class LowRankLinear(nnx.Module):
  """A linear layer plus a low-rank update; adopts the weights of the layer that it replaces."""

  def __init__(self, linear, *, rank, key):
    features_in, features_out = linear.kernel.shape
    self.kernel, self.bias = linear.kernel, linear.bias
    self.lora_down = nnx.Param(jax.random.normal(key, (features_in, rank)) / features_in**0.5)
    self.lora_up = nnx.Param(jnp.zeros((rank, features_out)))

  def __call__(self, x, *, key=None):
    return x @ self.kernel[...] + x @ self.lora_down[...] @ self.lora_up[...]


class LearnedKeys(nnx.Module):
  """Learned keys and values in front of the others, with or without positions of their own."""

  def __init__(self, keys, values, *, positions):
    self.keys, self.values = nnx.Param(keys), nnx.Param(values)
    self.positions = positions

  def __call__(self, keys, values, bias, mask):
    prefix = KVCache(keys=self.keys[...], values=self.values[...])
    return prepend(keys, values, bias, mask, prefix=prefix, biased=self.positions > 0)


class LearnedVectors(nnx.Module):
  """Learned vectors in front of the embedded source."""

  def __init__(self, vectors):
    self.prompt = nnx.Param(vectors)

  def __call__(self, embeddings, mask):
    rows = jnp.broadcast_to(self.prompt[...], (len(mask), *self.prompt.shape))
    seen = jnp.ones(rows.shape[:2], bool)
    return jnp.concatenate([rows, embeddings], 1), jnp.concatenate([seen, mask], 1)


@pytest.fixture(scope="module")
def model():
  return tiny("t5", encoder_layers=2, decoder_layers=3)


@pytest.fixture(scope="module")
def batch():
  random = np.random.default_rng(1)
  source = random.integers(2, 40, (8, 5)).astype(np.int32)
  source[1, 3:] = 0
  source[2, 1:] = 0
  targets = random.integers(2, 40, (8, TARGETS)).astype(np.int32)
  shifted = np.concatenate([np.zeros((8, 1), np.int32), targets[:, :-1]], 1)
  return {
    "encoder_input_tokens": source,
    "decoder_input_tokens": shifted,
    "decoder_target_tokens": targets,
  }


@jax.jit
def _logits(model, batch):
  return model.logits(model.hidden(batch))


def _loss(model, batch):
  losses = optax.softmax_cross_entropy_with_integer_labels(
    model.logits(model.hidden(batch)), batch["decoder_target_tokens"]
  )
  return losses.mean()


def _map_layers(layers, edit, key):
  """New layers, each `edit(layer, key)` with its own key."""
  keys = jax.random.split(key, stack.count(layers))
  if stack.is_scanned(layers):
    return jax.vmap(edit)(layers, keys)
  return nnx.List([edit(*layer_and_key) for layer_and_key in zip(layers, keys)])


def _with_lora(model, key):
  """Swaps all query and value projections, in a copy."""
  model = paths.copy(model)

  def edit_attention(attention, key):
    for site, name in enumerate(("query", "value")):
      linear = getattr(attention, name)
      setattr(attention, name, LowRankLinear(linear, rank=3, key=jax.random.fold_in(key, site)))

  def edit_encoder_layer(layer, key):
    edit_attention(layer.attention, key)
    return layer

  def edit_decoder_layer(layer, key):
    edit_attention(layer.self_attention, key)
    edit_attention(layer.encoder_decoder_attention, jax.random.fold_in(key, 9))
    return layer

  encoder_key, decoder_key = jax.random.split(key)
  encoder, decoder = model.encoder, model.decoder
  encoder.layers = _map_layers(encoder.layers, edit_encoder_layer, encoder_key)
  decoder.layers = _map_layers(decoder.layers, edit_decoder_layer, decoder_key)
  return model


def test_s1_swapping_a_linear_layer_keeps_backbone_paths_and_outputs(model, batch):
  edited = _with_lora(model, jax.random.key(3))
  before, after = paths.named_leaves(model), paths.named_leaves(edited)
  assert set(before) < set(after)
  assert all(after[name] is before[name] for name in before), "the arrays must be shared"
  added = set(after) - set(before)
  assert all(name.split("/")[-1] in ("lora_down", "lora_up") for name in added)
  assert len(added) == 2 * 2 * (2 + 2 * 3)
  np.testing.assert_array_equal(_logits(edited, batch), _logits(model, batch))


def test_s2_only_the_trainable_tree_is_differentiated_and_updated(model, batch):
  edited = _with_lora(model, jax.random.key(3))
  graphdef, trainable, frozen = paths.split(edited, ".*/lora_(down|up)")

  def loss(trainable, frozen):
    return _loss(nnx.merge(graphdef, trainable, frozen), batch)

  before, gradients = jax.jit(jax.value_and_grad(loss))(trainable, frozen)
  names = paths.named_leaves(gradients)
  assert names.keys() == paths.named_leaves(trainable).keys()
  assert all("lora" in name for name in names)
  optimizer = optax.adam(1e-2)
  opt_state = optimizer.init(trainable)
  updates, opt_state = optimizer.update(gradients, opt_state, trainable)
  moments = sum(leaf.size for leaf in jax.tree.leaves(opt_state)) - 1  # less the step count
  assert moments == 2 * paths.count(trainable)
  moved = optax.apply_updates(trainable, updates)
  assert jax.tree.structure(moved) == jax.tree.structure(trainable)
  assert jax.jit(loss)(moved, frozen) < before


def test_s3_the_same_step_on_a_mesh_of_eight_devices(model, batch):
  if jax.device_count() < 8:
    pytest.skip("needs 8 simulated devices: --xla_force_host_platform_device_count=8")
  edited = _with_lora(model, jax.random.key(3))
  graphdef, trainable, frozen = paths.split(edited, ".*/lora_(down|up)")
  optimizer = optax.adam(1e-2)

  def step(trainable, opt_state, frozen, batch):
    def loss(trainable):
      return _loss(nnx.merge(graphdef, trainable, frozen), batch)

    value, gradients = jax.value_and_grad(loss)(trainable)
    updates, opt_state = optimizer.update(gradients, opt_state, trainable)
    return optax.apply_updates(trainable, updates), opt_state, value

  alone = jax.jit(step)(trainable, optimizer.init(trainable), frozen, batch)

  mesh = Mesh(np.asarray(jax.devices()[:8]).reshape(4, 2), ("data", "model"))

  def sharding(tree):
    def of(name):
      wide = "mlp/wi" in name and name.endswith("kernel")
      return NamedSharding(mesh, PartitionSpec(None, "model") if wide else PartitionSpec())

    return paths.replace_leaves(tree, {name: of(name) for name in paths.named_leaves(tree)})

  place = jax.device_put
  rows = NamedSharding(mesh, PartitionSpec("data"))
  trainable_sharding = sharding(trainable)
  opt_state = optimizer.init(trainable)
  replicated = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), opt_state)
  sharded = jax.jit(
    step,
    out_shardings=(trainable_sharding, replicated, NamedSharding(mesh, PartitionSpec())),
  )(
    place(trainable, trainable_sharding),
    place(opt_state, replicated),
    place(frozen, sharding(frozen)),
    {name: place(array, rows) for name, array in batch.items()},
  )
  np.testing.assert_allclose(sharded[2], alone[2], rtol=1e-5)
  for one, many in zip(jax.tree.leaves(alone[0]), jax.tree.leaves(sharded[0])):
    assert len(many.sharding.device_set) == 8
    # Adam turns rounding of gradients near 0 into small steps, hence the absolute tolerance.
    np.testing.assert_allclose(many, one, atol=2e-4)


def test_a_stacked_model_shares_no_variable_with_the_one_it_was_made_from(model):
  for source in (model, stack_layers(model)):
    before = {name: np.asarray(leaf) for name, leaf in paths.named_leaves(source).items()}
    for _, variable in nnx.iter_graph(stack_layers(source)):
      if isinstance(variable, nnx.Param):
        variable.set_value(variable.get_value() + 1)
    for name, leaf in paths.named_leaves(source).items():
      np.testing.assert_array_equal(leaf, before[name], err_msg=name)


def test_s4_unrolled_equals_scanned_before_and_after_an_edit_of_each_layer(model, batch):
  key = jax.random.key(3)
  scanned = stack_layers(model)
  np.testing.assert_allclose(_logits(scanned, batch), _logits(model, batch), atol=1e-5)

  def with_nonzero_updates(model):
    leaves = paths.named_leaves(_with_lora(model, key))
    filled = {
      name: jnp.full_like(leaf, 0.1) if name.endswith("lora_up") else leaf
      for name, leaf in leaves.items()
    }
    return paths.replace_leaves(_with_lora(model, key), filled)

  unrolled, scanned = with_nonzero_updates(model), with_nonzero_updates(scanned)
  again = paths.named_leaves(stack_layers(unrolled))
  for name, leaf in paths.named_leaves(scanned).items():
    np.testing.assert_array_equal(leaf, again[name], err_msg=name)
  expected = _logits(unrolled, batch)
  assert np.abs(expected - _logits(model, batch)).max() > 1e-2, "the edit must matter"
  np.testing.assert_allclose(_logits(scanned, batch), expected, atol=1e-5)


def _with_slots(model, positions):
  """A copy with a prompt and a prefix in every attention."""
  model = paths.copy(model)
  random = np.random.default_rng(5)

  def draw(*shape):
    return jnp.asarray(random.normal(size=shape), jnp.float32)

  def attentions():
    for layer in model.encoder.layers:
      yield layer.attention
    for layer in model.decoder.layers:
      yield layer.self_attention
      yield layer.encoder_decoder_attention

  model.encoder.prompt = LearnedVectors(draw(3, model.config.width))
  keys = (model.config.heads, 2, model.config.head_width)
  cross = [layer.encoder_decoder_attention for layer in model.decoder.layers]
  for attention in attentions():
    # Cross-attention has no positions that a prefix could take part in.
    counted = 0 if any(attention is other for other in cross) else positions
    attention.prefix = LearnedKeys(draw(*keys), draw(*keys), positions=counted)
  return model


@pytest.mark.parametrize("positions", [0, 2])
@pytest.mark.parametrize("scanned", [False, True])
def test_s5_cached_decoding_equals_teacher_forcing_with_slots_in_use(
  model, batch, positions, scanned
):
  filled = _with_slots(model, positions)
  filled = stack_layers(filled) if scanned else filled
  expected = _logits(filled, batch)
  assert np.abs(expected - _logits(model, batch)).max() > 1e-2, "the slots must matter"
  step = jax.jit(lambda model, tokens, cache: model.decode_step(tokens, cache))
  logits, cache = filled.prefill(batch, max_length=TARGETS)
  for position in range(TARGETS):
    np.testing.assert_allclose(logits, expected[:, position], atol=2e-5)
    logits, cache = step(filled, batch["decoder_target_tokens"][:, position], cache)


@pytest.mark.skipif("NNX_GRAPH_MODE" in os.environ, reason="is itself the run in the other mode")
def test_s6_all_of_the_above_hold_in_tree_mode():
  # Passing there would mean nothing if flax did not read the variable.
  flag = "import flax; raise SystemExit(flax.config.nnx_graph_mode)"
  environment = {**os.environ, "NNX_GRAPH_MODE": "false"}
  assert subprocess.run([sys.executable, "-c", flag], env=environment, check=False).returncode == 0
  result = subprocess.run(
    [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", __file__],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
