"""Beam search with T5X's rules, which its users' published figures depend on.

Of each example the `width` best unfinished hypotheses live on, ranked by log p.  A step looks at
the 2 * width best continuations, so that width of them are left even if width end at once.  Those
that end compete, by log p over the brevity penalty ((5 + length) / 6)^alpha, for `width` places
among the finished.  The search is over when no living hypothesis could still win such a place, even
if it lost nothing more and had the largest penalty.  If nothing ended in time, the living ones are
returned with their log p.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from promot_jax.decoding.protocol import Decodable
from promot_jax.decoding.strategies import Beam

NOTHING = -1e7
"""Score of a place that no hypothesis has taken: finite, as differences of it must not be NaN."""


class _Loop(NamedTuple):
  """Best first in both groups; all hypotheses that live have `length` tokens."""

  length: jax.Array  # int32 []
  live_tokens: jax.Array  # int32 [B n T]
  live_scores: jax.Array  # float32 [B n], log p
  finished_tokens: jax.Array  # int32 [B n T]
  finished_scores: jax.Array  # float32 [B n], log p over the penalty
  finished: jax.Array  # bool [B n], whether the place is taken
  cache: Any  # of B * n rows


def decode(
  model: Decodable,
  batch: Any,
  *,
  strategy: Beam,
  max_length: int,
  eos: int,
  pad: int,
  key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Tokens [B n T] and scores [B n], best first; see `generate`.  `key` is not used."""
  width = strategy.width
  first_logits, cache = model.prefill(batch, max_length=max_length)
  examples, vocabulary = first_logits.shape

  def extend(state: _Loop, logits: jax.Array, cache: Any) -> _Loop:
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    log_p = log_p.reshape(examples, width, vocabulary) + state.live_scores[:, :, None]
    scores, parents, tokens = _best_continuations(log_p, 2 * width)
    # What continues an empty place can end too, but is no hypothesis.
    ends = (tokens == eos) & _real(scores)
    hypotheses = jax.lax.dynamic_update_slice(
      _take(state.live_tokens, parents), tokens[:, :, None], (0, 0, state.length)
    )  # [B 2n T]

    live_scores, kept = jax.lax.top_k(scores + jnp.where(ends, NOTHING, 0.0), width)
    live_parents = _take(parents, kept)  # [B n]
    rows = (jnp.arange(examples)[:, None] * width + live_parents).reshape(-1)

    ended_scores = scores / _penalty(strategy.alpha, state.length + 1)
    ended_scores = ended_scores + jnp.where(ends, 0.0, NOTHING)
    candidates = jnp.concatenate([state.finished_scores, ended_scores], axis=1)  # [B 3n]
    finished_scores, best = jax.lax.top_k(candidates, width)
    return _Loop(
      length=state.length + 1,
      live_tokens=_take(hypotheses, kept),
      live_scores=live_scores,
      finished_tokens=_take(jnp.concatenate([state.finished_tokens, hypotheses], axis=1), best),
      finished_scores=finished_scores,
      finished=_take(jnp.concatenate([state.finished, ends], axis=1), best),
      cache=cache.reorder(rows),
    )

  def can_improve(state: _Loop) -> jax.Array:
    # T5X counts the start token here, so its bound is a little more patient than needed.
    reachable = state.live_scores[:, 0] / _penalty(strategy.alpha, max_length + 1)  # [B]
    worst = jnp.where(state.finished.all(axis=1), state.finished_scores.min(axis=1), NOTHING)
    return (state.length < max_length) & ~(worst > reachable).all()

  empty = jnp.full((examples, width, max_length), pad, jnp.int32)
  start = _Loop(
    length=jnp.zeros((), jnp.int32),
    live_tokens=empty,
    # All beams are the same at first: only one of them may have continuations.
    live_scores=jnp.full((examples, width), NOTHING).at[:, 0].set(0.0),
    finished_tokens=empty,
    finished_scores=jnp.full((examples, width), NOTHING),
    finished=jnp.zeros((examples, width), bool),
    cache=None,
  )
  end = jax.lax.while_loop(
    can_improve,
    lambda state: extend(
      state, *model.decode_step(state.live_tokens[:, :, state.length - 1].reshape(-1), state.cache)
    ),
    extend(start, jnp.repeat(first_logits, width, axis=0), cache.repeat(width)),
  )
  any_finished = end.finished.any(axis=1)[:, None]
  scores = jnp.where(any_finished, end.finished_scores, end.live_scores)
  tokens = jnp.where(any_finished[:, :, None], end.finished_tokens, end.live_tokens)
  return jnp.where(_real(scores)[:, :, None], tokens, pad), scores


def _real(scores: jax.Array) -> jax.Array:
  """Whether a score belongs to a hypothesis; no log p comes near NOTHING."""
  return scores > NOTHING / 100


def _best_continuations(log_p: jax.Array, number: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The best of all [B n V]: scores, beams they continue and tokens, each [B, number].

  The best of each beam first, then the best of those: no copy of n * V scores is sorted at once.
  Equal scores are ranked by beam, then by token, as if it were.
  """
  examples, width, vocabulary = log_p.shape
  few = min(number, vocabulary)
  scores, tokens = jax.lax.top_k(log_p, few)  # [B n few]
  scores, places = jax.lax.top_k(scores.reshape(examples, -1), min(number, width * few))
  tokens = _take(tokens.reshape(examples, -1), places)
  parents = places // few
  short = number - places.shape[1]  # only with a vocabulary of one token
  if short:
    scores = jnp.pad(scores, ((0, 0), (0, short)), constant_values=NOTHING)
    tokens, parents = (jnp.pad(x, ((0, 0), (0, short))) for x in (tokens, parents))
  return scores, parents, tokens


def _take(array: jax.Array, indices: jax.Array) -> jax.Array:
  """array [B m ...] at indices [B k] of its second axis -> [B k ...]."""
  extra = (None,) * (array.ndim - 2)
  return jnp.take_along_axis(array, indices[(..., *extra)], axis=1)


def _penalty(alpha: float, length: jax.Array | int) -> jax.Array:
  """Wu et al., 2016, arXiv:1609.08144, equation 14."""
  return ((5.0 + length) / 6.0) ** alpha
