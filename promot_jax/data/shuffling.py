"""The order of an epoch of a large split, of which any place is computed by itself and none is kept.

A permutation of 15.8 million numbers would be 126 MB, and another one for each epoch.  Here a number goes
through a Feistel network: its two halves are exchanged a few times, and each time one is changed by a hash of
the other, which can be undone, so that no two numbers become one.  The network permutes the next power of
four; a result beyond the split goes through it again until it is inside, which keeps the rest a permutation
(cycle walking; Black & Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
"""

from collections.abc import Sequence

import numpy as np

_ROUNDS = 6


def shuffled(places: np.ndarray, *, size: int, key: Sequence[int]) -> np.ndarray:
  """int64: what stands at these places of a permutation of 0 to size - 1.

  Args:
    places: from 0 to size - 1.
    key: whole numbers >= 0 that choose the permutation.
  """
  half = max(1, -(-(size - 1).bit_length() // 2))  # bits of each half of a number
  keys = np.random.SeedSequence(list(key)).generate_state(_ROUNDS, np.uint64)
  found = _exchanged(places.astype(np.uint64), half, keys)
  # The power of four has less than four times as many numbers, so few walk on for long.
  while len(beyond := np.flatnonzero(found >= np.uint64(size))):
    found[beyond] = _exchanged(found[beyond], half, keys)
  return found.astype(np.int64)


def _exchanged(numbers: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
  shift, mask = np.uint64(half), np.uint64(2**half - 1)
  left, right = numbers >> shift, numbers & mask
  for key in keys:
    left, right = right, left ^ (_hashed(right + key) & mask)
  return (left << shift) | right


def _hashed(values: np.ndarray) -> np.ndarray:
  """A hash of each 64-bit number: the finalizer of SplitMix64 (Steele et al., 2014)."""
  values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return values ^ (values >> np.uint64(31))
