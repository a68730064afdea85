"""A sweep writes what the ensemble writes under each of its weightings alone."""

import jax
import numpy as np
import pytest

from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Beam, Greedy, TransformersBeam
from promot_jax.models.ensemble import Ensemble
from promot_jax.models.sweep import Sweep

SHARES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
WEIGHTS = [[share, 1 - share] for share in SHARES]


def require_equal(parts, batch, strategy, *, space="probability", shares=SHARES, stop=()):
  """Of all shares together and apart; returns the tokens, [B K W T]."""
  options = {"strategy": strategy, "max_length": 6, "stop": stop}
  apart = [
    generate(Ensemble(parts, weights=[share, 1 - share], space=space), batch, **options)
    for share in shares
  ]
  whole = Ensemble(parts, weights=[0.5, 0.5], space=space)
  together = generate(Sweep(whole, [[share, 1 - share] for share in shares]), batch, **options)
  examples = len(batch["encoder_input_tokens"])
  tokens, scores = (
    np.asarray(each).reshape(examples, len(shares), *each.shape[1:])
    for each in (together.tokens, together.scores)
  )
  for number, alone in enumerate(apart):
    np.testing.assert_array_equal(tokens[:, number], alone.tokens)
    np.testing.assert_allclose(scores[:, number], alone.scores, rtol=1e-5, atol=1e-6)
  return tokens


@pytest.mark.parametrize(
  "strategy",
  [
    Greedy(),
    Beam(width=3),
    TransformersBeam(width=3, length_penalty=0.8),
    TransformersBeam(width=2, early_stopping=True),
  ],
  ids=["greedy", "beam", "transformers", "early"],
)
def test_each_weighting_writes_what_it_writes_alone(toy, strategy):
  parts = [toy(11, seed=1, eos_bonus=1.0), toy(11, seed=2, eos_bonus=0.5)]
  batch = {"encoder_input_tokens": np.asarray([[5], [2], [9], [4]], np.int32)}
  tokens = require_equal(parts, batch, strategy, stop=(7,))
  # Neither all shares nor all examples write the same, or swapped rows would not be seen.
  assert len({each.tobytes() for each in tokens.reshape(-1, *tokens.shape[2:])}) > 8


@pytest.mark.parametrize("space", ["log", "logits"])
def test_weightings_in_other_spaces(toy, space):
  parts = [toy(11, seed=1), toy(11, seed=2)]
  batch = {"encoder_input_tokens": np.asarray([[5], [2]], np.int32)}
  require_equal(parts, batch, Greedy(), space=space)


def test_weightings_share_the_memory_of_an_input_and_keep_their_own_words(module_of_tests):
  ensembles = module_of_tests("models/test_ensemble")
  parts = ensembles.members("t5")
  batch = {"encoder_input_tokens": np.asarray([[5, 9, 4, 1], [7, 3, 1, 0]], np.int32)}
  require_equal(parts, batch, Beam(width=2), shares=(0.1, 0.9))
  sweep = Sweep(Ensemble(parts, weights=[1, 0], space="probability"), WEIGHTS)
  logits, cache = jax.eval_shape(lambda: sweep.prefill(batch, max_length=3))
  assert logits.shape[0] == 2 * len(SHARES) == cache.weights.shape[0]
  for own in cache.caches.members:
    assert own.memory_mask.shape[0] == 2  # one for each input
    assert own.self_attention[0].keys.shape[0] == 2 * len(SHARES)
