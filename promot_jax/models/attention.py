"""Multi-head, grouped-query and multi-query attention, its masks, and the slot for learned prefixes.

Keys and values have heads before positions, [B H L K]: both products of attention then read them as
they are.  With positions first, XLA transposes the whole cache at every step of a decode.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.models import stack
from promot_jax.models.kv_cache import KVCache
from promot_jax.models.layers import Initializer, Linear, dropout, fan_in_normal, split_key
from promot_jax.models.positions import RotaryPositions
from promot_jax.types import Array, Batch, Bool, Float, Int, Key

MASKED = -1e10
"""Bias of a position that must not be attended to.  Finite: a row without any key gives no NaN."""


class Attention(nnx.Module):
  """Queries from one sequence, keys and values from the same or another one.

  The defaults are T5's: no biases, as many key heads as query heads, no scale, no rotation.  With
  `kv_heads` G < H, query heads 0 ... H/G - 1 share key head 0, and so on (Ainslie et al., 2023,
  arXiv:2305.13245); G = 1 is multi-query attention (Shazeer, 2019, arXiv:1911.02150).

  `prefix` is an empty slot.  A method fills it with a module that is called as

      keys, values, bias, mask = prefix(keys, values, bias, mask)

  with keys and values [B G L K], bias [1|B H Q L] or None, mask [1|B 1 1|Q L] or None, and returns
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
    kv_heads: int | None = None,
    use_bias: bool = False,
    scale: float = 1.0,
    rotary: RotaryPositions | None = None,
    dropout_rate: float = 0.0,
    initializer: Initializer = fan_in_normal,
    param_dtype: str = "float32",
  ):
    """`scale` multiplies the queries; `rotary` turns queries and keys by their `positions`.

    Raises:
      ConfigError: `heads` is not a multiple of `kv_heads`.
    """
    self.heads = heads
    self.kv_heads = heads if kv_heads is None else kv_heads
    if self.kv_heads < 1 or heads % self.kv_heads:
      raise ConfigError(
        f"Attention has heads={heads} and kv_heads={kv_heads}; the former must be a multiple of the"
        " latter."
      )

    def query_initializer(key, shape, dtype):
      # T5 folds attention's 1/sqrt(K) into the initial query weights.
      kernel = initializer(key, shape, dtype)
      return kernel * jnp.asarray(head_width**-0.5, dtype) if scale == 1.0 else kernel

    def make(features_in: int, features_out: int, initializer: Initializer = initializer) -> Linear:
      return Linear(
        features_in,
        features_out,
        rngs=rngs,
        use_bias=use_bias,
        initializer=initializer,
        param_dtype=param_dtype,
      )

    # Heads side by side in one kernel, as T5X stores them.
    self.query = make(width, heads * head_width, query_initializer)
    self.key = make(width, self.kv_heads * head_width)
    self.value = make(width, self.kv_heads * head_width)
    self.out = make(heads * head_width, width)
    # A plain None would be a static attribute of NNX, which takes no module later.
    self.prefix = nnx.data(None)
    self.scale = scale
    self.rotary = rotary
    self.dropout_rate = dropout_rate

  def __call__(
    self,
    x: Float[Array, "B Q D"],
    memory: KVCache,
    *,
    bias: Float[Array, "1|B 1|H Q L"] | None = None,
    mask: Bool[Array, "1|B 1 1|Q L"] | None = None,
    positions: Int[Array, "1|B Q"] | None = None,
    key: Key | None = None,
  ) -> Float[Array, "B Q D"]:
    """What x reads in projected keys and values [B G L K].

    `positions` are those of the queries; only rotary attention reads them.
    """
    query_key, dropout_key, out_key = split_key(key, 3)
    queries = self._queries(x, positions, query_key)
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

  def step(
    self,
    x: Float[Array, "R 1 D"],
    own: KVCache,
    shared: KVCache,
    *,
    own_mask: Bool[Array, "1|R 1 1 T"],
    shared_mask: Bool[Array, "B 1 1 S"],
    positions: Int[Array, "1|R 1"] | None = None,
  ) -> Float[Array, "R 1 D"]:
    """One query of R rows, without dropout.

    Each row attends to its own keys [R G T K] and to those [B G S K] that the R / B rows of an
    example share: their prompt is neither copied nor read more than once.

    Args:
      x: what the queries are made of.
      own: [R G T K].
      shared: [B G S K]; a prefix is put in front of them.
      own_mask, shared_mask: what each row may attend to.
      positions: of the queries; only rotary attention reads them.
    """
    queries = self._queries(x, positions, None)  # [R 1 H K]
    keys, values = shared.keys, shared.values
    if self.prefix is not None:
      # Put before the shared keys: all rows of an example see the same prefix.
      keys, values, _, shared_mask = self.prefix(keys, values, None, shared_mask)
    rows, _, heads, head_width = queries.shape
    # An example's rows become its query positions, so that its keys are read once for all of them.
    together = queries.reshape(keys.shape[0], -1, heads, head_width)  # [R 1 H K] -> [B R/B H K]
    shared_scores = _hide(_scores(together, keys), shared_mask)  # [B H R/B S]
    shared_shape = shared_scores.shape
    shared_scores = shared_scores.swapaxes(1, 2).reshape(rows, heads, 1, -1)  # -> [R H 1 S]
    own_scores = _hide(_scores(queries, own.keys), own_mask)  # [R H 1 T]
    # One softmax over both kinds of keys: their weights sum to 1 together.
    scores = jnp.concatenate([shared_scores, own_scores], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)  # float32 before, as above
    # The weighted sum over both kinds is the sum of two: values need not lie side by side.
    shared_weights, own_weights = jnp.split(weights, [keys.shape[-2]], axis=-1)
    b, h, q, s = shared_shape
    shared_weights = shared_weights.reshape(b, q, h, s).swapaxes(1, 2)  # [R H 1 S] -> [B H R/B S]
    mixed = _mix(own_weights, own.values) + _mix(shared_weights, values).reshape(queries.shape)
    return self.out(mixed.reshape(rows, 1, -1))  # [R 1 H K] -> [R 1 J]

  @property
  def prefix_positions(self) -> int:
    """How many positions the prefix wants counted before position 0."""
    return getattr(self.prefix, "positions", 0)

  def project(
    self,
    memory: Float[Array, "B L D"],
    *,
    positions: Int[Array, "1|B L"] | None = None,
    key: Key | None = None,
  ) -> KVCache:
    """Keys and values [B G L K] of the sequence that is attended to.

    `positions` are those of the sequence; only rotary attention reads them.
    """
    key_key, value_key = split_key(key, 2)
    keys = _split_heads(self.key(memory, key=key_key), self.kv_heads)
    values = _split_heads(self.value(memory, key=value_key), self.kv_heads)
    if self.rotary is not None:
      assert positions is not None  # a rotary network passes them
      # Turned before they are stored, so that a cache need not know positions.
      keys = self.rotary(keys, positions)
    return KVCache(keys=keys.swapaxes(-3, -2), values=values.swapaxes(-3, -2))

  def _queries(
    self, x: Float[Array, "B Q D"], positions: Int[Array, "1|B Q"] | None, key: Key | None
  ) -> Float[Array, "B Q H K"]:
    """Rotated and scaled."""
    queries = _split_heads(self.query(x, key=key), self.heads)
    if self.rotary is not None:
      assert positions is not None  # a rotary network passes them
      queries = self.rotary(queries, positions)
    if self.scale == 1.0:
      return queries
    # In float32: a scale that is rounded to bfloat16 would change the temperature of all scores.
    return (queries.astype(jnp.float32) * self.scale).astype(queries.dtype)


