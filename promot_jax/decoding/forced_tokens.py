"""Tokens that a model's configuration puts into every output; BART's begin with <s> and end with </s>."""

import jax.numpy as jnp
import numpy as np

from promot_jax.token_ids import TokenIds, as_tuple
from promot_jax.types import Array, Bool, Float, Int


def with_forced_tokens(
  scores: Float[Array, "R V"], length: Int[Array, ""], *, max_length: int, ids: TokenIds
) -> Float[Array, "R V"]:
  """Logits or log p of the token after `length` others.

  Where a token is forced, it has 0 and all others -inf, so that every strategy chooses it and its
  log p counts 0, as in transformers.  Of several that each will do, all have 0.  The last of
  `max_length` tokens is forced rather than the first where they are the same.
  """
  for forced, place in ((ids.forced_first, 0), (ids.forced_last, max_length - 1)):
    if forced is not None:
      # By numpy: ids are static, so this is a constant of the program.
      allowed = np.full(scores.shape[-1], -np.inf, np.float32)
      allowed[list(as_tuple(forced))] = 0.0
      scores = jnp.where(length == place, jnp.asarray(allowed, scores.dtype), scores)
  return scores


def is_end(tokens: Int[Array, "..."], ids: TokenIds) -> Bool[Array, "..."]:
  """Whether each token ends the output that it belongs to."""
  found = jnp.zeros(tokens.shape, bool)
  for end in ids.ends:
    found = found | (tokens == end)
  return found
