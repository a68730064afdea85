"""T5's relative positions: a learned bias per head and distance bucket, added to attention scores.

Near distances have a bucket each, far ones share buckets that grow logarithmically, and all
distances from `max_distance` on share the last one (Raffel et al., 2020, arXiv:1910.10683).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax.types import Array


class RelativePositionBias(nnx.Module):
  """A table [H, buckets] that is read by the distance of key and query."""

  def __init__(
    self,
    heads: int,
    *,
    rngs: nnx.Rngs,
    buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool,
    param_dtype: str = "float32",
  ):
    """`bidirectional` gives half of the buckets to keys after the query (encoders)."""
    initializer = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
    self.rel_embedding = nnx.Param(
      initializer(rngs.params(), (heads, buckets), jnp.dtype(param_dtype))
    )
    self.max_distance = max_distance
    self.bidirectional = bidirectional

  def __call__(self, queries: int, keys: int, *, offset: int = 0) -> Array:
    """Bias [1 H Q L] float32 of `keys` positions, the first `offset` of them before query 0."""
    heads = self.rel_embedding.shape[0]
    # A Toeplitz matrix: row i holds the bias of distances -i-offset, ..., and the next row is
    # shifted by one.  Repeating a vector that is one longer than a row shifts it for free, which
    # avoids a [Q, L] gather and its slow scatter in the backward pass.
    period = queries + keys
    relative = np.arange(period)
    relative = np.where(relative < keys, relative, relative - period) - offset
    by_distance = self.by_distance(relative)  # [H period]
    repeated = jnp.broadcast_to(by_distance[:, None, :], (heads, queries, period))
    flat = repeated.reshape(heads, -1)[:, : queries * (period - 1)]
    return flat.reshape(1, heads, queries, period - 1)[..., :keys]

  def by_distance(self, relative: np.ndarray) -> Array:
    """Bias [H L] float32 of the given key positions minus query positions, known when traced."""
    table = self.rel_embedding[...].astype(jnp.float32)
    buckets = relative_position_bucket(
      relative,
      buckets=table.shape[-1],
      max_distance=self.max_distance,
      bidirectional=self.bidirectional,
    )
    one_hot = np.equal(np.arange(table.shape[-1])[:, None], buckets).astype(np.float32)
    return jnp.matmul(table, one_hot, precision=jax.lax.Precision.HIGHEST)


def relative_position_bucket(
  relative: np.ndarray, *, buckets: int, max_distance: int, bidirectional: bool
) -> np.ndarray:
  """Bucket numbers of key positions minus query positions, shape kept.

  Computed with numpy when the program is traced: lengths are static, so XLA never sees the
  logarithm, whose rounding differs between platforms at the bucket borders.
  """
  relative = np.asarray(relative)
  first = np.zeros(relative.shape, np.int32)
  if bidirectional:
    buckets //= 2
    first = np.where(relative > 0, buckets, 0).astype(np.int32)
    distance = np.abs(relative)
  else:
    distance = np.maximum(-relative, 0)  # later keys are masked anyway
  exact = buckets // 2
  ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
  growth = np.log(ratio) / np.float32(np.log(max_distance / exact))
  far = exact + (growth * np.float32(buckets - exact)).astype(np.int32)
  return first + np.where(distance < exact, distance, np.minimum(far, buckets - 1)).astype(np.int32)
