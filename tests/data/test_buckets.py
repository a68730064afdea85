"""Bucket lengths are the cheapest ones, by comparison with trying all."""

import itertools

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.data import buckets


def padded(lengths, chosen) -> int:
  return sum(min(bucket for bucket in chosen if bucket >= length) for length in lengths)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_other_choice_of_buckets_pads_less(count):
  lengths = np.random.default_rng(count).integers(1, 40, size=25)
  chosen = buckets.best_lengths(lengths, count=count, multiple=4)
  candidates = range(4, 44, 4)
  best = min(
    padded(lengths, others)
    for number in range(1, count + 1)
    for others in itertools.combinations(candidates, number)
    if others[-1] >= lengths.max()
  )
  assert len(chosen) <= count
  assert all(bucket % 4 == 0 for bucket in chosen)
  assert padded(lengths, chosen) == best


def test_equal_lengths_need_one_bucket():
  assert buckets.best_lengths(np.array([2, 2, 2]), count=5) == (8,)


def test_each_length_gets_the_smallest_bucket_that_holds_it():
  assert buckets.choose((8, 16), np.array([1, 8, 9, 16])).tolist() == [0, 0, 1, 1]


def test_an_example_above_the_largest_bucket_is_refused():
  with pytest.raises(errors.ConfigError, match="17 tokens, more than the largest bucket 16"):
    buckets.choose((8, 16), np.array([3, 17]))
  with pytest.raises(errors.ConfigError, match="ascending"):
    buckets.Buckets(inputs=(16, 8), targets=(8,))
