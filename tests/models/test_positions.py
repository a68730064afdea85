"""Relative positions: buckets by their definition, and the bias matrix by looking each entry up."""

import math

import numpy as np
import pytest
from flax import nnx

from promot_jax.models.positions import RelativePositionBias, relative_position_bucket


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
