"""Encoder and decoder of BART: layers that normalize after each residual, and what surrounds them.

Dropout sits where transformers has it.  What it drops inside of attention and mlp is the same at all
positions, as everywhere here (see `layers.dropout`).
"""

import jax.numpy as jnp
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.models import cached_decoding, stack
from promot_jax.models.attention import Attention
from promot_jax.models.bart_config import BartConfig
from promot_jax.models.kv_cache import DecodeCache, KVCache
from promot_jax.models.layers import LayerNorm, Mlp, dropout, normal, split_key
from promot_jax.models.positions import LearnedPositions
from promot_jax.types import Array, Key

POSITION_OFFSET = 2
"""Rows at the start of the published position tables that are never read."""


class Encoder(nnx.Module):
  """Embedded source tokens -> memory.  `prompt` is an empty slot for learned input vectors.

  A method fills the slot with a module that is called as

      embeddings, mask = prompt(embeddings, mask)

  with embeddings [B S D] and mask bool [B S], and returns both with its own P positions in front.  They take the first P of the learned positions.
  """

  def __init__(self, config: BartConfig, *, rngs: nnx.Rngs):
    self.position_embedder = _positions(config, rngs=rngs)
    self.embedding_layer_norm = _norm(config)
    self.layers = stack.build(
      lambda layer_rngs: EncoderLayer(config, rngs=layer_rngs),
      config.encoder_layers,
      rngs=rngs,
      scan=config.scan_layers,
    )
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
    """[B S D] and bool [B S] -> memory [B P+S D] and its mask [B P+S].

    Raises:
      ConfigError: P + S is more than the positions that were learned.
    """
    if self.prompt is not None:
      embeddings, mask = self.prompt(embeddings, mask)
    in_key, layers_key = split_key(key, 2)
    offset = cached_decoding.prefix_positions(self.layers, "attention")
    x = _with_positions(self.position_embedder, embeddings, offset, what="encoder input")
    x = dropout(self.embedding_layer_norm(x), self.dropout_rate, in_key)
    attended = mask[:, None, None, :]

    def step(layer, x, layer_key):
      return layer(x, mask=attended, key=layer_key), None

    keys = stack.split_keys(layers_key, stack.count(self.layers))
    x, _ = stack.run(self.layers, step, x, keys, remat=self.remat)
    return x, mask


class EncoderLayer(nnx.Module):
  """Self-attention and mlp, each inside a residual and before a norm.

  `adapter` is an empty slot for a module [... D] -> [... D] that the layer's result goes through.
  """

  def __init__(self, config: BartConfig, *, rngs: nnx.Rngs):
    self.attention = _attention(config, rngs=rngs)
    self.post_attention_layer_norm = _norm(config)
    self.mlp = _mlp(config, rngs=rngs)
    self.post_mlp_layer_norm = _norm(config)
    self.adapter = nnx.data(None)
    self.dropout_rate = config.dropout_rate

  def __call__(self, x: Array, *, mask: Array, key: Key | None) -> Array:
    """[B S D] -> [B S D]; mask [B 1 1 S]."""
    keys = split_key(key, 5)
    memory = self.attention.project(x, key=keys[0])
    y = self.attention(x, memory, mask=mask, key=keys[1])
    x = self.post_attention_layer_norm(x + dropout(y, self.dropout_rate, keys[2]))
    y = self.mlp(x, key=keys[3])
    x = self.post_mlp_layer_norm(x + dropout(y, self.dropout_rate, keys[4]))
    return x if self.adapter is None else self.adapter(x)


class Decoder(nnx.Module):
  """Embedded target tokens and memory -> hidden states."""

  def __init__(self, config: BartConfig, *, rngs: nnx.Rngs):
    self.position_embedder = _positions(config, rngs=rngs)
    self.embedding_layer_norm = _norm(config)
    self.layers = stack.build(
      lambda layer_rngs: DecoderLayer(config, rngs=layer_rngs),
      config.decoder_layers,
      rngs=rngs,
      scan=config.scan_layers,
    )
    self.dropout_rate = config.dropout_rate
    self.remat = config.remat

  def __call__(
    self, embeddings: Array, memory: Array, memory_mask: Array, *, key: Key | None = None
  ) -> Array:
    """All target positions at once: [B T D], memory [B S D], bool [B S] -> hidden [B T D].

    Raises:
      ConfigError: T is more than the positions that were learned.
    """
    in_key, layers_key = split_key(key, 2)
    offset = cached_decoding.prefix_positions(self.layers, "self_attention")
    x = _with_positions(self.position_embedder, embeddings, offset, what="target")
    x = dropout(self.embedding_layer_norm(x), self.dropout_rate, in_key)
    bias = jnp.asarray(cached_decoding.causal_bias(x.shape[1], offset=offset)[None, None])
    memory_attended = memory_mask[:, None, None, :]

    def step(layer, x, layer_key):
      y = layer(x, memory, bias=bias, memory_mask=memory_attended, key=layer_key)
      return y, None

    keys = stack.split_keys(layers_key, stack.count(self.layers))
    x, _ = stack.run(self.layers, step, x, keys, remat=self.remat)
    return x

  def start(self, memory: Array, memory_mask: Array, *, max_length: int) -> DecodeCache:
    """An empty cache for `max_length` positions; projects the memory once for all steps.

    Raises:
      ConfigError: `max_length` is more than the positions that were learned.
    """
    offset = cached_decoding.prefix_positions(self.layers, "self_attention")
    _check_length(self.position_embedder, offset + max_length, what="target")
    return cached_decoding.start(self.layers, memory, memory_mask, max_length=max_length)

  def step(self, embeddings: Array, cache: DecodeCache) -> tuple[Array, DecodeCache]:
    """One position of every row: [R D] -> hidden [R D] and the cache with that position written."""
    offset = cached_decoding.prefix_positions(self.layers, "self_attention")
    position = self.position_embedder(cache.position + offset, dtype=embeddings.dtype.name)
    x = self.embedding_layer_norm(embeddings + position)
    return cached_decoding.step(self.layers, x, cache)


