"""What is padding follows from a row's length, not from the id that is there."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from promot_jax.data.batches import collate
from promot_jax.data.examples import Examples
from promot_jax.data.length_report import LengthReport
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Greedy
from promot_jax.models.attention import is_text
from promot_jax.models.bart_config import BartConfig
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.t5_config import T5Config
from promot_jax.networks import backbones
from promot_jax.token_ids import TokenIds

PAD, UNUSED, VOCABULARY = 3, 18, 19
STACKS = {"encoder_layers": 2, "decoder_layers": 2}
CONFIGS = {
  "t5": T5Config(
    vocab_size=VOCABULARY, width=12, heads=3, head_width=4, mlp_width=20, pad=PAD, **STACKS
  ),
  "bart": BartConfig(vocab_size=VOCABULARY, width=12, heads=3, mlp_width=20, pad=PAD, **STACKS),
  "gpt2": DecoderLMConfig(
    vocab_size=VOCABULARY, width=12, layers=2, heads=3, head_width=4, mlp_width=20, eos=PAD, pad=PAD
  ),
}
INPUTS = [[5, PAD, 9, PAD, PAD], [8, PAD], [PAD, PAD, 7, 6]]
TARGETS = [[4, PAD, 6], [PAD, 7, PAD], [9, 5]]


def batch(config, inputs=INPUTS):
  made = Examples(
    name="made up",
    split="train",
    features={
      "inputs": [np.array(tokens, np.int32) for tokens in inputs],
      "targets": [np.array(tokens, np.int32) for tokens in TARGETS],
      "prompt_ids": np.zeros(len(inputs), np.int32),
    },
    records=[{}] * len(inputs),
    lengths=LengthReport(examples=len(inputs), inputs_limit=None, targets_limit=None),
  )
  return collate(made, range(len(inputs)), (7, 4), TokenIds.of(config))


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_id_of_padding_inside_of_a_text_is_read(kind):
  """As by the same network whose configuration calls an unused id padding."""
  config = CONFIGS[kind]
  other = dataclasses.replace(config, pad=UNUSED)
  model, expected = (backbones.build(each, nnx.Rngs(0)) for each in (config, other))
  real = np.arange(4) < np.array([len(row) for row in TARGETS])[:, None]
  logits = [
    np.asarray(each.logits(each.hidden(batch(each.config))))[real] for each in (model, expected)
  ]
  np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)
  tokens = [
    TokenIds.of(config).before_end(row)
    for each in (model, expected)
    for row in np.asarray(
      generate(each, batch(each.config), strategy=Greedy(), max_length=5).tokens
    )[:, 0]
  ]
  assert tokens[:3] == tokens[3:]


def test_a_mask_may_leave_padding_on_either_side():
  config = dataclasses.replace(CONFIGS["gpt2"], positions="rotary", pad=-1)
  model = backbones.build(config, nnx.Rngs(0))
  rows = [[5, 3, 9, 0, 0], [0, 0, 5, 3, 9]]
  mask = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]], bool)
  made = {
    "encoder_input_tokens": np.array(rows, np.int32),
    "encoder_input_mask": mask,
    "decoder_target_tokens": np.array([[4, 6]] * 2, np.int32),
  }
  right, left = np.asarray(model.logits(model.hidden(made)))
  np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
  without = {name: made[name] for name in ("encoder_input_tokens", "decoder_target_tokens")}
  assert not np.allclose(model.logits(model.hidden(without))[0], right)


def test_ids_alone_tell_padding_at_the_end_of_a_row_only():
  ids = np.array([[8, 0, 3, 0, 0], [0, 0, 0, 0, 0], [0, 8, 0, 0, 2]], np.int32)
  assert np.asarray(is_text(ids, pad=0)).astype(int).tolist() == [
    [1, 1, 1, 0, 0],
    [0, 0, 0, 0, 0],
    [1, 1, 1, 1, 1],
  ]
  ids = np.array([[-1, -1, 8, 0], [7, -1, 0, -1]], np.int32)
  assert np.asarray(is_text(ids, pad=-1)).astype(int).tolist() == [[0, 0, 1, 1], [1, 0, 1, 0]]


def test_loss_weights_and_masks_follow_from_lengths():
  made = batch(CONFIGS["t5"])
  assert made["encoder_input_mask"].sum(axis=1).tolist() == [5, 2, 4]
  assert made["decoder_loss_weights"].sum(axis=1).tolist() == [3, 3, 2]
