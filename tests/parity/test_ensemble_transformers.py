"""An ensemble writes what transformers' own beam search writes over the logits of two of its models.

A logits processor puts the second model's probabilities beside the first one's at every step, so that the
search, its penalties and its ends are transformers' own.
"""

import math

import numpy as np
import pytest

from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import TransformersBeam
from promot_jax.models.ensemble import Ensemble

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")
pytestmark = pytest.mark.parity

BEAMS = 4


class Beside(transformers.LogitsProcessor):
  """log(w p_first + (1 - w) p_second), where transformers' search runs the first model."""

  def __init__(self, second, tokens, mask, *, weight):
    self.second, self.weight = second, weight
    self.inputs = {"input_ids": tokens, "attention_mask": mask}
    self.inputs = {name: rows.repeat_interleave(BEAMS, 0) for name, rows in self.inputs.items()}

  def __call__(self, written, scores):
    logits = self.second(**self.inputs, decoder_input_ids=written, use_cache=False).logits[:, -1]
    parts = [
      scores.log_softmax(-1) + math.log(self.weight),
      logits.log_softmax(-1) + math.log(1 - self.weight),
    ]
    return torch.stack(parts).logsumexp(0)


def test_outputs_are_those_of_a_loop_over_two_models(module_of_tests):
  alone = module_of_tests("parity/test_decoding_transformers")
  (first, other), (second, beside) = alone.pair(0), alone.pair(1)
  model = Ensemble([first, second], weights=[0.4, 0.6], space="probability")
  tokens = alone.inputs(0)
  ours = generate(
    model,
    {"encoder_input_tokens": tokens},
    strategy=TransformersBeam(width=BEAMS, length_penalty=1.0),
    max_length=alone.MAX_LENGTH,
  )
  ids, mask = torch.tensor(tokens, dtype=torch.long), torch.tensor(tokens > 0)
  with torch.no_grad():
    theirs = other.generate(
      ids,
      attention_mask=mask,
      max_new_tokens=alone.MAX_LENGTH,
      num_beams=BEAMS,
      do_sample=False,
      use_cache=False,
      logits_processor=[Beside(beside, ids, mask, weight=0.4)],
    )
  written = theirs.numpy()[:, 1:]  # the first is the start token
  after_end = np.cumsum(written == 1, axis=1) - (written == 1) > 0
  written = np.where(after_end, 0, written)
  expected = np.pad(written, ((0, 0), (0, alone.MAX_LENGTH - written.shape[1])))
  np.testing.assert_array_equal(np.asarray(ours.tokens)[:, 0], expected)
