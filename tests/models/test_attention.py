"""Attention against plain numpy, with bias, mask, prefix and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.models import KVCache
from promot_jax.models.attention import Attention, dot_product_attention, prepend


def _draw(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _attention(queries, keys, values, bias, mask):
  """One query at a time, float64, unscaled; keys that are masked are left out."""
  b, q, h, _ = queries.shape
  length = keys.shape[2]
  bias = np.broadcast_to(bias, (b, h, q, length)).astype(np.float64)
  mask = np.broadcast_to(mask, (b, 1, q, length))
  out = np.zeros((*queries.shape[:3], values.shape[-1]))
  for i, j, k in np.ndindex(b, q, h):
    seen = mask[i, 0, j]
    scores = keys[i, k, seen].astype(np.float64) @ queries[i, j, k] + bias[i, k, j, seen]
    weights = np.exp(scores - scores.max())
    out[i, j, k] = (weights / weights.sum()) @ values[i, k, seen]
  return out


def test_attention_equals_a_loop_over_queries():
  queries, keys, values = _draw(0, 2, 3, 4, 6), _draw(1, 2, 4, 5, 6), _draw(2, 2, 4, 5, 6)
  bias = _draw(3, 1, 4, 3, 5)
  mask = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0]], bool)[:, None, None, :]
  expected = _attention(queries, keys, values, bias, mask)
  actual = dot_product_attention(queries, keys, values, bias=bias, mask=mask)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_row_without_any_key_gives_finite_numbers_and_gradients():
  queries, keys, values = _draw(0, 1, 3, 2, 4), _draw(1, 1, 2, 5, 4), _draw(2, 1, 2, 5, 4)
  mask = np.zeros((1, 1, 1, 5), bool)

  def total(queries, keys, values):
    return dot_product_attention(queries, keys, values, mask=mask).sum()

  run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
  value, gradients = run(queries, keys, values)
  assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


def test_softmax_of_bfloat16_is_computed_in_float32():
  # 300 equal keys: bfloat16 cannot even count them one by one.
  ones = jnp.ones((1, 1, 300, 2), jnp.bfloat16)
  out = dot_product_attention(ones[:, :, :1], ones, ones)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(out, np.float32), 1.0, rtol=1e-2)


def test_a_prefix_is_seen_by_all_queries_with_bias_zero():
  queries, keys, values = _draw(0, 2, 3, 4, 6), _draw(1, 2, 4, 5, 6), _draw(2, 2, 4, 5, 6)
  prefix = KVCache(keys=_draw(4, 4, 2, 6), values=_draw(5, 4, 2, 6))
  bias = _draw(3, 1, 4, 3, 5)
  mask = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0]], bool)[:, None, None, :]
  joined = prepend(keys, values, bias, mask, prefix=prefix)
  actual = dot_product_attention(queries, *joined[:2], bias=joined[2], mask=joined[3])
  expected = _attention(
    queries,
    np.concatenate([np.broadcast_to(prefix.keys, (2, 4, 2, 6)), keys], 2),
    np.concatenate([np.broadcast_to(prefix.values, (2, 4, 2, 6)), values], 2),
    np.concatenate([np.zeros((1, 4, 3, 2)), bias], -1),
    np.concatenate([np.ones((2, 1, 1, 2), bool), mask], -1),
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_dropped_attention_entries_are_the_same_for_all_queries():
  queries, keys = np.zeros((2, 3, 4, 6), np.float32), np.zeros((2, 4, 7, 6), np.float32)
  values = np.broadcast_to(np.eye(7, dtype=np.float32), (2, 4, 7, 7))
  weights = np.asarray(
    dot_product_attention(queries, keys, values, dropout_rate=0.5, key=jax.random.key(0))
  )
  np.testing.assert_array_equal(weights, np.broadcast_to(weights[:, :1], weights.shape))
  assert 0 < (weights == 0).mean() < 1
  np.testing.assert_allclose(weights[weights > 0], 2 / 7, rtol=1e-6)


def test_query_heads_share_key_heads_in_order():
  queries, keys, values = _draw(0, 2, 3, 6, 4), _draw(1, 2, 2, 5, 4), _draw(2, 2, 2, 5, 4)
  mask = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0]], bool)[:, None, None, :]
  repeated = [np.repeat(x, 3, axis=1) for x in (keys, values)]  # heads 0-2 read key head 0
  expected = _attention(queries, *repeated, np.zeros((1, 6, 3, 5)), mask)
  actual = dot_product_attention(queries, keys, values, mask=mask)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_heads_that_cannot_share_keys_are_refused():
  with pytest.raises(ConfigError, match="heads=6 and kv_heads=4"):
    Attention(8, 6, 4, rngs=nnx.Rngs(0), kv_heads=4)


def test_the_scale_multiplies_queries_with_their_biases():
  x = _draw(3, 2, 5, 8)
  plain = Attention(8, 3, 4, rngs=nnx.Rngs(0), use_bias=True)
  plain.query.bias[...] = jnp.arange(12.0)
  scaled = Attention(8, 3, 4, rngs=nnx.Rngs(0), use_bias=True, scale=0.5)
  for name in ("query", "key", "value", "out"):
    setattr(scaled, name, getattr(plain, name))
  memory = plain.project(x)
  doubled = KVCache(keys=2 * memory.keys, values=memory.values)
  np.testing.assert_allclose(scaled(x, doubled), plain(x, memory), rtol=1e-5, atol=1e-5)
