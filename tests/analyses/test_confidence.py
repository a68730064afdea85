"""Mean confidence against numpy on the logits, of a model and of an ensemble with its members."""

import numpy as np
import pytest

from promot_jax.analyses import confidence
from promot_jax.models.ensemble import Ensemble
from tiny_models import batch_of, logits, tiny


def probabilities(model, batch):
  values = np.asarray(logits(model, batch), np.float64)
  powers = np.exp(values - values.max(-1, keepdims=True))
  return powers / powers.sum(-1, keepdims=True)


def test_confidence_and_accuracy_are_numpys_means_over_target_tokens():
  light, full = tiny("t5", seed=1), tiny("t5")
  batches = [batch_of(light, seed=2), batch_of(light, seed=3)]
  for batch in batches:  # padding counts nothing
    batch["decoder_loss_weights"] = np.asarray([[1, 1, 0, 0], [1, 1, 1, 1]], np.float32)
  # One target that is right: an accuracy of 0 would not tell much.
  right = probabilities(light, batches[0]).argmax(-1)
  targets = np.array(batches[0]["decoder_target_tokens"])
  targets[1, 3] = right[1, 3]  # the last one, which no later token reads
  batches[0]["decoder_target_tokens"] = targets
  both = Ensemble([light, full], weights=[0.25, 0.75], space="probability")
  means = {
    "light": lambda batch: probabilities(light, batch),
    "both": lambda batch: 0.25 * probabilities(light, batch) + 0.75 * probabilities(full, batch),
  }
  for model, name, chunk in ((light, "light", None), (light, "light", 3), (both, "both", None)):
    sure, correct, tokens = 0.0, 0.0, 0.0
    for batch in batches:
      p, weights = means[name](batch), batch["decoder_loss_weights"]
      sure += (p.max(-1) * weights).sum()
      correct += ((p.argmax(-1) == np.asarray(batch["decoder_target_tokens"])) * weights).sum()
      tokens += weights.sum()
    found = confidence.confidence(model, lambda: batches, chunk=chunk)
    assert found.tokens == tokens == 12
    assert found.confidence == pytest.approx(sure / tokens, rel=1e-5)
    assert found.accuracy == pytest.approx(correct / tokens)
    assert name == "both" or found.accuracy > 0
