"""One row at a time: greedy and random decoding."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from promot_jax.decoding.forced_tokens import is_end, with_forced_tokens
from promot_jax.decoding.strategies import Greedy, Sample
from promot_jax.models.backbone import Decodable
from promot_jax.token_ids import TokenIds
from promot_jax.types import Array, Bool, Float, Int, Key


class _Loop(NamedTuple):
  """R = B * W rows after `length` tokens."""

  length: Int[Array, ""]
  tokens: Int[Array, "R T"]
  last: Int[Array, "R"]
  scores: Float[Array, "R"]  # log p of the tokens so far
  ended: Bool[Array, "R"]
  cache: Any


def decode(
  model: Decodable,
  batch: Any,
  *,
  strategy: Greedy | Sample,
  max_length: int,
  key: Key | None,
  ids: TokenIds,
  stop: Bool[Array, "V"] | None = None,
) -> tuple[Int[Array, "B W T"], Float[Array, "B W"]]:
  """Tokens and scores, best first; see `generate`.

  `stop` says of each token whether an output ends behind it; an end follows it then.
  """
  behind = ids.ends[0] if stop is not None and ids.ends else ids.pad  # what fills a row up
  copies = strategy.samples if isinstance(strategy, Sample) else 1
  logits, cache = model.prefill(batch, max_length=max_length)
  examples = logits.shape[0]
  rows = examples * copies
  if copies > 1:
    logits, cache = jnp.repeat(logits, copies, axis=0), cache.repeat(copies)

  def extend(state: _Loop, logits: Float[Array, "R V"], cache: Any) -> _Loop:
    forced = functools.partial(
      with_forced_tokens, length=state.length, max_length=max_length, ids=ids
    )
    # Of the model, whatever is cut below.
    log_p = forced(jax.nn.log_softmax(logits.astype(jnp.float32)))
    logits = forced(logits)
    if isinstance(strategy, Sample):
      assert key is not None  # `generate` refuses to sample without one
      # By position, so that the loop's state needs no key.
      step_key = jax.random.fold_in(key, state.length)
      chosen = jax.random.categorical(step_key, truncated(logits, strategy))
    else:
      chosen = jnp.argmax(logits, axis=-1)
    chosen = chosen.astype(jnp.int32)
    gained = jnp.take_along_axis(log_p, chosen[:, None], axis=-1)[:, 0]
    # Only now: `pad` may be -1, which has no log p to take.
    chosen = jnp.where(state.ended, behind, chosen)
    ended = state.ended | is_end(chosen, ids)
    if stop is not None:
      ended |= jnp.take(stop, chosen, mode="fill", fill_value=False)
    return _Loop(
      length=state.length + 1,
      tokens=jax.lax.dynamic_update_slice(state.tokens, chosen[:, None], (0, state.length)),
      last=chosen,
      scores=state.scores + jnp.where(state.ended, 0.0, gained),
      ended=ended,
      cache=cache,
    )

  start = _Loop(
    length=jnp.zeros((), jnp.int32),
    tokens=jnp.full((rows, max_length), behind, jnp.int32),
    last=jnp.full((rows,), ids.pad, jnp.int32),
    scores=jnp.zeros((rows,), jnp.float32),
    ended=jnp.zeros((rows,), bool),
    cache=None,
  )
  end = jax.lax.while_loop(
    lambda state: (state.length < max_length) & ~state.ended.all(),
    lambda state: extend(state, *model.decode_step(state.last, state.cache)),
    extend(start, logits, cache),
  )
  tokens = end.tokens.reshape(examples, copies, max_length)  # [(B W) T] -> [B W T]
  scores = end.scores.reshape(examples, copies)
  # Stable: equal samples stay in the order in which they were drawn.
  order = jnp.argsort(-scores, axis=-1, stable=True)
  return (
    jnp.take_along_axis(tokens, order[:, :, None], axis=1),
    jnp.take_along_axis(scores, order, axis=1),
  )


def truncated(logits: Float[Array, "R V"], strategy: Sample) -> Float[Array, "R V"]:
  """Logits divided by the temperature, with -inf where top-k and top-p leave nothing.

  The most probable token always stays.
  """
  # float32 first: divided in bfloat16, close logits would become equal.
  logits = logits.astype(jnp.float32) / strategy.temperature
  top_k = min(strategy.top_k, logits.shape[-1])
  if top_k:
    # By value, not by rank: of equal logits none is cut because its id is larger.
    worst = jax.lax.top_k(logits, top_k)[0][:, -1:]
    logits = jnp.where(logits >= worst, logits, -jnp.inf)
  if strategy.top_p < 1:
    ranked = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    probabilities = jax.nn.softmax(ranked, axis=-1)
    # The mass of the more probable ones: the token that reaches p stays, and so does the first.
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    stays = (before < strategy.top_p) & (probabilities > 0)
    worst = jnp.min(jnp.where(stays, ranked, jnp.inf), axis=-1, keepdims=True)
    logits = jnp.where(logits >= worst, logits, -jnp.inf)
  return logits
