"""What a decoder remembers between two steps, as plain pytrees: arguments and results, no state.

A learned prefix is put in front of the keys when attention runs and is never stored here, so caches,
beams and the decode loop do not know about methods.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from promot_jax.types import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class KVCache:
  """Keys and values of one attention; scanned stacks have a leading layer axis."""

  keys: Float[Array, "*N R H L K"]
  values: Float[Array, "*N R H L K"]

  def write(
    self,
    keys: Float[Array, "R H Q K"],
    values: Float[Array, "R H Q K"],
    position: Int[Array, ""],
  ) -> "KVCache":
    """Puts `keys` and `values` at positions `position`, ... of the length axis."""
    start = (0, 0, position, 0)
    return KVCache(
      keys=jax.lax.dynamic_update_slice(self.keys, keys.astype(self.keys.dtype), start),
      values=jax.lax.dynamic_update_slice(self.values, values.astype(self.values.dtype), start),
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeCache:
  """All that `decode_step` needs besides the model and the last tokens.

  `self_attention` and `cross_attention` are a tuple of one KVCache per layer, or one KVCache with a
  leading layer axis if the layers are scanned.  Self-attention has R rows; the memory that
  cross-attention reads has only one row per example, which the R / B rows of that example share.
  """

  self_attention: Any
  cross_attention: Any = None
  memory_mask: Bool[Array, "B S"] | None = None
  bias_by_distance: Float[Array, "H 2*L-1"] | None = None
  """Float32 position bias and causal mask of distances 1-L, ..., L-1."""
  layer_bias_by_distance: Any = None
  """What each layer adds to it, in the form of the caches; nothing where layers share their bias."""
  position: Int[Array, ""]
  """How many positions are written."""
  features: Mapping[str, Array] = dataclasses.field(default_factory=dict)
  """[B ...]: what methods read of the batch, by name; empty for a model that was prepared before."""

  def repeat(self, count: int) -> "DecodeCache":
    """Each row `count` times, side by side: rows of one example stay together."""
    return self._map_rows(lambda leaf, axis: jnp.repeat(leaf, count, axis=axis))

  def reorder(self, indices: Int[Array, "R"]) -> "DecodeCache":
    """Row r becomes a copy of row `indices[r]`, which must be of the same example."""
    # Rows come from our own search and exist: the default mode would mask what cannot happen.
    return self._map_rows(lambda leaf, axis: jnp.take(leaf, indices, axis=axis, mode="clip"))

  def _map_rows(self, function) -> "DecodeCache":
    rows_axis = -4  # [... R H L K], whether or not a layer axis is in front
    # The memory has a row for each example only, and rows never leave their example: it stays.
    moved = jax.tree.map(lambda leaf: function(leaf, leaf.ndim + rows_axis), self.self_attention)
    return dataclasses.replace(self, self_attention=moved)
