"""Divergences against numpy on the logits of the two models."""

import numpy as np
import pytest

from promot_jax.analyses import kl_from_pretrained
from tiny_models import batch_of, logits, tiny


def log_softmax(values):
  values = np.asarray(values, np.float64)
  return values - np.log(np.exp(values).sum(-1, keepdims=True))


def test_the_divergence_is_numpys_mean_over_target_tokens_in_both_directions():
  tuned, start = tiny("t5", seed=1), tiny("t5")
  batches = [batch_of(start, seed=2), batch_of(start, seed=3)]
  for batch in batches:  # padding counts nothing
    batch["decoder_loss_weights"] = np.asarray([[1, 1, 0, 0], [1, 1, 1, 1]], np.float32)
  found = kl_from_pretrained.divergences(tuned, start, lambda: batches)
  apart, reverse, tokens = 0.0, 0.0, 0.0
  for batch in batches:
    p, q = (log_softmax(logits(model, batch)) for model in (tuned, start))
    weights = np.asarray(batch["decoder_loss_weights"])
    apart += ((np.exp(p) * (p - q)).sum(-1) * weights).sum()
    reverse += ((np.exp(q) * (q - p)).sum(-1) * weights).sum()
    tokens += weights.sum()
  assert tokens == found.tokens
  assert found.divergence == pytest.approx(apart / tokens, rel=1e-4)
  assert found.reverse == pytest.approx(reverse / tokens, rel=1e-4)
  assert found.divergence != pytest.approx(found.reverse, rel=1e-3)


def test_a_model_has_no_divergence_from_itself():
  start = tiny("t5")
  batch = {**batch_of(start), "decoder_loss_weights": np.ones((2, 4), np.float32)}
  found = kl_from_pretrained.divergences(start, start, lambda: [batch])
  assert found.divergence == pytest.approx(0, abs=1e-6)
  assert found.reverse == pytest.approx(0, abs=1e-6)
