"""Multi-head attention without 1/sqrt(K) scaling (T5), and the slot for learned prefixes.

Keys and values have heads before positions, [B H L K]: both products of attention then read them as
they are.  With positions first, XLA transposes the whole cache at every step of a decode.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax.models.kv_cache import KVCache
from promot_jax.models.layers import Linear, dropout, fan_in_normal, split_key
from promot_jax.types import Array, Key

MASKED = -1e10
"""Bias of a position that must not be attended to.  Finite: a row without any key gives no NaN."""


class Attention(nnx.Module):
  """Queries from one sequence, keys and values from the same or another one.

  `prefix` is an empty slot.  A method fills it with a module that is called as

      keys, values, bias, mask = prefix(keys, values, bias, mask)

  with keys and values [B H L K], bias [1|B H Q L] or None, mask [1|B 1 1|Q L] or None, and returns
  them with its own P positions in front (`prepend` does that).  If it has an attribute `positions`
  > 0, the stack counts as many positions before position 0, and the bias it gets already covers
  them: [... Q P+L].
  """

  def __init__(
    self,
    width: int,
    heads: int,
    head_width: int,
    *,
    rngs: nnx.Rngs,
    dropout_rate: float = 0.0,
    param_dtype: str = "float32",
  ):
    inner = heads * head_width

    def query_initializer(key, shape, dtype):
      # T5 folds attention's 1/sqrt(K) into the initial query weights.
      return fan_in_normal(key, shape, dtype) * jnp.asarray(head_width**-0.5, dtype)

    self.query = Linear(
      width, inner, rngs=rngs, initializer=query_initializer, param_dtype=param_dtype
    )
    self.key = Linear(width, inner, rngs=rngs, param_dtype=param_dtype)
    self.value = Linear(width, inner, rngs=rngs, param_dtype=param_dtype)
    self.out = Linear(inner, width, rngs=rngs, param_dtype=param_dtype)
    self.prefix = nnx.data(None)
    self.heads = heads
    self.dropout_rate = dropout_rate

  def __call__(
    self,
    x: Array,
    memory: KVCache,
    *,
    bias: Array | None = None,
    mask: Array | None = None,
    key: Key | None = None,
  ) -> Array:
    """[B Q D] and projected keys and values [B H L K] -> [B Q D]."""
    query_key, dropout_key, out_key = split_key(key, 3)
    queries = self._split_heads(self.query(x, key=query_key))
    keys, values = memory.keys, memory.values
    if bias is not None:
      # Another layer's prefix may have made the stack count more positions than this one has.
      surplus = bias.shape[-1] - keys.shape[-2] - self.prefix_positions
      bias = bias[..., surplus:]
    if self.prefix is not None:
      keys, values, bias, mask = self.prefix(keys, values, bias, mask)
    mixed = dot_product_attention(
      queries,
      keys,
      values,
      bias=bias,
      mask=mask,
      dropout_rate=self.dropout_rate,
      key=dropout_key,
    )
    joined = mixed.reshape(*mixed.shape[:-2], -1)  # [B Q H K] -> [B Q J]
    return self.out(joined, key=out_key)

  @property
  def prefix_positions(self) -> int:
    """How many positions the prefix wants counted before position 0."""
    return getattr(self.prefix, "positions", 0)

  def project(self, memory: Array, *, key: Key | None = None) -> KVCache:
    """Keys and values [B H L K] of the sequence [B L D] that is attended to."""
    key_key, value_key = split_key(key, 2)
    keys = self._split_heads(self.key(memory, key=key_key))
    values = self._split_heads(self.value(memory, key=value_key))
    return KVCache(keys=keys.swapaxes(-3, -2), values=values.swapaxes(-3, -2))

  def _split_heads(self, x: Array) -> Array:
    return x.reshape(*x.shape[:-1], self.heads, -1)  # [B L J] -> [B L H K]


def dot_product_attention(
  queries: Array,
  keys: Array,
  values: Array,
  *,
  bias: Array | None = None,
  mask: Array | None = None,
  dropout_rate: float = 0.0,
  key: Key | None = None,
) -> Array:
  """Attention of queries [B Q H K] to keys and values [B H L K]; returns [B Q H K].

  `bias` [1|B 1|H Q L] is added to the scores; `mask` [1|B 1 1|Q L] says what may be attended to.
  Dropped entries are the same for all queries, as in T5X.
  """
  scores = jnp.einsum("bqhk,bhlk->bhql", queries, keys, preferred_element_type=jnp.float32)
  if bias is not None:
    scores = scores + bias
  if mask is not None:
    # Added, not selected: the backward pass then has nothing to do.
    scores = scores + jnp.where(mask, 0.0, MASKED).astype(jnp.float32)
  weights = jax.nn.softmax(scores, axis=-1)  # float32: the sum over many keys needs it
  weights = dropout(weights.astype(queries.dtype), dropout_rate, key, broadcast=(-2,))
  return jnp.einsum("bhql,bhlk->bqhk", weights, values)


def prepend(
  keys: Array,
  values: Array,
  bias: Array | None,
  mask: Array | None,
  *,
  prefix: KVCache,
  biased: bool = False,
) -> tuple[Array, Array, Array | None, Array | None]:
  """Puts a prefix [H P K] (or [B H P K]) in front of keys, values, bias and mask.

  All queries may attend to it.  Its bias is 0, or, with `biased`, what `bias` already holds in its
  first P positions.
  """

  def join(prefix_leaf: Array, leaf: Array) -> Array:
    shape = (leaf.shape[0], *prefix_leaf.shape[-3:])
    return jnp.concatenate([jnp.broadcast_to(prefix_leaf, shape).astype(leaf.dtype), leaf], axis=-2)

  length = prefix.keys.shape[-2]
  front = [(0, 0), (0, 0), (0, 0), (length, 0)]
  if bias is not None and not biased:
    bias = jnp.pad(bias, front)
  if mask is not None:
    mask = jnp.pad(mask, front, constant_values=True)
  return join(prefix.keys, keys), join(prefix.values, values), bias, mask
