"""Greedy and beam search write what transformers' T5 writes with the same weights.

`TransformersBeam` has transformers' rules and writes the same tokens.  T5X's (`Beam`) differ by
design: transformers divides log p by length^length_penalty, T5X by ((5 + length) / 6)^alpha;
transformers lets unfinished beams compete with finished ones at the end, and only the best `width`
candidates of a step may end there.  With both penalties at 0 and outputs that end in time, the living
beams are the same, and the best output is the same unless it ended as a candidate that transformers
does not let end.
"""

import dataclasses
import tempfile

import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.checkpoints import huggingface
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Beam, Greedy, TransformersBeam
from promot_jax.models.t5 import T5
from promot_jax.models.t5_config import T5Config

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")
pytestmark = pytest.mark.parity

CONFIG = T5Config(
  vocab_size=7, width=16, heads=3, head_width=4, mlp_width=20, encoder_layers=2, decoder_layers=2
)
MAX_LENGTH = 9


def pair(seed, config=CONFIG):
  """The same random T5 here and in transformers, with logits far enough apart to have no ties."""
  model = T5(config, nnx.Rngs(seed))
  draw = np.random.default_rng(seed).normal
  leaves = {
    name: np.asarray(leaf) + 0.5 * draw(size=leaf.shape).astype(np.float32)
    for name, leaf in paths.named_leaves(model).items()
  }
  model = paths.replace_leaves(model, leaves)
  with tempfile.TemporaryDirectory() as folder:
    exported = huggingface.write_hf(f"{folder}/model", leaves, config)
    other = transformers.AutoModelForSeq2SeqLM.from_pretrained(exported).eval()
  return model, other


def inputs(seed):
  tokens = np.random.default_rng(seed).integers(2, 7, size=(16, 5)).astype(np.int32)
  tokens[1, 4:] = 0
  tokens[3, 2:] = 0
  return tokens


def both(seed, strategy, *, config=CONFIG, **options):
  model, other = pair(seed, config)
  tokens = inputs(seed)
  ours = generate(model, {"encoder_input_tokens": tokens}, strategy=strategy, max_length=MAX_LENGTH)
  with torch.no_grad():
    theirs = other.generate(
      torch.tensor(tokens, dtype=torch.long),
      attention_mask=torch.tensor(tokens > 0),
      max_new_tokens=MAX_LENGTH,
      do_sample=False,
      use_cache=False,  # its size would follow the encoder's depth
      return_dict_in_generate=True,
      output_scores=True,
      **options,
    )
  sequences = theirs.sequences.numpy()[:, 1:]  # the first is the start token
  # transformers pads beams with EOS where the padding id is 0
  after_end = np.cumsum(sequences == 1, axis=1) - (sequences == 1) > 0
  sequences = np.where(after_end, 0, sequences)
  padded = np.pad(sequences, ((0, 0), (0, MAX_LENGTH - sequences.shape[1])))
  return np.asarray(ours.tokens), np.asarray(ours.scores), padded, theirs


@pytest.mark.parametrize("strategy", [Greedy(), TransformersBeam(width=4)])
def test_outputs_with_a_table_of_biases_in_every_layer_are_the_same(strategy):
  config = dataclasses.replace(CONFIG, relative_bias="per_layer")
  beams = 1 if isinstance(strategy, Greedy) else 4
  tokens, _, expected, _ = both(1, strategy, config=config, num_beams=beams)
  np.testing.assert_array_equal(tokens[:, 0], expected)


@pytest.mark.parametrize("seed", range(2))
def test_greedy_outputs_are_the_same(seed):
  tokens, _, expected, _ = both(seed, Greedy(), num_beams=1)
  np.testing.assert_array_equal(tokens[:, 0], expected)


@pytest.mark.parametrize(
  ("length_penalty", "early_stopping"), [(1.0, False), (-1.0, True), (2.0, "never")]
)
def test_beams_by_the_rules_of_transformers_are_the_same(length_penalty, early_stopping):
  options = {"length_penalty": length_penalty, "early_stopping": early_stopping}
  strategy = TransformersBeam(width=4, **options)
  tokens, scores, expected, theirs = both(0, strategy, num_beams=4, **options)
  np.testing.assert_array_equal(tokens[:, 0], expected)
  np.testing.assert_allclose(scores[:, 0], theirs.sequences_scores, rtol=1e-3, atol=1e-4)


def test_best_beams_that_end_are_the_same_or_better():
  same = better = 0
  for seed in range(2):
    tokens, scores, expected, theirs = both(
      seed, Beam(width=4, alpha=0.0), num_beams=4, length_penalty=0.0, early_stopping=False
    )
    for row in np.flatnonzero((expected == 1).any(axis=1)):
      their_score = theirs.sequences_scores[row].item()
      if np.array_equal(tokens[row, 0], expected[row]):
        np.testing.assert_allclose(scores[row, 0], their_score, rtol=1e-3, atol=1e-4)
        same += 1
      else:  # it ended where transformers allows no end
        assert scores[row, 0] > their_score
        better += 1
  assert same >= 10 and better <= same / 3, (same, better)
