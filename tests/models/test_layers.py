"""Linear, embedding, norm, mlp and dropout against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.models.layers import Embedding, LayerNorm, Linear, Mlp, RMSNorm, dropout


def _draw(*shape):
  return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def test_linear_adds_its_bias_only_if_it_has_one():
  x = _draw(2, 5, 3)
  plain = Linear(3, 4, rngs=nnx.Rngs(0))
  assert plain.bias is None
  kernel = np.asarray(plain.kernel[...])
  np.testing.assert_allclose(plain(x), x @ kernel, rtol=1e-5)
  plain.bias = nnx.Param(jnp.asarray(_draw(4)))
  np.testing.assert_allclose(plain(x), x @ kernel + _draw(4), rtol=1e-5, atol=1e-6)


def test_norm_divides_by_the_root_mean_square_and_keeps_the_dtype():
  x = 100 * _draw(2, 5, 8)
  norm = RMSNorm(8)
  norm.scale[...] = jnp.arange(1.0, 9.0)
  expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * np.arange(1, 9)
  np.testing.assert_allclose(norm(x), expected, rtol=1e-5)
  assert norm(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16


def test_norm_of_bfloat16_squares_in_float32():
  x = jnp.full((1, 4096), 1.0, jnp.bfloat16)  # a bfloat16 sum would stop growing at 256
  np.testing.assert_allclose(np.asarray(RMSNorm(4096)(x), np.float32), 1.0, rtol=1e-2)


@pytest.mark.parametrize("lookup", ["gather", "one_hot"])
def test_embedding_and_its_gradient_are_those_of_indexing(lookup):
  embedding = Embedding(7, 3, rngs=nnx.Rngs(0), lookup=lookup)
  table = np.asarray(embedding.embedding[...])
  tokens = np.array([[1, 6, 1], [0, 2, 1]], np.int32)
  np.testing.assert_allclose(embedding(tokens), table[tokens], rtol=1e-6)
  upstream = _draw(2, 3, 3)
  graphdef, state = nnx.split(embedding)
  gradient = jax.grad(lambda state: (nnx.merge(graphdef, state)(tokens) * upstream).sum())(state)
  expected = np.zeros_like(table)
  np.add.at(expected, tokens, upstream)
  np.testing.assert_allclose(jax.tree.leaves(gradient)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_token_outside_of_the_vocabulary_is_loud():
  embedding = Embedding(7, 3, rngs=nnx.Rngs(0))
  assert np.isnan(embedding(np.array([7]))).all()


def test_unknown_names_are_reported():
  with pytest.raises(ConfigError, match="'table'"):
    Embedding(7, 3, rngs=nnx.Rngs(0), lookup="table")
  with pytest.raises(ConfigError, match="glu"):
    Mlp(3, 4, rngs=nnx.Rngs(0), activations=("glu",))


@pytest.mark.parametrize("activations", [("relu",), ("relu", "linear")])
def test_mlp_multiplies_its_branches(activations):
  mlp = Mlp(3, 5, rngs=nnx.Rngs(0), activations=activations)
  x = _draw(2, 4, 3)
  if len(activations) == 1:
    hidden = np.maximum(x @ np.asarray(mlp.wi.kernel[...]), 0)
  else:
    gate = np.maximum(x @ np.asarray(mlp.wi_0.kernel[...]), 0)
    hidden = gate * (x @ np.asarray(mlp.wi_1.kernel[...]))
  np.testing.assert_allclose(mlp(x), hidden @ np.asarray(mlp.wo.kernel[...]), rtol=1e-5, atol=1e-6)


def test_dropout_keeps_the_mean_and_repeats_along_broadcast_axes():
  x = np.ones((40, 5, 60), np.float32)
  dropped = np.asarray(dropout(x, 0.25, jax.random.key(0), broadcast=(-2,)))
  assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
  np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
  assert abs((dropped == 0).mean() - 0.25) < 0.04  # 2400 draws: 4.5 standard errors


def test_no_key_means_no_dropout():
  x = _draw(2, 3)
  assert dropout(x, 0.5, None) is x


@pytest.mark.parametrize("use_bias", [True, False])
def test_layer_norm_has_mean_zero_and_variance_one(use_bias):
  x = np.random.default_rng(0).normal(3.0, 2.0, size=(2, 5, 8)).astype(np.float32)
  norm = LayerNorm(8, epsilon=1e-3, use_bias=use_bias)
  norm.scale[...] = jnp.arange(8.0)
  wide = x.astype(np.float64)
  expected = wide - wide.mean(-1, keepdims=True)
  expected = expected / np.sqrt(wide.var(-1, keepdims=True) + 1e-3) * np.arange(8)
  if use_bias:
    norm.bias[...] = jnp.full(8, 0.5)
    expected = expected + 0.5
  assert (norm.bias is None) != use_bias
  np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-5)


def test_layer_norm_of_bfloat16_is_computed_in_float32():
  x = jnp.asarray(np.random.default_rng(0).normal(100.0, 1.0, size=(3, 64)), jnp.bfloat16)
  y = LayerNorm(64)(x)
  assert y.dtype == jnp.bfloat16
  wide = np.asarray(x, np.float64)
  expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=1e-2, atol=1e-2)


def test_an_mlp_with_biases_adds_them():
  mlp = Mlp(6, 10, rngs=nnx.Rngs(0), activations=("relu",), use_bias=True)
  mlp.wi.bias[...] = jnp.arange(10.0) - 4
  mlp.wo.bias[...] = jnp.arange(6.0)
  x = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)
  inner = np.maximum(x @ np.asarray(mlp.wi.kernel[...]) + np.arange(10) - 4, 0)
  expected = inner @ np.asarray(mlp.wo.kernel[...]) + np.arange(6)
  np.testing.assert_allclose(mlp(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)
