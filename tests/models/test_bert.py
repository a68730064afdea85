"""An encoder alone: padding, segments, prompts and the two forms of layers."""

import numpy as np
import pytest
from flax import nnx

from promot_jax import errors
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models import scanning
from promot_jax.models.bert import TYPES, Bert
from promot_jax.models.bert_config import BertConfig

CONFIG = BertConfig(
  vocab_size=19, width=8, heads=2, mlp_width=11, layers=2, max_positions=7, init_std=0.3
)
TOKENS = np.asarray([[4, 9, 6, 3, 5], [8, 3, 0, 0, 0]], np.int32)


@pytest.fixture(scope="module")
def model():
  return Bert(CONFIG, nnx.Rngs(0))


def test_a_row_of_a_ragged_batch_is_what_it_is_alone(model):
  hidden, mask = model.encode({"encoder_input_tokens": TOKENS})
  assert mask.tolist() == [[True] * 5, [True, True, False, False, False]]
  alone, _ = model.encode({"encoder_input_tokens": TOKENS[1:, :2]})
  np.testing.assert_allclose(hidden[1, :2], alone[0], atol=1e-6)


def test_segments_count_and_are_the_first_where_none_are_given(model):
  plain, _ = model.encode({"encoder_input_tokens": TOKENS})
  zeros, _ = model.encode({"encoder_input_tokens": TOKENS, TYPES: np.zeros_like(TOKENS)})
  ones, _ = model.encode({"encoder_input_tokens": TOKENS, TYPES: np.ones_like(TOKENS)})
  np.testing.assert_array_equal(plain, zeros)
  assert np.abs(plain - ones).max() > 1e-2


def test_scanned_layers_compute_what_unrolled_ones_do(model):
  batch = {"encoder_input_tokens": TOKENS}
  expected, _ = model.encode(batch)
  found, _ = scanning.stack_layers(model).encode(batch)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_prompt_stands_in_front_and_takes_positions(model):
  prompted = SoftPrompt(length=2).attach(model, nnx.Rngs(1))
  hidden, mask = prompted.encode({"encoder_input_tokens": TOKENS})
  assert hidden.shape == (2, 7, 8) and mask[:, :2].all()
  longer = SoftPrompt(length=3).attach(model, nnx.Rngs(1))
  with pytest.raises(errors.ConfigError, match=r"has 8 positions.*learned 7"):
    longer.encode({"encoder_input_tokens": TOKENS})


def test_a_width_that_heads_do_not_divide_is_refused():
  with pytest.raises(errors.ConfigError, match=r"must be a multiple of BertConfig\.heads=3"):
    BertConfig(vocab_size=19, width=8, heads=3, mlp_width=11, layers=2)
