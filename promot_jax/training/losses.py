"""Token cross-entropy with T5X's numerics, also for vocabularies too large for whole logits.

For logits l [V] of one token with target t, Z = sum(exp(l)) and smoothing s:

  soft target   q_t = 1 - s,   q_other = s / (V - 1)
  cross-entropy = log Z - sum(q * l) - H(q)      (H(q) subtracted, so that the optimum is 0)
  z-loss        = z * (log Z)^2                  (keeps logits from drifting)

All of it follows from four numbers a token (`TokenStatistics`), which `Readout.fold` gathers over parts
of the vocabulary: with `chunk=8192` an array [tokens, V] never exists.  Reference for the numerics:
google-research/t5x, `t5x/losses.py`.
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from promot_jax import errors
from promot_jax.models.readout import LogSum, Part, Readout
from promot_jax.types import Array, Float, Int

TokenFactor = Literal["one", "probability"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LossTerms:
  """Weighted sums over the tokens of a batch; float32 scalars.

  cross_entropy: without z-loss, with the label-smoothing constant subtracted.
  minimized: the same with each token's loss times its factor; equal where tokens count alike.
  z_loss: already multiplied by its coefficient.
  weight: sum of the weights.
  correct: sum of the weights of tokens whose arg-max is the target.
  """

  cross_entropy: Float[Array, ""]
  minimized: Float[Array, ""]
  z_loss: Float[Array, ""]
  weight: Float[Array, ""]
  correct: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenStatistics:
  """What a loss needs to know of a token's logits; every field has the shape of the targets.

  log_sum: of all logits.
  target_logit: the target's logit, float32.
  logit_sum: sum of all logits, float32 (label smoothing needs it).
  best: id of the largest logit, the smallest id on ties, int32; no gradient.
  """

  log_sum: LogSum
  target_logit: Float[Array, "... T"]
  logit_sum: Float[Array, "... T"]
  best: Int[Array, "... T"]

  @classmethod
  def of(
    cls, part: Part, logits: Float[Array, "... T C"], targets: Int[Array, "... T"], *, size: int
  ) -> "TokenStatistics":
    """Of the logits of a part of a vocabulary of `size` tokens."""
    log_sum = LogSum.of(logits)
    # A masked sum instead of a gather: its gradient is a mask that XLA fuses, not a scatter.
    is_target = part.ids == targets[..., None]
    is_largest = logits == log_sum.largest[..., None]
    return cls(
      log_sum=log_sum,
      target_logit=jnp.where(is_target, logits, 0.0).sum(axis=-1),
      logit_sum=part.of_tokens(logits).sum(axis=-1),
      # A minimum instead of an arg-max: a plain reduction is vectorized on every backend.
      best=jnp.where(is_largest, part.ids, size).min(axis=-1),
    )

  @classmethod
  def of_nothing(cls, shape: tuple[int, ...], *, size: int) -> "TokenStatistics":
    """Of no token of the vocabulary."""
    zeros = jnp.zeros(shape, jnp.float32)
    return cls(
      log_sum=LogSum.of_nothing(shape),
      target_logit=zeros,
      logit_sum=zeros,
      best=jnp.full(shape, size, jnp.int32),
    )

  def merge(self, other: "TokenStatistics") -> "TokenStatistics":
    """Of the tokens of both parts."""
    # On equal logits the smaller id, as an arg-max over whole logits would give.
    ahead = self.log_sum.largest - other.log_sum.largest
    smaller_id = jnp.minimum(self.best, other.best)  # parts interleave, so either may have it
    return TokenStatistics(
      log_sum=self.log_sum.merge(other.log_sum),
      target_logit=self.target_logit + other.target_logit,
      logit_sum=self.logit_sum + other.logit_sum,
      best=jnp.where(ahead > 0, self.best, jnp.where(ahead < 0, other.best, smaller_id)),
    )

  @property
  def log_z(self) -> Float[Array, "... T"]:
    """log Z."""
    return self.log_sum.value


def cross_entropy(
  readout: Readout,
  hidden: Float[Array, "... T D"],
  targets: Int[Array, "... T"],
  weights: Float[Array, "... T"],
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
  factor: TokenFactor = "one",
  chunk: int | None = None,
) -> LossTerms:
  """Loss sums of targets given the last hidden states.

  Args:
    readout: gives the logits of hidden states.
    hidden: of any float type.
    targets: token ids.
    weights: 0 for padding.
    label_smoothing: probability mass taken from the target, in [0, 1).
    z_loss: coefficient of log(Z)^2.
    factor: of each token's cross-entropy: 'one', or its own 'probability', through which no gradient goes.
    chunk: largest number of logits a token that exist at once; see `Readout.fold`.

  Raises:
    ConfigError: `chunk` is not positive, or `label_smoothing` is outside [0, 1).
  """
  return weighted_terms(
    token_statistics(readout, hidden, targets, chunk=chunk),
    targets,
    weights,
    vocabulary_size=readout.size,
    label_smoothing=label_smoothing,
    z_loss=z_loss,
    factor=factor,
  )


def token_statistics(
  readout: Readout,
  hidden: Float[Array, "... T D"],
  targets: Int[Array, "... T"],
  *,
  chunk: int | None = None,
) -> TokenStatistics:
  """Statistics of the logits of hidden states; arguments as in `cross_entropy`."""

  return readout.fold(
    hidden,
    lambda part, logits: TokenStatistics.of(part, logits, targets, size=readout.size),
    TokenStatistics.merge,
    TokenStatistics.of_nothing(targets.shape, size=readout.size),
    chunk=chunk,
  )


def weighted_terms(
  statistics: TokenStatistics,
  targets: Int[Array, "... T"],
  weights: Float[Array, "... T"],
  *,
  vocabulary_size: int,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
  factor: TokenFactor = "one",
) -> LossTerms:
  """Loss sums from token statistics; arguments as in `cross_entropy`.

  Raises:
    ConfigError: `label_smoothing` is outside [0, 1).
  """
  if not 0.0 <= label_smoothing < 1.0:
    raise errors.ConfigError(f"label_smoothing={label_smoothing} must be at least 0 and below 1.")
  # Sums over a whole batch: bfloat16 counts exactly up to 256 only.
  weights = weights.astype(jnp.float32)
  others = vocabulary_size - 1
  confidence = 1.0 - label_smoothing
  # A vocabulary of one token has nobody to give the rest to.
  rest = label_smoothing / others if others else 0.0
  expected_logit = confidence * statistics.target_logit
  # Without smoothing the sum over all logits stays unused: the compiler may leave it out.
  if label_smoothing:
    expected_logit += rest * (statistics.logit_sum - statistics.target_logit)
  # T5X adds 1e-20 so that the term is 0 without smoothing.
  entropy = -(confidence * math.log(confidence) + others * rest * math.log(rest + 1e-20))
  token_loss = statistics.log_z - expected_logit - entropy
  cross_entropy = minimized = (token_loss * weights).sum()
  if factor == "probability":
    probability = jax.lax.stop_gradient(jnp.exp(statistics.target_logit - statistics.log_z))
    minimized = (probability * token_loss * weights).sum()
  return LossTerms(
    cross_entropy=cross_entropy,
    minimized=minimized,
    z_loss=(z_loss * jnp.square(statistics.log_z) * weights).sum(),
    weight=weights.sum(),
    correct=((statistics.best == targets) * weights).sum(),
  )
