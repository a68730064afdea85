"""Encoder and decoder of T5: pre-norm layers around attention and mlp, and what surrounds them.

Parameter names are T5X's, with `layers_3` spelled `layers/3`.  Dropout sits where T5X has it.

The table of relative position biases is the stack's, or each layer has its own
(`T5Config.relative_bias`); `relpos_bias` of the one that has none is None.
"""

from collections.abc import Callable

from flax import nnx

from promot_jax.models import cached_decoding, stack
from promot_jax.models.attention import Attention
from promot_jax.models.kv_cache import DecodeCache, KVCache
from promot_jax.models.layers import Linear, Mlp, RMSNorm, dropout, split_key
from promot_jax.models.positions import RelativePositionBias
from promot_jax.models.t5_config import T5Config
from promot_jax.types import Array, Key

LENGTH = (-2,)  # the axis along which T5X drops the same features at all positions


class Encoder(nnx.Module):
  """Embedded source tokens -> memory.  `prompt` is an empty slot for learned input vectors.

  A method fills the slot with a module that is called as

      embeddings, mask = prompt(embeddings, mask)

  with embeddings [B S D] and mask bool [B S], and returns both with its own P positions in front.  Relative positions count them like any other.
  """

  def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
    self.relpos_bias = _bias_of("shared", config, rngs=rngs, bidirectional=True)
    self.layers = stack.build(
      lambda layer_rngs: EncoderLayer(config, rngs=layer_rngs),
      config.encoder_layers,
      rngs=rngs,
      scan=config.scan_layers,
    )
    self.encoder_norm = RMSNorm(config.width, param_dtype=config.param_dtype)
    self.prompt = nnx.data(None)
    self.dropout_rate = config.dropout_rate
    self.remat = config.remat

  def __call__(
    self,
    embeddings: Array,
    mask: Array,
    *,
    key: Key | None = None,
  ) -> tuple[Array, Array]:
    """[B S D] and bool [B S] -> memory [B P+S D] and its mask [B P+S]."""
    if self.prompt is not None:
      embeddings, mask = self.prompt(embeddings, mask)
    in_key, layers_key, out_key = split_key(key, 3)
    x = dropout(embeddings, self.dropout_rate, in_key, broadcast=LENGTH)
    length, offset = x.shape[1], cached_decoding.prefix_positions(self.layers, "attention")
    moved = cached_decoding.displacement(self.layers, "attention")

    def compute(table: RelativePositionBias) -> Array:
      return table(length, offset + length, offset=offset - moved)

    bias = _chosen_bias(self.relpos_bias, compute)
    attended = mask[:, None, None, :]

    def step(layer, x, layer_key):
      return layer(x, bias=bias(layer), mask=attended, key=layer_key), None

    keys = stack.split_keys(layers_key, stack.count(self.layers))
    x, _ = stack.run(self.layers, step, x, keys, remat=self.remat)
    return dropout(self.encoder_norm(x), self.dropout_rate, out_key), mask


class EncoderLayer(nnx.Module):
  """Self-attention and mlp, each behind a norm and inside a residual.

  `adapter` is an empty slot for a module [... D] -> [... D] that the layer's result goes through.
  """

  def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
    self.relpos_bias = _bias_of("per_layer", config, rngs=rngs, bidirectional=True)
    self.pre_attention_layer_norm = RMSNorm(config.width, param_dtype=config.param_dtype)
    self.attention = _attention(config, rngs=rngs)
    self.pre_mlp_layer_norm = RMSNorm(config.width, param_dtype=config.param_dtype)
    self.mlp = _mlp(config, rngs=rngs)
    self.adapter = nnx.data(None)
    self.dropout_rate = config.dropout_rate

  def __call__(self, x: Array, *, bias: Array, mask: Array, key: Key | None) -> Array:
    """[B S D] -> [B S D]; bias [1 H S S], mask [B 1 1 S]."""
    keys = split_key(key, 5)
    normal = self.pre_attention_layer_norm(x)
    memory = self.attention.project(normal, key=keys[0])
    y = self.attention(normal, memory, bias=bias, mask=mask, key=keys[1])
    x = x + dropout(y, self.dropout_rate, keys[2], broadcast=LENGTH)
    y = self.mlp(self.pre_mlp_layer_norm(x), key=keys[3])
    x = x + dropout(y, self.dropout_rate, keys[4], broadcast=LENGTH)
    return x if self.adapter is None else self.adapter(x)


