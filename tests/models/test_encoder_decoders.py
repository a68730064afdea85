"""What T5 and BART have in common: precision, dropout, padding, and prompts that are words."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from tiny_models import batch_of, logits, moved, reconfigured, tiny

NORMS_AND_BIASES = types.SimpleNamespace(parameters=".*/(bias|scale)")
each_kind = pytest.mark.parametrize("kind", ["t5", "bart"])


def drawn(kind):
  """A tiny model whose biases and norms are drawn too, as 0 and 1 would hide mistakes."""
  return moved(tiny(kind), NORMS_AND_BIASES)


@each_kind
def test_padding_does_not_change_real_positions(kind):
  model = drawn(kind)
  batch = batch_of(model)
  source, target = batch["encoder_input_tokens"], batch["decoder_input_tokens"]
  pad = {"constant_values": model.config.pad}
  wide = {
    "encoder_input_tokens": np.pad(source, [(0, 0), (0, 3)], **pad),
    "decoder_input_tokens": np.pad(target, [(0, 0), (0, 2)], **pad),
  }
  np.testing.assert_allclose(logits(model, wide)[:, :4], logits(model, batch), atol=2e-5)


@each_kind
def test_bfloat16_compute_is_near_float32_and_ends_in_float32(kind):
  model = drawn(kind)
  low = reconfigured(model, dtype="bfloat16")
  hidden = jax.jit(lambda model, batch: model.hidden(batch))(low, batch_of(low))
  assert hidden.dtype == jnp.bfloat16
  found, expected = logits(low), logits(model)
  assert found.dtype == jnp.float32
  assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
  assert len(np.unique(found.view(np.uint32) & 0xFFFF)) > 100, "not rounded"


@each_kind
def test_dropout_depends_on_the_key_and_only_on_it(kind):
  rates = {"dropout_rate": 0.3} | ({"attention_dropout_rate": 0.3} if kind == "bart" else {})
  plain = tiny(kind, decoder_layers=1)
  model = reconfigured(plain, **rates)
  batch = batch_of(model)
  hidden = jax.jit(lambda model, key: model.hidden(batch, key=key))
  first, again, other = (hidden(model, jax.random.key(seed)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-2
  np.testing.assert_array_equal(logits(model, batch), logits(plain, batch))


class Words(nnx.Module):
  """A prompt of the vectors of words [B P D], so that prompting equals longer inputs."""

  def __init__(self, vectors):
    self.prompt = nnx.Param(vectors)

  def __call__(self, embeddings, mask):
    rows = self.prompt[...]
    seen = jnp.ones(rows.shape[:2], bool)
    return jnp.concatenate([rows, embeddings], 1), jnp.concatenate([seen, mask], 1)


@each_kind
def test_a_prompt_of_token_vectors_equals_those_tokens_in_the_input(kind):
  plain = drawn(kind)
  batch = batch_of(plain)
  words = np.array([[5, 6, 7], [8, 9, 10]], np.int32)
  prompted = paths.copy(plain)
  prompted.encoder.prompt = Words(plain.token_embedder(words))
  longer = np.concatenate([words, batch["encoder_input_tokens"]], 1)
  expected = logits(plain, dict(batch, encoder_input_tokens=longer))
  np.testing.assert_allclose(logits(prompted, batch), expected, atol=2e-5)
