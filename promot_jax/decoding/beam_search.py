"""Beam search with T5X's rules or with transformers'; published figures depend on which.

Of each example the `width` best unfinished hypotheses live on, ranked by log p.  A step looks at
the (1 + ends) * width best continuations (C; at least 2 * width), so that width of them are left even
if each hypothesis ends by each of the ids that end an output.  Those that end compete, by log p over a penalty of their length, for `width` places among the finished.

                  T5X (`Beam`)                        transformers (`TransformersBeam`)
penalty           ((5 + length) / 6)^alpha            length^length_penalty
may end           all of these                        the best width of them
greatest length   the living are returned, with       the best width count as ended
                  their log p, if nothing ended
the end           no living hypothesis of any         for each example: none is better than all
                  example could win a place with      `width` ended ones by its present length (or
                  the largest penalty                 another rule, see `early_stopping`)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from promot_jax.decoding.forced_tokens import is_end, with_forced_tokens
from promot_jax.decoding.strategies import Beam, TransformersBeam
from promot_jax.models.backbone import Decodable
from promot_jax.token_ids import TokenIds
from promot_jax.types import Array, Bool, Float, Int, Key, Shaped

NOTHING = -1e7
"""Score of a place that no hypothesis has taken: finite, as differences of it must not be NaN."""


class _Loop(NamedTuple):
  """Best first in both groups; all hypotheses that live have `length` tokens."""

  length: Int[Array, ""]
  live_tokens: Int[Array, "B W T"]
  live_scores: Float[Array, "B W"]  # log p
  finished_tokens: Int[Array, "B W T"]
  finished_scores: Float[Array, "B W"]  # log p over the penalty
  finished: Bool[Array, "B W"]  # whether the place is taken
  open: Bool[Array, "B"]  # whether a place may still be won
  cache: Any  # of R = B * W rows


def decode(
  model: Decodable,
  batch: Any,
  *,
  strategy: Beam | TransformersBeam,
  max_length: int,
  ids: TokenIds,
  key: Key | None = None,
) -> tuple[Int[Array, "B W T"], Float[Array, "B W"]]:
  """Tokens and scores, best first; see `generate`.  `key` is not used."""
  width = strategy.width
  # As many as can end at once, and `width` more that live on.
  seen = max(2, 1 + len(ids.ends)) * width
  first_logits, cache = model.prefill(batch, max_length=max_length)
  examples, vocabulary = first_logits.shape

  def extend(state: _Loop, logits: Float[Array, "R V"], cache: Any) -> _Loop:
    # Candidates: every living hypothesis with every token.
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    log_p = with_forced_tokens(log_p, state.length, max_length=max_length, ids=ids)
    log_p = jnp.maximum(log_p, NOTHING)  # finite
    log_p = log_p.reshape(examples, width, vocabulary) + state.live_scores[:, :, None]
    scores, parents, tokens = _best_continuations(log_p, seen)
    # What continues an empty place can end too, but is no hypothesis.
    ends = is_end(tokens, ids) & _real(scores)
    wins = ends
    if isinstance(strategy, TransformersBeam):
      wins = (ends | (_real(scores) & (state.length + 1 == max_length))) & state.open[:, None]
      wins = wins & (jnp.arange(seen) < width)
    hypotheses = jax.lax.dynamic_update_slice(
      _take(state.live_tokens, parents), tokens[:, :, None], (0, 0, state.length)
    )  # [B C T]

    # Those that live on.  Ended ones sink below the others, of which `seen` always leaves `width`.
    live_scores, kept = jax.lax.top_k(scores + jnp.where(ends, NOTHING, 0.0), width)
    live_parents = _take(parents, kept)  # [B W]
    # In the flat rows of the cache an example's beams lie side by side.
    rows = (jnp.arange(examples)[:, None] * width + live_parents).reshape(-1)

    # Those that have ended, against the ones that had before.
    ended_scores = scores / _penalty(strategy, state.length + 1)
    ended_scores = jnp.where(wins, ended_scores, NOTHING)
    candidates = jnp.concatenate([state.finished_scores, ended_scores], axis=1)  # [B W+C]
    finished_scores, best = jax.lax.top_k(candidates, width)
    state = _Loop(
      length=state.length + 1,
      live_tokens=_take(hypotheses, kept),
      live_scores=live_scores,
      finished_tokens=_take(jnp.concatenate([state.finished_tokens, hypotheses], axis=1), best),
      finished_scores=finished_scores,
      finished=_take(jnp.concatenate([state.finished, wins], axis=1), best),
      open=state.open,
      cache=cache.reorder(rows),
    )
    return state._replace(open=_still_open(state, strategy, max_length))

  empty = jnp.full((examples, width, max_length), ids.pad, jnp.int32)
  start = _Loop(
    length=jnp.zeros((), jnp.int32),
    live_tokens=empty,
    # All beams are the same at first: only one of them may have continuations.
    live_scores=jnp.full((examples, width), NOTHING).at[:, 0].set(0.0),
    finished_tokens=empty,
    finished_scores=jnp.full((examples, width), NOTHING),
    finished=jnp.zeros((examples, width), bool),
    open=jnp.ones((examples,), bool),
    cache=None,
  )
  end = jax.lax.while_loop(
    lambda state: (state.length < max_length) & state.open.any(),
    lambda state: extend(
      state, *model.decode_step(state.live_tokens[:, :, state.length - 1].reshape(-1), state.cache)
    ),
    # The first token comes from the input's logits: the loop begins with the second.
    extend(start, jnp.repeat(first_logits, width, axis=0), cache.repeat(width)),
  )
  # T5X's rule; with transformers' rules something has always ended, as the greatest length counts.
  any_finished = end.finished.any(axis=1)[:, None]
  scores = jnp.where(any_finished, end.finished_scores, end.live_scores)
  tokens = jnp.where(any_finished[:, :, None], end.finished_tokens, end.live_tokens)
  return jnp.where(_real(scores)[:, :, None], tokens, ids.pad), scores


def _still_open(
  state: _Loop, strategy: Beam | TransformersBeam, max_length: int
) -> Bool[Array, "B"]:
  """Whether a living hypothesis of an example could win a place among its finished ones."""
  full = state.finished.all(axis=1)
  # A free place can be won by anything.
  worst = jnp.where(full, state.finished_scores.min(axis=1), NOTHING)
  if isinstance(strategy, Beam):
    # T5X counts the start token here, so its bound is a little more patient than needed.
    reachable = state.live_scores[:, 0] / _penalty(strategy, max_length + 1)
    open_together = ~(worst > reachable).all()
    return jnp.broadcast_to(open_together, full.shape)
  longest = strategy.early_stopping == "never" and strategy.length_penalty > 0
  reachable = state.live_scores[:, 0] / _penalty(strategy, max_length if longest else state.length)
  still_open = state.open & (~full | (reachable > worst))
  return still_open & ~full if strategy.early_stopping is True else still_open


def _real(scores: Float[Array, "B W|C"]) -> Bool[Array, "B W|C"]:
  """Whether a score belongs to a hypothesis; no log p comes near NOTHING."""
  return scores > NOTHING / 100


def _best_continuations(
  log_p: Float[Array, "B W V"], number: int
) -> tuple[Float[Array, "B C"], Int[Array, "B C"], Int[Array, "B C"]]:
  """The C = `number` best of all: scores, beams that they continue, and tokens.

  The best of each beam first, then the best of those: no copy of W * V scores is sorted at once.
  Equal scores are ranked by beam, then by token, as if it were.
  """
  examples, width, vocabulary = log_p.shape
  few = min(number, vocabulary)
  scores, tokens = jax.lax.top_k(log_p, few)  # [B W few]
  scores, places = jax.lax.top_k(scores.reshape(examples, -1), min(number, width * few))
  tokens = _take(tokens.reshape(examples, -1), places)
  parents = places // few
  short = number - places.shape[1]  # only with a vocabulary of one token
  if short:
    scores = jnp.pad(scores, ((0, 0), (0, short)), constant_values=NOTHING)
    tokens, parents = (jnp.pad(x, ((0, 0), (0, short))) for x in (tokens, parents))
  return scores, parents, tokens


def _take(
  array: Shaped[Array, "B W|C ..."], indices: Int[Array, "B W|C"]
) -> Shaped[Array, "B ..."]:
  """The places of the second axis that the indices name, as many as there are indices."""
  extra = (None,) * (array.ndim - 2)
  return jnp.take_along_axis(array, indices[(..., *extra)], axis=1)


def _penalty(strategy: Beam | TransformersBeam, length: Int[Array, ""] | int) -> Float[Array, ""]:
  """What log p is divided by; T5X's: Wu et al., 2016, arXiv:1609.08144, equation 14."""
  if isinstance(strategy, Beam):
    return ((5.0 + length) / 6.0) ** strategy.alpha
  return jnp.asarray(length, jnp.float32) ** strategy.length_penalty