class Decoder(nnx.Module):
  """Embedded target tokens and memory -> hidden states; holds the untied output kernel."""

  def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
    self.relpos_bias = _bias_of("shared", config, rngs=rngs, bidirectional=False)
    self.layers = stack.build(
      lambda layer_rngs: DecoderLayer(config, rngs=layer_rngs),
      config.decoder_layers,
      rngs=rngs,
      scan=config.scan_layers,
    )
    self.decoder_norm = RMSNorm(config.width, param_dtype=config.param_dtype)
    if not config.tied_logits:
      self.logits_dense = Linear(
        config.width, config.vocab_size, rngs=rngs, param_dtype=config.param_dtype
      )
    self.dropout_rate = config.dropout_rate
    self.remat = config.remat

  def __call__(
    self, embeddings: Array, memory: Array, memory_mask: Array, *, key: Key | None = None
  ) -> Array:
    """All target positions at once: [B T D], memory [B S D], bool [B S] -> hidden [B T D]."""
    in_key, layers_key, out_key = split_key(key, 3)
    x = dropout(embeddings, self.dropout_rate, in_key, broadcast=LENGTH)
    length, offset = x.shape[1], cached_decoding.prefix_positions(self.layers, "self_attention")
    moved = cached_decoding.displacement(self.layers, "self_attention")

    def compute(table: RelativePositionBias) -> Array:
      bias = table(length, offset + length, offset=offset - moved)
      return bias + cached_decoding.causal_bias(length, offset=offset)

    bias = _chosen_bias(self.relpos_bias, compute)
    memory_attended = memory_mask[:, None, None, :]

    def step(layer, x, layer_key):
      y = layer(x, memory, bias=bias(layer), memory_mask=memory_attended, key=layer_key)
      return y, None

    keys = stack.split_keys(layers_key, stack.count(self.layers))
    x, _ = stack.run(self.layers, step, x, keys, remat=self.remat)
    return dropout(self.decoder_norm(x), self.dropout_rate, out_key, broadcast=LENGTH)

  def start(self, memory: Array, memory_mask: Array, *, max_length: int) -> DecodeCache:
    """An empty cache for `max_length` positions; projects the memory once for all steps."""
    shared = self.relpos_bias
    return cached_decoding.start(
      self.layers,
      memory,
      memory_mask,
      max_length=max_length,
      position_bias=None if shared is None else shared.by_distance,
      layer_bias=(lambda layer: layer.relpos_bias.by_distance) if shared is None else None,
    )

  def step(self, embeddings: Array, cache: DecodeCache) -> tuple[Array, DecodeCache]:
    """One position of every row: [R D] -> hidden [R D] and the cache with that position written."""
    x, cache = cached_decoding.step(self.layers, embeddings, cache)
    return self.decoder_norm(x), cache


