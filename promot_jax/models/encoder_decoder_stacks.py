"""Encoder and decoder: layers around attention and mlp, and what surrounds them.

One code for all families; `EncoderDecoderConfig` has a table of what differs.  Parameter names are
T5X's where T5 has the part, with `layers_3` spelled `layers/3`.  A norm before a sublayer is called
`pre_mlp_layer_norm`, one after its residual `post_mlp_layer_norm`.  Dropout sits where T5X and
transformers have it; what is dropped inside of attention and mlp is the same at all positions (see
`layers.dropout`).
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.models import cached_decoding, stack
from promot_jax.models.attention import Attention, causal_bias, displacement, prefix_positions
from promot_jax.models.encoder_decoder_config import EncoderDecoderConfig
from promot_jax.models.kv_cache import DecodeCache, KVCache
from promot_jax.models.layers import LayerNorm, Linear, Mlp, RMSNorm, dropout, normal, split_key
from promot_jax.models.positions import LearnedPositions, RelativePositionBias
from promot_jax.types import Array, Bool, Float, Int, Key


class _Stack(nnx.Module):
  """Layers, and what surrounds them in both stacks: positions in front, norms, dropout."""

  def __init__(
    self,
    config: EncoderDecoderConfig,
    layer: "type[EncoderLayer | DecoderLayer]",
    count: int,
    *,
    rngs: nnx.Rngs,
    bidirectional: bool,
  ):
    # Random values are drawn in the order of these lines; another order changes every random start.
    self.relative_positions = config.relative_bias is not None
    self.relpos_bias = _bias_of("shared", config, rngs=rngs, bidirectional=bidirectional)
    self.position_embedder = _positions_of(config, rngs=rngs)
    self.embedding_layer_norm = _norm(config) if config.norms == "post" else None
    self.layers = stack.build(
      lambda layer_rngs: layer(config, rngs=layer_rngs), count, rngs=rngs, scan=config.scan_layers
    )
    self.dropout_rate = config.dropout_rate
    self.dropout_axes = _dropout_axes(config)
    self.remat = config.remat

  def _with_positions(
    self, embeddings: Float[Array, "B L D"], offset: int, *, what: str
  ) -> Float[Array, "B L D"]:
    """Embeddings with the vectors of positions offset, ..., offset + L - 1, as the first layer reads it."""
    x, length = embeddings, embeddings.shape[1]
    if self.position_embedder is not None:
      self._check_length(offset + length, what=what)
      x = x + self.position_embedder(jnp.arange(offset, offset + length), dtype=x.dtype.name)
    return x if self.embedding_layer_norm is None else self.embedding_layer_norm(x)

  def _check_length(self, length: int, *, what: str) -> None:
    known = length if self.position_embedder is None else self.position_embedder.length
    if length > known:
      raise ConfigError(
        f"The {what} has {length} positions, prompt and counted prefix included, and the model has"
        f" learned {known}; shorten the task's feature lengths or the prompt."
      )

  def _bias_by_layer(
    self,
    compute: Callable[[RelativePositionBias], Float[Array, "1 H Q L"]],
    *,
    otherwise: Float[Array, "1 1 Q L"] | None,
  ) -> Callable[[nnx.Module], Float[Array, "1 H Q L"] | None]:
    """Function of a layer that gives its bias; a shared one is computed once, here."""
    if not self.relative_positions:
      return lambda layer: otherwise
    if self.relpos_bias is None:
      return lambda layer: compute(layer.relpos_bias)
    # Here, outside of the layers: inside of a scan it would be computed in each of them.
    bias = compute(self.relpos_bias)
    return lambda layer: bias


class Encoder(_Stack):
  """Embedded source tokens -> memory.  `prompt` is an empty slot for learned input vectors.

  A method fills the slot with a module that is called as

      embeddings, mask = prompt(embeddings, mask)

  with embeddings [B S D] and mask bool [B S], and returns both with its own P positions in front.
  Positions count them like any other: they take the first P of the learned ones.
  """

  def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs):
    super().__init__(config, EncoderLayer, config.encoder_layers, rngs=rngs, bidirectional=True)
    self.encoder_norm = _norm(config) if config.norms == "pre" else None
    self.prompt = nnx.data(None)

  def __call__(
    self, embeddings: Float[Array, "B S D"], mask: Bool[Array, "B S"], *, key: Key | None = None
  ) -> tuple[Float[Array, "B P+S D"], Bool[Array, "B P+S"]]:
    """The memory and its mask; P is the length of an attached prompt.

    Raises:
      ConfigError: P + S is more than the positions that were learned.
    """
    # Before anything else: positions, masks and dropout treat a prompt like tokens.
    if self.prompt is not None:
      embeddings, mask = self.prompt(embeddings, mask)
    in_key, layers_key, *out_key = split_key(key, 2 if self.encoder_norm is None else 3)
    length, offset = embeddings.shape[1], prefix_positions(self.layers, "attention")
    moved = displacement(self.layers, "attention")
    x = self._with_positions(embeddings, offset, what="encoder input")
    x = dropout(x, self.dropout_rate, in_key, broadcast=self.dropout_axes)
    bias = self._bias_by_layer(
      lambda table: table(length, offset + length, offset=offset - moved), otherwise=None
    )
    # [B S] -> [B 1 1 S]: the same for all heads and all queries.
    attended = mask[:, None, None, :]

    def step(layer, x, layer_key):
      return layer(x, bias=bias(layer), mask=attended, key=layer_key), None

    keys = stack.split_keys(layers_key, stack.count(self.layers))
    x, _ = stack.run(self.layers, step, x, keys, remat=self.remat)
    if self.encoder_norm is None:
      return x, mask
    # Not along the length: T5X has no broadcast here, though it has one after the decoder.
    return dropout(self.encoder_norm(x), self.dropout_rate, *out_key), mask


class EncoderLayer(nnx.Module):
  """Self-attention and mlp, each inside a residual, with norms before or after.

  `adapter` is an empty slot for a module [... D] -> [... D] that the layer's result goes through.
  """

  def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs):
    self.relpos_bias = _bias_of("per_layer", config, rngs=rngs, bidirectional=True)
    self.attention = _attention(config, rngs=rngs)
    self.mlp = _mlp(config, rngs=rngs)
    _add_norms(self, config, ("attention", "mlp"))
    self.adapter = nnx.data(None)
    self.dropout_rate = config.dropout_rate
    self.dropout_axes = _dropout_axes(config)

  def __call__(
    self,
    x: Float[Array, "B S D"],
    *,
    bias: Float[Array, "1 H S S"] | None,
    mask: Bool[Array, "B 1 1 S"],
    key: Key | None,
  ) -> Float[Array, "B S D"]:
    keys = split_key(key, 5)
    read = _read(self, "attention", x)
    memory = self.attention.project(read, key=keys[0])
    y = self.attention(read, memory, bias=bias, mask=mask, key=keys[1])
    x = _added(self, "attention", x, y, keys[2])
    y = self.mlp(_read(self, "mlp", x), key=keys[3])
    x = _added(self, "mlp", x, y, keys[4])
    return x if self.adapter is None else self.adapter(x)


class Decoder(_Stack):
  """Embedded target tokens and memory -> hidden states; holds the untied output kernel."""

  def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs):
    super().__init__(config, DecoderLayer, config.decoder_layers, rngs=rngs, bidirectional=False)
    self.decoder_norm = _norm(config) if config.norms == "pre" else None
    if not config.tied_logits:
      self.logits_dense = Linear(
        config.width,
        config.vocab_size,
        rngs=rngs,
        initializer=normal(config.init_std),
        param_dtype=config.param_dtype,
      )

  def __call__(
    self,
    embeddings: Float[Array, "B T D"],
    memory: Float[Array, "B S D"],
    memory_mask: Bool[Array, "B S"],
    *,
    key: Key | None = None,
  ) -> Float[Array, "B T D"]:
    """All target positions at once.

    Raises:
      ConfigError: T is more than the positions that were learned.
    """
    in_key, layers_key, *out_key = split_key(key, 2 if self.decoder_norm is None else 3)
    length, offset = embeddings.shape[1], self._offset
    moved = displacement(self.layers, "self_attention")
    x = self._with_positions(embeddings, offset, what="target")
    x = dropout(x, self.dropout_rate, in_key, broadcast=self.dropout_axes)
    # A bias, not a mask: the positions that have one anyway then cost one sum for both.
    causal = causal_bias(length, offset=offset)
    bias = self._bias_by_layer(
      lambda table: table(length, offset + length, offset=offset - moved) + causal,
      otherwise=jnp.asarray(causal[None, None]),
    )
    memory_attended = memory_mask[:, None, None, :]

    def step(layer, x, layer_key):
      y = layer(x, memory, bias=bias(layer), memory_mask=memory_attended, key=layer_key)
      return y, None

    keys = stack.split_keys(layers_key, stack.count(self.layers))
    x, _ = stack.run(self.layers, step, x, keys, remat=self.remat)
    if self.decoder_norm is None:
      return x
    return dropout(self.decoder_norm(x), self.dropout_rate, *out_key, broadcast=self.dropout_axes)

  def start(
    self, memory: Float[Array, "B S D"], memory_mask: Bool[Array, "B S"], *, max_length: int
  ) -> DecodeCache:
    """An empty cache for `max_length` positions; projects the memory once for all steps.

    Raises:
      ConfigError: `max_length` is more than the positions that were learned.
    """
    self._check_length(self._offset + max_length, what="target")
    shared = self.relpos_bias
    in_layers = self.relative_positions and shared is None
    return cached_decoding.start(
      self.layers,
      memory,
      memory_mask,
      max_length=max_length,
      position_bias=None if shared is None else shared.by_distance,
      layer_bias=(lambda layer: layer.relpos_bias.by_distance) if in_layers else None,
    )

  def step(
    self, embeddings: Float[Array, "R D"], cache: DecodeCache
  ) -> tuple[Float[Array, "R D"], DecodeCache]:
    """One position of every row: its hidden states, and the cache with that position written."""
    # As `_with_positions`, without its look at the length: `start` has looked, and here only the
    # device knows the position.
    x = embeddings
    if self.position_embedder is not None:
      x = x + self.position_embedder(cache.position + self._offset, dtype=x.dtype.name)
    if self.embedding_layer_norm is not None:
      x = self.embedding_layer_norm(x)
    x, cache = cached_decoding.step(self.layers, x, cache)
    return x if self.decoder_norm is None else self.decoder_norm(x), cache

  @property
  def _offset(self) -> int:
    """How many positions a learned prefix takes before the first token."""
    return prefix_positions(self.layers, "self_attention")


class DecoderLayer(nnx.Module):
  """Self-attention, attention to the memory, and mlp; norms and `adapter` as in `EncoderLayer`."""

  def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs):
    self.relpos_bias = _bias_of("per_layer", config, rngs=rngs, bidirectional=False)
    self.self_attention = _attention(config, rngs=rngs)
    self.encoder_decoder_attention = _attention(config, rngs=rngs)
    self.mlp = _mlp(config, rngs=rngs)
    _add_norms(self, config, ("self_attention", "cross_attention", "mlp"))
    self.adapter = nnx.data(None)
    self.dropout_rate = config.dropout_rate
    self.dropout_axes = _dropout_axes(config)

  def __call__(
    self,
    x: Float[Array, "B T D"],
    memory: Float[Array, "B S D"],
    *,
    bias: Float[Array, "1 H T T"],
    memory_mask: Bool[Array, "B 1 1 S"],
    key: Key | None,
  ) -> Float[Array, "B T D"]:
    """All positions; `bias` is causal."""
    keys = split_key(key, 5)
    read = _read(self, "self_attention", x)
    own = self.self_attention.project(read, key=keys[0])
    y = self.self_attention(read, own, bias=bias, key=keys[1])
    x = _added(self, "self_attention", x, y, keys[2])
    projected = self.encoder_decoder_attention.project(memory, key=keys[3])
    return self._finish(x, projected, memory_mask=memory_mask, key=keys[4])

  def step(
    self,
    x: Float[Array, "R 1 D"],
    own: KVCache,
    memory: KVCache,
    *,
    position: Int[Array, ""],
    bias: Float[Array, "1 H 1 L"],
    memory_mask: Bool[Array, "B 1 1 S"],
  ) -> tuple[Float[Array, "R 1 D"], KVCache]:
    """One position of R rows, of which R / B in a row share the memory of one example."""
    read = _read(self, "self_attention", x)
    new = self.self_attention.project(read)
    # Written before it is read: a position attends to itself.
    own = own.write(new.keys, new.values, position)
    x = _added(self, "self_attention", x, self.self_attention(read, own, bias=bias), None)
    # Rows of one example become query positions of that example, so its memory is read once.
    shape = x.shape
    x = x.reshape(memory.keys.shape[0], -1, shape[-1])  # [R 1 D] -> [B R/B D]
    return self._finish(x, memory, memory_mask=memory_mask, key=None).reshape(shape), own

  def _finish(
    self,
    x: Float[Array, "B Q D"],
    memory: KVCache,
    *,
    memory_mask: Bool[Array, "B 1 1 S"],
    key: Key | None,
  ) -> Float[Array, "B Q D"]:
    keys = split_key(key, 4)
    read = _read(self, "cross_attention", x)
    y = self.encoder_decoder_attention(read, memory, mask=memory_mask, key=keys[0])
    x = _added(self, "cross_attention", x, y, keys[1])
    y = self.mlp(_read(self, "mlp", x), key=keys[2])
    x = _added(self, "mlp", x, y, keys[3])
    return x if self.adapter is None else self.adapter(x)


# Norms: before a sublayer, of what it reads, or after it, of the sum.


def _add_norms(layer: nnx.Module, config: EncoderDecoderConfig, sublayers: Sequence[str]) -> None:
  layer.norms = config.norms
  for name in sublayers:
    setattr(layer, f"{config.norms}_{name}_layer_norm", _norm(config))


def _read(layer: nnx.Module, sublayer: str, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
  """What a sublayer reads of the residual stream."""
  return getattr(layer, f"pre_{sublayer}_layer_norm")(x) if layer.norms == "pre" else x


def _added(
  layer: nnx.Module,
  sublayer: str,
  x: Float[Array, "B L D"],
  y: Float[Array, "B L D"],
  key: Key | None,
) -> Float[Array, "B L D"]:
  """The residual stream with what a sublayer says, y."""
  x = x + dropout(y, layer.dropout_rate, key, broadcast=layer.dropout_axes)
  return x if layer.norms == "pre" else getattr(layer, f"post_{sublayer}_layer_norm")(x)


def _norm(config: EncoderDecoderConfig) -> RMSNorm | LayerNorm:
  kind = RMSNorm if config.norm == "rms" else LayerNorm
  return kind(config.width, epsilon=config.norm_epsilon, param_dtype=config.param_dtype)


# Positions: a bias of the scores, or vectors that are added to the embeddings.


def _positions_of(config: EncoderDecoderConfig, *, rngs: nnx.Rngs) -> LearnedPositions | None:
  if config.max_positions is None:
    return None
  return LearnedPositions(
    config.max_positions,
    config.width,
    rngs=rngs,
    offset=config.position_offset,
    std=config.embedding_std,
    param_dtype=config.param_dtype,
  )


def _bias_of(
  owner: str, config: EncoderDecoderConfig, *, rngs: nnx.Rngs, bidirectional: bool
) -> RelativePositionBias | None:
  """The table of a stack ('shared') or of a layer ('per_layer'); None where it is not the owner."""
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


# Parts of a layer.


def _attention(config: EncoderDecoderConfig, *, rngs: nnx.Rngs) -> Attention:
  return Attention(
    config.width,
    config.heads,
    config.head_width,
    rngs=rngs,
    use_bias=config.use_bias,
    scale=config.attention_scale,
    dropout_rate=config.attention_dropout_rate,
    initializer=normal(config.init_std),
    param_dtype=config.param_dtype,
  )


def _mlp(config: EncoderDecoderConfig, *, rngs: nnx.Rngs) -> Mlp:
  return Mlp(
    config.width,
    config.mlp_width,
    rngs=rngs,
    activations=config.mlp_activations,
    use_bias=config.use_bias,
    dropout_rate=config.mlp_dropout_rate,
    initializer=normal(config.init_std),
    param_dtype=config.param_dtype,
  )


def _dropout_axes(config: EncoderDecoderConfig) -> tuple[int, ...]:
  """Axes of [B L D] along which the same entries are dropped."""
  return (-2,) if config.dropout_along_length else ()
