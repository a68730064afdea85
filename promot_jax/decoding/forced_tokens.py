"""Tokens that a model's configuration puts into every output; BART's begin with <s> and end with </s>."""

import jax
import jax.numpy as jnp

from promot_jax.token_ids import TokenIds


def with_forced_tokens(
  logits: jax.Array, length: jax.Array, *, max_length: int, ids: TokenIds
) -> jax.Array:
  """Logits [R V] of the token after `length` others, int32 [].

  Where a token is forced, it has logit 0 and all others -inf, so that it is chosen by every strategy
  and its log p is 0, as in transformers.  The last of `max_length` tokens is forced rather than the
  first where they are the same.
  """
  if ids.forced_first is None and ids.forced_last is None:
    return logits
  nothing = jnp.full((), -1, jnp.int32)
  token = nothing
  if ids.forced_first is not None:
    token = jnp.where(length == 0, ids.forced_first, token)
  if ids.forced_last is not None:
    token = jnp.where(length == max_length - 1, ids.forced_last, token)
  forced = jnp.where(jnp.arange(logits.shape[-1]) == token, 0.0, -jnp.inf)
  return jnp.where(token == nothing, logits, forced.astype(logits.dtype))
