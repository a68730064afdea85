"""Batches of families that pad, end and start with other tokens than T5."""

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.data.batches import EvalBatches, TrainBatches, collate
from promot_jax.data.examples import Examples
from promot_jax.data.length_report import LengthReport
from promot_jax.token_ids import TokenIds

BART = TokenIds(pad=1, eos=2, decoder_start=2)
GPT2 = TokenIds(pad=-1, eos=9, decoder_start=None)


def examples(inputs, targets) -> Examples:
  return Examples(
    name="made up",
    split="train",
    features={
      "inputs": [np.array(tokens, np.int32) for tokens in inputs],
      "targets": [np.array(tokens, np.int32) for tokens in targets],
      "prompt_ids": np.zeros(len(inputs), np.int32),
    },
    records=[{}] * len(inputs),
    lengths=LengthReport(examples=len(inputs), inputs_limit=None, targets_limit=None),
  )


def test_bart_batches_are_shifted_behind_its_decoder_start():
  made = examples([[0, 50, 51, 2], [0, 52, 2]], [[0, 60, 2], [0, 61, 62, 2]])
  batch = collate(made, [0, 1], (5, 4), BART)
  assert batch["encoder_input_tokens"].tolist() == [[0, 50, 51, 2, 1], [0, 52, 2, 1, 1]]
  assert batch["decoder_target_tokens"].tolist() == [[0, 60, 2, 1], [0, 61, 62, 2]]
  assert batch["decoder_input_tokens"].tolist() == [[2, 0, 60, 2], [2, 0, 61, 62]]
  assert batch["decoder_loss_weights"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_a_decoder_only_batch_has_no_decoder_inputs_and_any_token_is_real():
  # 0 pads T5, and 1 pads BART; here they are words.
  made = examples([[0, 1, 13], [5, 13]], [[1, 0, 9], [9]])
  batch = collate(made, [0, 1], (4, 3), GPT2)
  assert "decoder_input_tokens" not in batch
  assert batch["encoder_input_tokens"].tolist() == [[0, 1, 13, -1], [5, 13, -1, -1]]
  assert batch["decoder_target_tokens"].tolist() == [[1, 0, 9], [9, -1, -1]]
  assert batch["decoder_loss_weights"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_training_and_evaluation_pad_alike():
  made = examples([[5, 13]] * 5, [[7, 9]] * 5)
  trained = TrainBatches(made, batch_size=2, special=GPT2)(0)
  evaluated = [batch for batch, _ in EvalBatches(made, batch_size=2, special=GPT2)]
  for batch in (trained, *evaluated):
    assert batch["encoder_input_tokens"][0].tolist() == [5, 13, -1, -1, -1, -1, -1, -1]
    assert batch["decoder_target_tokens"][0].tolist() == [7, 9, -1, -1]


def test_ids_come_from_a_models_configuration():
  from promot_jax.networks import micro_model

  assert TokenIds.of(micro_model.config()) == TokenIds(pad=0, eos=1, decoder_start=0)


def test_a_decoder_only_model_needs_an_input_token_to_begin_after():
  made = examples([[5, 13], []], [[7, 9], [8, 9]])
  with pytest.raises(errors.DataError, match="Example 1 has no input token"):
    collate(made, [0, 1], (4, 4), GPT2)


def test_a_model_that_says_nothing_of_its_tokens_is_refused():
  with pytest.raises(errors.ConfigError, match="object does not say which tokens pad"):
    TokenIds.of(object())
