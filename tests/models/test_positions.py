"""Relative positions by their definition, learned ones by rows, rotations as complex numbers."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.models.positions import (
  LearnedPositions,
  Llama3Scaling,
  RelativePositionBias,
  RotaryPositions,
  relative_position_bucket,
)


def _bucket(relative: int, *, buckets: int, max_distance: int, bidirectional: bool) -> int:
  """One number at a time, in float64."""
  first = 0
  if bidirectional:
    buckets //= 2
    first = buckets if relative > 0 else 0
    distance = abs(relative)
  else:
    distance = max(-relative, 0)
  exact = buckets // 2
  if distance < exact:
    return first + distance
  share = math.log(distance / exact) / math.log(max_distance / exact)
  # 1e-6: where the exact result is an integer, float32 may fall below it, and T5 computes float32.
  return first + min(exact + math.floor(share * (buckets - exact) + 1e-6), buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_follow_the_definition(bidirectional):
  relative = np.arange(-300, 301)
  options = {"buckets": 32, "max_distance": 128, "bidirectional": bidirectional}
  expected = [_bucket(int(r), **options) for r in relative]
  np.testing.assert_array_equal(relative_position_bucket(relative, **options), expected)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
  ("queries", "keys", "offset"), [(3, 5, 0), (5, 3, 0), (4, 6, 2), (1, 1, 0)]
)
def test_bias_is_the_table_at_the_distance_of_key_and_query(bidirectional, queries, keys, offset):
  options = {"buckets": 8, "max_distance": 20, "bidirectional": bidirectional}
  bias = RelativePositionBias(7, rngs=nnx.Rngs(0), **options)
  table = np.asarray(bias.rel_embedding[...])
  expected = np.empty((1, 7, queries, keys), np.float32)
  for i in range(queries):
    for j in range(keys):
      expected[0, :, i, j] = table[:, _bucket(j - offset - i, **options)]
  np.testing.assert_allclose(bias(queries, keys, offset=offset), expected, rtol=1e-6)


def test_learned_positions_skip_the_rows_of_their_offset():
  positions = LearnedPositions(5, 3, rngs=nnx.Rngs(0), offset=2)
  table = np.asarray(positions.embedding[...])
  assert (table.shape, positions.length) == ((7, 3), 5)
  np.testing.assert_array_equal(positions(jnp.array([[0, 4]]))[0], table[[2, 6]])
  assert np.isnan(positions(jnp.array([5]))).all()


def test_rotations_multiply_complex_numbers():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype(np.float32)
  positions = np.array([[0, 1, 7], [300, 2, 2]])
  angles = positions[..., None, None] * 50.0 ** (-np.arange(3) / 3)
  turned = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * angles)
  actual = RotaryPositions(head_width=6, theta=50.0)(jnp.asarray(x), jnp.asarray(positions))
  expected = np.concatenate([turned.real, turned.imag], -1)
  np.testing.assert_allclose(actual, expected, atol=1e-4)  # sin(300 radians) in float32


def test_slow_rotations_are_slowed_down_further_for_long_texts():
  scaling = Llama3Scaling(
    factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_length=100
  )
  waves = np.array([10.0, 4.0, 2.5, 1.0, 0.1])  # of length 10 ... 1000 in a text of 100
  frequencies = 2 * np.pi * waves / 100
  share = (2.5 - 1.0) / (4.0 - 1.0)
  expected = frequencies * [1, 1, share + (1 - share) / 8, 1 / 8, 1 / 8]
  np.testing.assert_allclose(scaling(frequencies), expected)


def test_an_odd_head_cannot_be_rotated():
  with pytest.raises(ConfigError, match="head_width=5"):
    RotaryPositions(head_width=5)
