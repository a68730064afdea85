"""Which positions of an input are text and which only fill its row up.

A batch says it: `encoder_input_mask` [B S] is made where rows are put together, from their lengths, and
no id has to be given up for padding.  Without it, for batches made by hand, see `is_text`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from promot_jax.types import Array, Batch, Bool, Int


def input_mask(batch: Batch, shape: Sequence[int], *, pad: int) -> Bool[Array, "B S"]:
  """Of that shape: True where a batch's input is text.

  Args:
    batch: its `encoder_input_mask`, or else its `encoder_input_tokens`, says it; with neither, all
      of the input is text.
    pad: the model's id of padding, for `is_text`.
  """
  mask, tokens = batch.get("encoder_input_mask"), batch.get("encoder_input_tokens")
  if mask is not None:
    return jnp.asarray(mask, bool)
  return jnp.ones(shape, bool) if tokens is None else is_text(jnp.asarray(tokens), pad=pad)


def is_text(tokens: Int[Array, "B S"], *, pad: int) -> Bool[Array, "B S"]:
  """True for a token, False for padding, as far as ids can tell.

  Padding is the run of `pad` at the end of a row; the same id before another token is a token.  Where
  no token pads (`pad` is -1), negative ids are padding wherever they are.

    ids, pad=0    8 0 3 0 0          ids, pad=-1   -1 -1 8 0
    is text       1 1 1 0 0          is text        0  0 1 1
  """
  real = tokens != pad
  return real if pad < 0 else jax.lax.cummax(real.astype(jnp.int8), axis=1, reverse=True) > 0