def _split_heads(x: Float[Array, "B L J"], heads: int) -> Float[Array, "B L H K"]:
  return x.reshape(*x.shape[:-1], heads, -1)  # [B L J] -> [B L H K]


def dot_product_attention(
  queries: Float[Array, "B Q H K"],
  keys: Float[Array, "B G L K"],
  values: Float[Array, "B G L K"],
  *,
  bias: Float[Array, "1|B 1|H Q L"] | None = None,
  mask: Bool[Array, "1|B 1 1|Q L"] | None = None,
  dropout_rate: float = 0.0,
  key: Key | None = None,
) -> Float[Array, "B Q H K"]:
  """Attention: `bias` is added to the scores, `mask` says what may be attended to.

  Dropped entries are the same for all queries, as in T5X.
  """
  scores = _scores(queries, keys)
  if bias is not None:
    scores = scores + bias
  if mask is not None:
    scores = _hide(scores, mask)
  weights = jax.nn.softmax(scores, axis=-1)  # float32: the sum over many keys needs it
  weights = dropout(weights.astype(queries.dtype), dropout_rate, key, broadcast=(-2,))
  return _mix(weights, values)


def _hide(
  scores: Float[Array, "B H Q L"], mask: Bool[Array, "1|B 1 1|Q L"]
) -> Float[Array, "B H Q L"]:
  """Scores, very low where the mask is False."""
  # Added, not selected: the backward pass then has nothing to do.
  return scores + jnp.where(mask, 0.0, MASKED).astype(jnp.float32)


