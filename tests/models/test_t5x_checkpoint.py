"""Our T5 computes what T5X computed: weights, logits and losses written by T5X itself."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.models import T5, T5Config, stack_layers
from promot_jax.types import Batch


class LearnedVectors(nnx.Module):
  """The least that fits the encoder's prompt slot."""

  def __init__(self, vectors):
    self.prompt = nnx.Param(vectors)

  def __call__(self, embeddings, mask, prompt_ids):
    del prompt_ids
    rows = jax.numpy.broadcast_to(self.prompt[...], (len(mask), *self.prompt.shape))
    seen = np.ones(rows.shape[:2], bool)
    return jax.numpy.concatenate([rows, embeddings], 1), jax.numpy.concatenate([seen, mask], 1)


def _restored(folder, config: T5Config) -> T5:
  arrays = {}
  with np.load(folder / "expected_state.npz") as state:
    for name in state.files:
      if name.startswith("target/"):
        ours = re.sub(r"/layers_(\d+)/", r"/layers/\1/", name.removeprefix("target/"))
        arrays[ours.replace("prompt/prompt/prompt", "prompt/prompt")] = state[name]
  model = T5(config, nnx.Rngs(0))
  if "encoder/prompt/prompt" in arrays:
    model.encoder.prompt = LearnedVectors(arrays["encoder/prompt/prompt"])
  return paths.replace_leaves(model, arrays)


def _expected(folder) -> tuple[Batch, dict]:
  with np.load(folder / "expected_io.npz") as arrays:
    batch = {
      name.removeprefix("batch/"): arrays[name]
      for name in arrays.files
      if name.startswith("batch/")
    }
    return batch, {name: arrays[name] for name in arrays.files}


MODELS = {
  "t5_1_1_tiny": T5Config(
    vocab_size=192,
    width=128,
    heads=4,
    head_width=8,
    mlp_width=128,
    encoder_layers=2,
    decoder_layers=1,
  ),
  "prompt_t5_1_1_tiny": T5Config(
    vocab_size=64,
    width=16,
    heads=2,
    head_width=8,
    mlp_width=24,
    encoder_layers=2,
    decoder_layers=1,
  ),
}


@pytest.fixture(params=sorted(MODELS))
def written_by_t5x(request, shared_data):
  folder = shared_data / "t5x_checkpoint" / request.param
  if not folder.is_dir():
    pytest.skip(f"no checkpoint written by T5X at {folder}")
  return _restored(folder, MODELS[request.param]), *_expected(folder)


@pytest.mark.parametrize("scanned", [False, True])
def test_logits_equal_t5x(written_by_t5x, scanned):
  model, batch, expected = written_by_t5x
  model = stack_layers(model) if scanned else model
  logits = jax.jit(lambda model, batch: model.logits(model.hidden(batch)))(model, batch)
  # T5X also masks padded targets as queries, which changes only outputs that nobody reads.
  real = batch["decoder_target_tokens"] > 0
  largest = np.abs(expected["logits"][real]).max()
  np.testing.assert_allclose(logits[real], expected["logits"][real], atol=2e-5 * largest, rtol=0)


def test_summed_loss_and_scores_equal_t5x(written_by_t5x):
  model, batch, expected = written_by_t5x
  logits = np.asarray(model.logits(model.hidden(batch)), np.float64)
  shifted = logits - logits.max(-1, keepdims=True)
  log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
  targets = np.asarray(batch["decoder_target_tokens"])
  of_targets = np.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0]
  scores = (of_targets * batch["decoder_loss_weights"]).sum(-1)
  np.testing.assert_allclose(-scores.sum(), expected["loss"], rtol=1e-5)
  np.testing.assert_allclose(scores, expected["score_batch"], rtol=1e-5)


def test_greedy_steps_equal_the_greedy_decode_of_t5x(written_by_t5x):
  model, batch, expected = written_by_t5x
  wanted = expected["greedy/seqs"]
  step = jax.jit(lambda model, tokens, cache: model.decode_step(tokens, cache))
  logits, cache = model.prefill(batch, max_length=wanted.shape[1])
  ended = np.zeros(len(wanted), bool)
  for position in range(wanted.shape[1]):
    tokens = np.where(ended, 0, np.argmax(logits, -1)).astype(np.int32)
    np.testing.assert_array_equal(tokens, wanted[:, position])
    ended |= tokens == 1
    logits, cache = step(model, tokens, cache)
