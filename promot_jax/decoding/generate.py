"""The one function that turns a model and a batch into tokens, compiled once per kind of model.

The compiled program depends on the model's structure, the strategy, the lengths and the shapes of
the batch.  Weights are arguments, so other checkpoints and other batches reuse it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from promot_jax import errors
from promot_jax.decoding import beam_search, sampling
from promot_jax.decoding.strategies import Beam, Sample, Strategy, TransformersBeam
from promot_jax.models.backbone import require_writer
from promot_jax.models.preparation import prepare
from promot_jax.token_ids import TokenIds, as_tuple
from promot_jax.types import Array, Float, Int, Key

# Targets say nothing about decoding; without them a batch with and one without are the same shapes.
_TARGETS = ("decoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeResult:
  """Outputs of a batch, best first.

  tokens: int32, padding after the token that ended it; W is 1, the width of the beam, or the samples.
  scores: float32.  Greedy and Sample: the model's log p of the tokens, EOS included and
    neither tempered nor cut.  Beam: log p over the brevity penalty, or log p itself where no
    hypothesis of an example ended within T tokens; below -1e6 where there are fewer than W.
    TransformersBeam: log p over the length's power.  Tokens that the model's configuration forces
    count 0.
  """

  tokens: Int[Array, "B W T"]
  scores: Float[Array, "B W"]


def generate(
  model: nnx.Module,
  batch: Mapping[str, Any],
  *,
  strategy: Strategy,
  max_length: int,
  key: Key | None = None,
  eos: int | Sequence[int] | None = None,
  pad: int | None = None,
  stop: Sequence[int] = (),
) -> DecodeResult:
  """Decodes until every row has ended or has `max_length` tokens.

  Args:
    model: a `Decodable`.  Its `token_ids` say which tokens end and pad an output and which ones are
      forced.
    batch: arrays [B, ...] that the model's `prefill` reads; targets are ignored.
    strategy: Greedy(), Beam(...), TransformersBeam(...) or Sample(...).
    max_length: T, the largest number of generated tokens, EOS included.
    key: random key; needed by Sample and ignored by the others.
    eos: id that ends a sequence, or ids of which each does, if not the model's.
    pad: id of the positions after it, if not the model's.
    stop: ids of tokens behind which nobody reads on, though the model may go on: a row that has one is
      ended, and its score is that of the tokens up to there.  A beam's hypotheses go on, since what is
      behind decides which of them wins.

  Raises:
    ConfigError: no length to generate, or no key to sample with, or the model is an encoder alone.
  """
  require_writer(model, "prefill")
  if max_length < 1:
    raise errors.ConfigError(f"max_length is {max_length}; generate at least one token.")
  if isinstance(strategy, Sample) and key is None:
    raise errors.ConfigError(
      "Sample draws random tokens and needs a key; pass jax.random.key(seed)."
    )
  # What the caller asks for is laid over what the model says.
  own = TokenIds.of(model)
  ids = dataclasses.replace(
    own,
    output_ends=own.ends if eos is None else as_tuple(eos),
    pad=own.pad if pad is None else pad,
  )
  stops = None
  if stop and not isinstance(strategy, Beam | TransformersBeam):
    # An array and no static value: other tokens of the same range compile nothing anew.
    stops = np.zeros(max(stop) + 1, bool)
    stops[list(stop)] = True
  graphdef, state = nnx.split(model)
  batch = {name: array for name, array in batch.items() if name not in _TARGETS}
  tokens, scores = compiled(
    state,
    batch,
    # None where nothing is drawn: calls with and without a key would be two programs.
    key if isinstance(strategy, Sample) else None,
    stops,
    graphdef=graphdef,
    strategy=strategy,
    max_length=max_length,
    ids=ids,
  )
  return DecodeResult(tokens=tokens, scores=scores)


def _decode(state, batch, key, stop, *, graphdef, strategy, max_length, ids):
  # Before the loop, so that what methods compute is computed once.
  model = prepare(nnx.merge(graphdef, state), batch)
  options = {"strategy": strategy, "max_length": max_length, "key": key, "ids": ids}
  if isinstance(strategy, Beam | TransformersBeam):
    return beam_search.decode(model, batch, **options)
  return sampling.decode(model, batch, stop=stop, **options)


compiled = jax.jit(_decode, static_argnames=("graphdef", "strategy", "max_length", "ids"))
"""The compiled programs; `compiled._cache_size()` counts them."""