def _scores(
  queries: Float[Array, "B Q H K"], keys: Float[Array, "B G L K"]
) -> Float[Array, "B H Q L"]:
  """In float32; query heads h*H/G ... share key head h."""
  groups = keys.shape[-3]
  if groups == queries.shape[-2]:
    # Sums in float32 also of bfloat16: a rounded score is a factor of its weight.
    return jnp.einsum("bqhk,bhlk->bhql", queries, keys, preferred_element_type=jnp.float32)
  b, q, h, k = queries.shape
  grouped = queries.reshape(b, q, groups, h // groups, k)  # [B Q H K] -> [B Q G H/G K]
  scores = jnp.einsum("bqghk,bglk->bghql", grouped, keys, preferred_element_type=jnp.float32)
  return scores.reshape(b, h, q, -1)  # [B G H/G Q L] -> [B H Q L]


def _mix(
  weights: Float[Array, "B H Q L"], values: Float[Array, "B G L K"]
) -> Float[Array, "B Q H K"]:
  """The sum of the values, weighted."""
  groups = values.shape[-3]
  if groups == weights.shape[-3]:
    return jnp.einsum("bhql,bhlk->bqhk", weights, values)
  b, h, q, length = weights.shape
  grouped = weights.reshape(b, groups, h // groups, q, length)  # [B H Q L] -> [B G H/G Q L]
  mixed = jnp.einsum("bghql,bglk->bqghk", grouped, values)
  return mixed.reshape(b, q, h, -1)  # [B Q G H/G K] -> [B Q H K]


def prepend(
  keys: Float[Array, "B G L K"],
  values: Float[Array, "B G L K"],
  bias: Float[Array, "1|B 1|H Q L"] | None,
  mask: Bool[Array, "1|B 1 1|Q L"] | None,
  *,
  prefix: KVCache,
  biased: bool = False,
) -> tuple[
  Float[Array, "B G P+L K"],
  Float[Array, "B G P+L K"],
  Float[Array, "1|B 1|H Q P+L"] | None,
  Bool[Array, "1|B 1 1|Q P+L"] | None,
]:
  """Puts a prefix [G P K] (or [B G P K]) in front of keys, values, bias and mask.

  All queries may attend to it.  Its bias is 0, or, with `biased`, what `bias` already holds in its
  first P positions.
  """

  def join(prefix_leaf: Array, leaf: Array) -> Array:
    # One prefix for all examples is broadcast; those of a bank have a row for each already.
    shape = (leaf.shape[0], *prefix_leaf.shape[-3:])
    return jnp.concatenate([jnp.broadcast_to(prefix_leaf, shape).astype(leaf.dtype), leaf], axis=-2)

  length = prefix.keys.shape[-2]
  front = [(0, 0), (0, 0), (0, 0), (length, 0)]
  if bias is not None and not biased:
    # Bias 0: positions that are not counted have no distance to a query.
    bias = jnp.pad(bias, front)
  if mask is not None:
    mask = jnp.pad(mask, front, constant_values=True)
  return join(prefix.keys, keys), join(prefix.values, values), bias, mask


# What prefixes of a stack's layers ask for: the name says which attention of each layer is meant.


def prefix_positions(layers: stack.Layers, attention: str) -> int:
  """The largest number of positions that a prefix of these layers wants counted before 0."""
  return max(getattr(member, attention).prefix_positions for member in stack.members(layers))


def displacement(layers: stack.Layers, attention: str) -> int:
  """By how much relative positions are moved by a prefix of these layers; nearly always 0."""
  prefixes = [getattr(member, attention).prefix for member in stack.members(layers)]
  return max(getattr(prefix, "displacement", 0) for prefix in prefixes)


# Masks: which positions of an input are text, which of the targets are known.


def input_mask(batch: Batch, shape: Sequence[int], *, pad: int) -> Bool[Array, "B S"]:
  """Of that shape: True where a batch's input is text, and may be attended to.

  A batch says it itself: `encoder_input_mask` is made where rows are put together, from their lengths,
  and no id has to be given up for padding.  Without it, for batches made by hand, see `is_text`.

  Args:
    batch: its `encoder_input_mask`, or else its `encoder_input_tokens`, says it; with neither, all
      of the input is text.
    pad: the model's id of padding, for `is_text`.
  """
  mask, tokens = batch.get("encoder_input_mask"), batch.get("encoder_input_tokens")
  if mask is not None:
    return jnp.asarray(mask, bool)
  return jnp.ones(shape, bool) if tokens is None else is_text(jnp.asarray(tokens), pad=pad)


def is_text(tokens: Int[Array, "B S"], *, pad: int) -> Bool[Array, "B S"]:
  """True for a token, False for padding, as far as ids can tell.

  Padding is the run of `pad` at the end of a row; the same id before another token is a token.  Where
  no token pads (`pad` is -1), negative ids are padding wherever they are.

    ids, pad=0    8 0 3 0 0          ids, pad=-1   -1 -1 8 0
    is text       1 1 1 0 0          is text        0  0 1 1
  """
  # From the end backwards: what lies before the last token that does not pad is text.
  real = tokens != pad
  return real if pad < 0 else jax.lax.cummax(real.astype(jnp.int8), axis=1, reverse=True) > 0


def causal_bias(length: int, *, offset: int = 0) -> Float[np.ndarray, "T O+T"]:
  """Float32, for T targets and the O positions before them that all of them see.

  1 0 0   Position i sees positions <= i.  Padding is at the end of targets, so nothing else needs
  1 1 0   hiding from a real position.
  1 1 1
  """
  # By numpy: lengths are static, so this is a constant of the program.
  visible = np.arange(offset + length)[None, :] - offset <= np.arange(length)[:, None]
  return np.where(visible, 0.0, MASKED).astype(np.float32)
