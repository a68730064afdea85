"""How many tokens batches compute for each needed one, counted by hand."""

import numpy as np

from promot_jax.evaluation import tokens
from promot_jax.evaluation.tokens import Tokens


def test_padding_and_rows_that_fill_a_batch_are_computed_and_not_needed():
  inputs = np.arange(5) < np.asarray([[4], [2], [4]])  # [B S], the third row a copy of the first
  weights = (np.arange(6) < np.asarray([[3], [1], [0]])).astype(np.float32)  # [B T]
  batch = {"encoder_input_mask": inputs, "decoder_loss_weights": weights}
  read = tokens.read(batch, own=2, targets=False)
  assert read == Tokens(computed=3 * 5, needed=4 + 2) and read.ratio == 2.5
  assert tokens.read(batch, own=2, targets=True) == Tokens(computed=3 * 11, needed=4 + 2 + 3 + 1)
  # One token and its end, and four of which none is left for an end.
  assert tokens.written([1, 4], rows=3, longest=4) == Tokens(computed=3 * 4, needed=2 + 4)
  assert Tokens().ratio is None
