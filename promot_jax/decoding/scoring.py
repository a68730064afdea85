"""The probability that a model gives to answers that are known, for rank classification."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax.models.attention import is_text
from promot_jax.models.backbone import require_writer
from promot_jax.token_ids import TokenIds
from promot_jax.types import Array, Bool, Float

# Logits of so many positions are formed at once that they stay below this many numbers (256 MiB):
# those of all targets of a batch would be the largest array of the whole program.
_LOGITS_AT_ONCE = 2**26


class Scores(NamedTuple):
  """What a model says of given answers."""

  log_p: Float[Array, "B"]
  """Sum over target tokens of log p(target | input, earlier targets), float32."""
  greedy: Bool[Array, "B"]
  """Whether greedy decoding would have written the same: no target token is less probable than another one."""


def score(model: nnx.Module, batch: Mapping[str, Any]) -> Float[Array, "B"]:
  """Sum over target tokens of log p(target | input, earlier targets), float32; as `scores`."""
  return scores(model, batch).log_p


def scores(model: nnx.Module, batch: Mapping[str, Any]) -> Scores:
  """How probable given answers are.

  Compiled once per model structure and batch shape; weights are arguments.

  Args:
    model: has `hidden(batch)` and `logits(hidden)`.
    batch: with decoder_input_tokens, decoder_target_tokens [B T], and decoder_loss_weights [B T],
      which multiply each token's log p (0 for padding); without weights, the padding at the end of
      the targets is left out (`attention.is_text`).

  Raises:
    ConfigError: the model is an encoder alone.
  """
  require_writer(model, "hidden")
  graphdef, state = nnx.split(model)
  return compiled(state, dict(batch), graphdef=graphdef)


def _score(state, batch, *, graphdef):
  model = nnx.merge(graphdef, state)
  targets = batch["decoder_target_tokens"]
  weights = batch.get("decoder_loss_weights")
  if weights is None:
    weights = is_text(targets, pad=TokenIds.of(model).pad)
  examples, length = targets.shape
  hidden = model.hidden(batch)  # [B T D], or a tree of such arrays for an ensemble
  vocabulary = jax.eval_shape(model.logits, hidden).shape[-1]

  def log_p(position):
    hidden, targets = position
    logits = model.logits(hidden).astype(jnp.float32)  # [B V]; log-sum-exp needs the range
    chosen = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1), chosen >= logits.max(axis=-1)

  # Positions first, as `map` goes along the first axis.
  by_position = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), (hidden, targets))
  at_once = max(1, min(length, _LOGITS_AT_ONCE // (examples * vocabulary)))
  per_token, is_best = jax.lax.map(log_p, by_position, batch_size=at_once)  # [T B] each
  return Scores(
    log_p=jnp.einsum("tb,bt->b", per_token, weights.astype(jnp.float32)),
    greedy=(is_best | (weights.T == 0)).all(axis=0),
  )


compiled = jax.jit(_score, static_argnames=("graphdef",))
"""The compiled programs; `compiled._cache_size()` counts them."""