class DecoderLayer(nnx.Module):
  """Self-attention, attention to the memory, and mlp, each inside a residual and before a norm.

  `adapter` is a slot as in `EncoderLayer`.
  """

  def __init__(self, config: BartConfig, *, rngs: nnx.Rngs):
    self.self_attention = _attention(config, rngs=rngs)
    self.post_self_attention_layer_norm = _norm(config)
    self.encoder_decoder_attention = _attention(config, rngs=rngs)
    self.post_cross_attention_layer_norm = _norm(config)
    self.mlp = _mlp(config, rngs=rngs)
    self.post_mlp_layer_norm = _norm(config)
    self.adapter = nnx.data(None)
    self.dropout_rate = config.dropout_rate

  def __call__(
    self, x: Array, memory: Array, *, bias: Array, memory_mask: Array, key: Key | None
  ) -> Array:
    """[B T D] and memory [B S D] -> [B T D]; bias [1 1 T T] is causal, memory_mask [B 1 1 S]."""
    keys = split_key(key, 5)
    own = self.self_attention.project(x, key=keys[0])
    y = self.self_attention(x, own, bias=bias, key=keys[1])
    x = self.post_self_attention_layer_norm(x + dropout(y, self.dropout_rate, keys[2]))
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
    new = self.self_attention.project(x)
    own = own.write(new.keys, new.values, position)
    x = self.post_self_attention_layer_norm(x + self.self_attention(x, own, bias=bias))
    # Rows of one example become query positions of that example, so its memory is read once.
    shape = x.shape
    x = x.reshape(memory.keys.shape[0], -1, shape[-1])  # [R 1 D] -> [B R/B D]
    return self._finish(x, memory, memory_mask=memory_mask, key=None).reshape(shape), own

  def _finish(self, x: Array, memory: KVCache, *, memory_mask: Array, key: Key | None) -> Array:
    keys = split_key(key, 4)
    y = self.encoder_decoder_attention(x, memory, mask=memory_mask, key=keys[0])
    x = self.post_cross_attention_layer_norm(x + dropout(y, self.dropout_rate, keys[1]))
    y = self.mlp(x, key=keys[2])
    x = self.post_mlp_layer_norm(x + dropout(y, self.dropout_rate, keys[3]))
    return x if self.adapter is None else self.adapter(x)


def _with_positions(
  embedder: LearnedPositions, embeddings: Array, offset: int, *, what: str
) -> Array:
  """[B L D] plus the vectors of positions offset, ..., offset + L - 1."""
  length = embeddings.shape[1]
  _check_length(embedder, offset + length, what=what)
  positions = jnp.arange(offset, offset + length)
  return embeddings + embedder(positions, dtype=embeddings.dtype.name)


def _check_length(embedder: LearnedPositions, length: int, *, what: str) -> None:
  if length > embedder.length:
    raise ConfigError(
      f"A BART's {what} has {length} positions, prompt and counted prefix included, and the model"
      f" has learned {embedder.length}; shorten the task's feature lengths or the prompt."
    )


def _attention(config: BartConfig, *, rngs: nnx.Rngs) -> Attention:
  return Attention(
    config.width,
    config.heads,
    config.head_width,
    rngs=rngs,
    use_bias=True,
    scale=config.head_width**-0.5,
    dropout_rate=config.attention_dropout_rate,
    initializer=normal(config.init_std),
    param_dtype=config.param_dtype,
  )


def _mlp(config: BartConfig, *, rngs: nnx.Rngs) -> Mlp:
  return Mlp(
    config.width,
    config.mlp_width,
    rngs=rngs,
    activations=(config.activation,),
    use_bias=True,
    dropout_rate=config.activation_dropout_rate,
    initializer=normal(config.init_std),
    param_dtype=config.param_dtype,
  )


def _norm(config: BartConfig) -> LayerNorm:
  return LayerNorm(config.width, param_dtype=config.param_dtype)


def _positions(config: BartConfig, *, rngs: nnx.Rngs) -> LearnedPositions:
  return LearnedPositions(
    config.max_positions,
    config.width,
    rngs=rngs,
    offset=POSITION_OFFSET,
    std=config.init_std,
    param_dtype=config.param_dtype,
  )
