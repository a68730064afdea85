"""Our T5 computes what T5X computed: weights, logits and losses written by T5X itself."""

import jax
import numpy as np
import pytest

from promot_jax.models import stack_layers


def batch_of(expected):
  """What T5X was given."""
  return {
    name.removeprefix("batch/"): array
    for name, array in expected.items()
    if name.startswith("batch/")
  }


@pytest.mark.parametrize("scanned", [False, True])
def test_logits_equal_t5x(written_by_t5x, scanned):
  model, expected = written_by_t5x
  batch = batch_of(expected)
  model = stack_layers(model) if scanned else model
  logits = jax.jit(lambda model, batch: model.logits(model.hidden(batch)))(model, batch)
  # T5X also masks padded targets as queries, which changes only outputs that nobody reads.
  real = batch["decoder_target_tokens"] > 0
  largest = np.abs(expected["logits"][real]).max()
  np.testing.assert_allclose(logits[real], expected["logits"][real], atol=2e-5 * largest, rtol=0)


def test_summed_loss_and_scores_equal_t5x(written_by_t5x):
  model, expected = written_by_t5x
  batch = batch_of(expected)
  logits = np.asarray(model.logits(model.hidden(batch)), np.float64)
  shifted = logits - logits.max(-1, keepdims=True)
  log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
  targets = np.asarray(batch["decoder_target_tokens"])
  of_targets = np.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0]
  scores = (of_targets * batch["decoder_loss_weights"]).sum(-1)
  np.testing.assert_allclose(-scores.sum(), expected["loss"], rtol=1e-5)
  np.testing.assert_allclose(scores, expected["score_batch"], rtol=1e-5)


def test_greedy_steps_equal_the_greedy_decode_of_t5x(written_by_t5x):
  model, expected = written_by_t5x
  batch = batch_of(expected)
  wanted = expected["greedy/seqs"]
  step = jax.jit(lambda model, tokens, cache: model.decode_step(tokens, cache))
  logits, cache = model.prefill(batch, max_length=wanted.shape[1])
  ended = np.zeros(len(wanted), bool)
  for position in range(wanted.shape[1]):
    tokens = np.where(ended, 0, np.argmax(logits, -1)).astype(np.int32)
    np.testing.assert_array_equal(tokens, wanted[:, position])
    ended |= tokens == 1
    logits, cache = step(model, tokens, cache)
