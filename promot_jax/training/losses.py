"""Token cross-entropy with T5X's numerics, also for vocabularies too large for whole logits.

For logits l [V] of one token with target t, Z = sum(exp(l)) and smoothing s:

  soft target   q_t = 1 - s,   q_other = s / (V - 1)
  cross-entropy = log Z - sum(q * l) - H(q)      (H(q) subtracted, so that the optimum is 0)
  z-loss        = z * (log Z)^2                  (keeps logits from drifting)

All of it follows from four numbers a token (`TokenStatistics`), which can be gathered over chunks
of the vocabulary: `cross_entropy(..., chunk=8192)` scans over chunks and recomputes each chunk's
logits in the backward pass, so that an array [tokens, V] never exists.  Reference for the
numerics: google-research/t5x, `t5x/losses.py`.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from promot_jax import errors


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LossTerms:
  """Weighted sums over the tokens of a batch; float32 scalars.

  cross_entropy: without z-loss, with the label-smoothing constant subtracted.
  z_loss: already multiplied by its coefficient.
  weight: sum of the weights.
  correct: sum of the weights of tokens whose arg-max is the target.
  """

  cross_entropy: jax.Array
  z_loss: jax.Array
  weight: jax.Array
  correct: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenStatistics:
  """What a loss needs to know of a token's logits; every field has the shape of the targets.

  log_z: logsumexp of the logits, float32.
  target_logit: the target's logit, float32.
  logit_sum: sum of all logits, float32 (label smoothing needs it).
  best: id of the largest logit, the smallest id on ties, int32; no gradient.
  """

  log_z: jax.Array
  target_logit: jax.Array
  logit_sum: jax.Array
  best: jax.Array


def cross_entropy(
  hidden: jax.Array,
  kernel: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  *,
  scale: float = 1.0,
  bias: jax.Array | None = None,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
  chunk: int | None = None,
) -> LossTerms:
  """Loss sums of targets [..., T] given the last hidden states [..., T, D].

  Args:
    hidden: hidden states [..., T, D], any float type.
    kernel: output projection [D, V], any float type; logits are float32.
    targets: token ids [..., T].
    weights: [..., T], 0 for padding.
    scale: factor on the logits (tied embeddings).
    bias: [V], added to the scaled logits (BART); None: none is.
    label_smoothing: probability mass taken from the target, in [0, 1).
    z_loss: coefficient of log(Z)^2.
    chunk: largest number of logits a token that exist at once, over all devices; None = all of
      them.  Under a mesh of n parts of the vocabulary, at least n times what one device should
      hold.
  """
  statistics = token_statistics(hidden, kernel, targets, scale=scale, bias=bias, chunk=chunk)
  return weighted_terms(
    statistics,
    targets,
    weights,
    vocabulary_size=kernel.shape[-1],
    label_smoothing=label_smoothing,
    z_loss=z_loss,
  )


def cross_entropy_of_logits(
  logits: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> LossTerms:
  """`cross_entropy` for a model that already gives logits [..., T, V]."""
  return weighted_terms(
    logits_statistics(logits, targets),
    targets,
    weights,
    vocabulary_size=logits.shape[-1],
    label_smoothing=label_smoothing,
    z_loss=z_loss,
  )


def token_statistics(
  hidden: jax.Array,
  kernel: jax.Array,
  targets: jax.Array,
  *,
  scale: float = 1.0,
  bias: jax.Array | None = None,
  chunk: int | None = None,
) -> TokenStatistics:
  """Statistics of logits = scale * hidden @ kernel + bias; arguments as in `cross_entropy`.

  Raises:
    ConfigError: `chunk` is not positive.
  """
  if chunk is None or chunk >= kernel.shape[-1]:
    return logits_statistics(_logits(hidden, kernel, scale, bias), targets)
  if chunk < 1:
    raise errors.ConfigError(f"chunk={chunk}: the vocabulary chunk must hold at least one token.")
  return _chunked_statistics(hidden, kernel, targets, scale=scale, bias=bias, chunk=chunk)


def logits_statistics(logits: jax.Array, targets: jax.Array) -> TokenStatistics:
  """Statistics of whole logits [..., T, V]."""
  logits = logits.astype(jnp.float32)  # softmax and z-loss need the range
  ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
  total = jnp.exp(logits - largest).sum(axis=-1)
  # A masked sum instead of a gather: its gradient is a mask that XLA fuses, not a scatter.
  is_target = ids == targets[..., None]
  return TokenStatistics(
    log_z=jnp.log(total) + largest[..., 0],
    target_logit=jnp.where(is_target, logits, 0.0).sum(axis=-1),
    logit_sum=logits.sum(axis=-1),
    # A minimum instead of an arg-max: a plain reduction is vectorized on every backend.
    best=jnp.where(logits == largest, ids, logits.shape[-1]).min(axis=-1),
  )


def weighted_terms(
  statistics: TokenStatistics,
  targets: jax.Array,
  weights: jax.Array,
  *,
  vocabulary_size: int,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> LossTerms:
  """Loss sums from token statistics.

  Raises:
    ConfigError: `label_smoothing` is outside [0, 1).
  """
  if not 0.0 <= label_smoothing < 1.0:
    raise errors.ConfigError(f"label_smoothing={label_smoothing} must be at least 0 and below 1.")
  weights = weights.astype(jnp.float32)
  others = vocabulary_size - 1
  confidence = 1.0 - label_smoothing
  rest = label_smoothing / others if others else 0.0
  expected_logit = confidence * statistics.target_logit
  if label_smoothing:
    expected_logit += rest * (statistics.logit_sum - statistics.target_logit)
  # T5X adds 1e-20 so that the term is 0 without smoothing.
  entropy = -(confidence * math.log(confidence) + others * rest * math.log(rest + 1e-20))
  token_loss = statistics.log_z - expected_logit - entropy
  return LossTerms(
    cross_entropy=(token_loss * weights).sum(),
    z_loss=(z_loss * jnp.square(statistics.log_z) * weights).sum(),
    weight=weights.sum(),
    correct=((statistics.best == targets) * weights).sum(),
  )


# --- Vocabulary chunks ----------------------------------------------------------------------------


def _chunked_statistics(
  hidden: jax.Array,
  kernel: jax.Array,
  targets: jax.Array,
  *,
  scale: float,
  bias: jax.Array | None,
  chunk: int,
) -> TokenStatistics:
  """Online logsumexp over chunks of the vocabulary, each recomputed in the backward pass."""
  width, vocabulary_size = kernel.shape
  groups, chunks, run = _chunk_plan(vocabulary_size, chunk)
  padding = groups * chunks * run - vocabulary_size
  if padding:
    kernel = jnp.pad(kernel, ((0, 0), (0, padding)))
    bias = None if bias is None else jnp.pad(bias, (0, padding))
  # Chunk c holds `run` neighbours out of each of the `groups` parts of the vocabulary, so that a
  # kernel sharded over the vocabulary gives every device an equal share of every chunk.
  kernels = jnp.moveaxis(kernel.reshape(width, groups, chunks, run), 2, 0)  # [C D G R]
  biases = None
  if bias is not None:
    biases = jnp.moveaxis(bias.reshape(groups, chunks, run), 1, 0).reshape(chunks, -1)  # [C (G R)]
  first = jnp.arange(groups, dtype=jnp.int32)[:, None] * (chunks * run)
  neighbours = jnp.arange(run, dtype=jnp.int32)[None, :]

  def scan_chunk(statistics, inputs):
    index, chunk_kernel, chunk_bias = inputs
    ids = (first + index * run + neighbours).reshape(-1)  # [G R] -> [(G R)]
    logits = _logits(hidden, chunk_kernel.reshape(width, -1), scale, chunk_bias)
    is_real = ids < vocabulary_size
    masked = jnp.where(is_real, logits, -jnp.inf) if padding else logits
    chunk_largest = jax.lax.stop_gradient(masked.max(axis=-1))
    largest = jnp.maximum(statistics["largest"], chunk_largest)
    total = statistics["total"] * jnp.exp(statistics["largest"] - largest)
    total += jnp.exp(masked - largest[..., None]).sum(axis=-1)
    is_target = ids == targets[..., None]
    target_logit = statistics["target_logit"] + jnp.where(is_target, logits, 0.0).sum(axis=-1)
    real_logits = jnp.where(is_real, logits, 0.0) if padding else logits
    candidate = jnp.where(masked == chunk_largest[..., None], ids, vocabulary_size).min(axis=-1)
    best = jnp.where(
      chunk_largest > statistics["largest"],
      candidate,
      jnp.where(
        chunk_largest == statistics["largest"],
        jnp.minimum(candidate, statistics["best"]),
        statistics["best"],
      ),
    )
    return {
      "largest": largest,
      "total": total,
      "target_logit": target_logit,
      "logit_sum": statistics["logit_sum"] + real_logits.sum(axis=-1),
      "best": best,
    }, None

  zeros = jnp.zeros(targets.shape, jnp.float32)
  start = {
    # The lowest finite number, because -inf - (-inf) would be NaN in a chunk of padding only.
    "largest": jnp.full(targets.shape, jnp.finfo(jnp.float32).min),
    "total": zeros,
    "target_logit": zeros,
    "logit_sum": zeros,
    "best": jnp.full(targets.shape, vocabulary_size, jnp.int32),
  }
  indices = jnp.arange(chunks, dtype=jnp.int32)
  inputs = (indices, kernels, biases)
  end, _ = jax.lax.scan(jax.checkpoint(scan_chunk, prevent_cse=False), start, inputs)
  return TokenStatistics(
    log_z=jnp.log(end["total"]) + end["largest"],
    target_logit=end["target_logit"],
    logit_sum=end["logit_sum"],
    best=end["best"],
  )


def _chunk_plan(vocabulary_size: int, chunk: int) -> tuple[int, int, int]:
  """(groups, chunks, run) with groups * run <= chunk and the product at least the vocabulary.

  The number of chunks is raised a little (at most doubled) where that makes it divide the
  vocabulary, because padding copies the kernel.  Groups are a power of two: mesh axes are too.
  """
  fewest = math.ceil(vocabulary_size / chunk)
  chunks = next(
    (count for count in range(fewest, 2 * fewest + 1) if vocabulary_size % count == 0), fewest
  )
  size = math.ceil(vocabulary_size / chunks)
  groups = math.gcd(size, 64)
  return groups, chunks, size // groups


def _logits(
  hidden: jax.Array, kernel: jax.Array, scale: float, bias: jax.Array | None
) -> jax.Array:
  """scale * hidden @ kernel + bias in float32.

  Equal types are multiplied as they are, since products of bfloat16 are exact in the float32 sums.
  """
  if hidden.dtype != kernel.dtype:
    hidden, kernel = hidden.astype(jnp.float32), kernel.astype(jnp.float32)
  # One axis of tokens: see models/layers.py `product`.
  tokens = hidden.reshape(-1, hidden.shape[-1])
  logits = jnp.matmul(tokens, kernel, preferred_element_type=jnp.float32)
  logits = logits.reshape(*hidden.shape[:-1], -1)
  logits = logits if scale == 1.0 else logits * scale
  return logits if bias is None else logits + bias.astype(jnp.float32)