class DecoderLayer(nnx.Module):
  """Self-attention, attention to the memory, and mlp; `adapter` is a slot as in `EncoderLayer`."""

  def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
    self.relpos_bias = _bias_of("per_layer", config, rngs=rngs, bidirectional=False)
    self.pre_self_attention_layer_norm = RMSNorm(config.width, param_dtype=config.param_dtype)
    self.self_attention = _attention(config, rngs=rngs)
    self.pre_cross_attention_layer_norm = RMSNorm(config.width, param_dtype=config.param_dtype)
    self.encoder_decoder_attention = _attention(config, rngs=rngs)
    self.pre_mlp_layer_norm = RMSNorm(config.width, param_dtype=config.param_dtype)
    self.mlp = _mlp(config, rngs=rngs)
    self.adapter = nnx.data(None)
    self.dropout_rate = config.dropout_rate

  def __call__(
    self, x: Array, memory: Array, *, bias: Array, memory_mask: Array, key: Key | None
  ) -> Array:
    """[B T D] and memory [B S D] -> [B T D]; bias [1 H T T] is causal, memory_mask [B 1 1 S]."""
    keys = split_key(key, 5)
    normal = self.pre_self_attention_layer_norm(x)
    own = self.self_attention.project(normal, key=keys[0])
    y = self.self_attention(normal, own, bias=bias, key=keys[1])
    x = x + dropout(y, self.dropout_rate, keys[2], broadcast=LENGTH)
    projected = self.encoder_decoder_attention.project(memory, key=keys[3])
    return self._finish(x, projected, memory_mask=memory_mask, key=keys[4])

  def step(
    self,
    x: Array,
    own: KVCache,
    memory: KVCache,
    *,
    position: Array,
    bias: Array,
    memory_mask: Array,
  ) -> tuple[Array, KVCache]:
    """One position of R rows, [R 1 D], of which R / B in a row share the memory of one example."""
    normal = self.pre_self_attention_layer_norm(x)
    new = self.self_attention.project(normal)
    own = own.write(new.keys, new.values, position)
    x = x + self.self_attention(normal, own, bias=bias)
    # Rows of one example become query positions of that example, so its memory is read once.
    shape = x.shape
    x = x.reshape(memory.keys.shape[0], -1, shape[-1])  # [R 1 D] -> [B R/B D]
    return self._finish(x, memory, memory_mask=memory_mask, key=None).reshape(shape), own

  def _finish(self, x: Array, memory: KVCache, *, memory_mask: Array, key: Key | None) -> Array:
    keys = split_key(key, 4)
    y = self.encoder_decoder_attention(
      self.pre_cross_attention_layer_norm(x), memory, mask=memory_mask, key=keys[0]
    )
    x = x + dropout(y, self.dropout_rate, keys[1], broadcast=LENGTH)
    y = self.mlp(self.pre_mlp_layer_norm(x), key=keys[2])
    x = x + dropout(y, self.dropout_rate, keys[3], broadcast=LENGTH)
    return x if self.adapter is None else self.adapter(x)


def _attention(config: T5Config, *, rngs: nnx.Rngs) -> Attention:
  return Attention(
    config.width,
    config.heads,
    config.head_width,
    rngs=rngs,
    dropout_rate=config.dropout_rate,
    param_dtype=config.param_dtype,
  )


def _mlp(config: T5Config, *, rngs: nnx.Rngs) -> Mlp:
  return Mlp(
    config.width,
    config.mlp_width,
    rngs=rngs,
    activations=config.mlp_activations,
    dropout_rate=config.dropout_rate,
    param_dtype=config.param_dtype,
  )


def _bias_of(
  owner: str, config: T5Config, *, rngs: nnx.Rngs, bidirectional: bool
) -> RelativePositionBias | None:
  """The table of a stack ('shared') or of a layer ('per_layer'); None where the other has it."""
  if config.relative_bias != owner:
    return None
  return RelativePositionBias(
    config.heads,
    rngs=rngs,
    buckets=config.relative_buckets,
    max_distance=config.relative_max_distance,
    bidirectional=bidirectional,
    param_dtype=config.param_dtype,
  )


def _chosen_bias(
  shared: RelativePositionBias | None, compute: Callable[[RelativePositionBias], Array]
) -> Callable[[nnx.Module], Array]:
  """Function of a layer that gives its bias [1 H Q L]; a shared one is computed once, here."""
  if shared is None:
    return lambda layer: compute(layer.relpos_bias)
  bias = compute(shared)
  return lambda layer: bias
