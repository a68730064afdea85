"""The layers of a decoder-only model, and which position may attend to which.

A sequence is [prompt; x; y].  Padding of x may be on either side (or anywhere): masks hide it and
positions count real tokens only, so y's first position follows x's last one in every row.

When text is generated, the keys of prompt and x are computed once and shared by all rows of an
example (beams, samples); only those of generated tokens have a row each.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.models import stack
from promot_jax.models.attention import Attention, prefix_positions
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.kv_cache import DecodeCache, KVCache
from promot_jax.models.layers import LayerNorm, Linear, Mlp, RMSNorm, dropout, normal, split_key
from promot_jax.models.positions import LearnedPositions
from promot_jax.types import Array, Bool, Float, Int, Key, PyTree


class Decoder(nnx.Module):
  """Embedded tokens -> hidden states; holds learned positions and the untied output kernel.

  `prompt` is an empty slot for learned input vectors.  A method fills it with a module that is
  called as

      embeddings, mask = prompt(embeddings, mask)

  with embeddings of x [B S D] and mask bool [B S], and returns both with its own P positions in front.  They take the first P positions, and the positions that a
  learned prefix asks for (`Attention.prefix`) come before them: both count like tokens.
  """

  def __init__(self, config: DecoderLMConfig, *, rngs: nnx.Rngs):
    self.position_embedder = nnx.data(None)
    if config.positions == "learned":
      self.position_embedder = LearnedPositions(
        config.max_positions,
        config.width,
        rngs=rngs,
        std=config.embedding_std,
        param_dtype=config.param_dtype,
      )
    self.layers = stack.build(
      lambda layer_rngs: DecoderLayer(config, rngs=layer_rngs),
      config.layers,
      rngs=rngs,
      scan=config.scan_layers,
    )
    self.decoder_norm = _norm(config)
    if not config.tied_logits:
      self.logits_dense = Linear(
        config.width,
        config.vocab_size,
        rngs=rngs,
        initializer=normal(config.init_std),
        param_dtype=config.param_dtype,
      )
    # An empty slot: a plain None would be static to NNX and take no module later.
    self.prompt = nnx.data(None)
    # Asked by prefixes: no bias follows from a distance here, so they have nothing to move.
    self.relative_positions = False
    self.full_source = config.source_attention == "full"
    self.dropout_rate = config.rate_of_embedding_dropout
    self.remat = config.remat

  def __call__(
    self,
    source: Float[Array, "B S D"],
    source_mask: Bool[Array, "B S"],
    targets: Float[Array, "B T-1 D"],
    *,
    key: Key | None = None,
  ) -> Float[Array, "B T D"]:
    """Hidden states that predict y_1 ... y_T, all at once (teacher forcing).

    Args:
      source: embedded x.
      source_mask: at least one True in each row unless there is a prompt.
      targets: embedded y_1 ... y_T-1.  Their padding is at the end, where nothing sees
        it but padding.
      key: for dropout; None: no dropout.

    Returns:
      What the final norm gives.

    Raises:
      ConfigError: P + S + T - 1 is more than the positions that were learned.
    """
    source, source_mask = self._with_prompt(source, source_mask)
    x = jnp.concatenate([source, targets], axis=1)
    # Padding of targets needs no mask: it is at their end, where causal order hides it.
    seen = jnp.ones(targets.shape[:2], bool)
    x, _ = self._run(x, jnp.concatenate([source_mask, seen], axis=1), source.shape[1], key=key)
    # x's last real vector, wherever padding has put it, predicts y_1; that of y_t predicts y_t+1.
    x = jnp.concatenate([_last(x, source_mask), x[:, source.shape[1] :]], axis=1)
    return self.decoder_norm(x)

  def read(
    self,
    source: Float[Array, "B S D"],
    source_mask: Bool[Array, "B S"],
    *,
    key: Key | None = None,
  ) -> tuple[Float[Array, "B P+S D"], Bool[Array, "B P+S"]]:
    """Prompt and x alone, arguments as above: what the final norm gives, and the mask."""
    source, source_mask = self._with_prompt(source, source_mask)
    x, _ = self._run(source, source_mask, source.shape[1], key=key)
    return self.decoder_norm(x), source_mask

  def start(
    self,
    source: Float[Array, "B S D"],
    source_mask: Bool[Array, "B S"],
    *,
    max_length: int,
  ) -> tuple[Float[Array, "B D"], DecodeCache]:
    """Reads prompt and x; arguments as above.

    Returns:
      Hidden states that predict the first of at most `max_length` tokens, and the cache.

    Raises:
      ConfigError: P + S + `max_length` - 1 is more than the positions that were learned.
    """
    source, source_mask = self._with_prompt(source, source_mask)
    # The last token is written and never read.
    self._check_length(source.shape[1] + max_length - 1)
    x, shared = self._run(source, source_mask, source.shape[1], key=None, keep=True)

    def empty(leaf: Array) -> Array:  # [... B G S K] -> [... B G T K]
      return jnp.zeros((*leaf.shape[:-2], max_length, leaf.shape[-1]), leaf.dtype)

    cache = DecodeCache(
      self_attention=jax.tree.map(empty, shared),
      cross_attention=shared,
      memory_mask=source_mask,
      position=jnp.zeros((), jnp.int32),
    )
    return self.decoder_norm(_last(x, source_mask))[:, 0, :], cache

  def step(
    self, embeddings: Float[Array, "R D"], cache: DecodeCache
  ) -> tuple[Float[Array, "R D"], DecodeCache]:
    """One position of every row: its hidden states, and the cache with that position written."""
    own, source_mask = cache.self_attention, cache.memory_mask
    assert source_mask is not None  # `start` sets it
    max_length = jax.tree.leaves(own)[0].shape[-2]
    rows_per_example = embeddings.shape[0] // source_mask.shape[0]
    # Positions go on from each row's own number of real tokens, as in training.
    lengths = jnp.repeat(source_mask.sum(axis=1, dtype=jnp.int32), rows_per_example)
    positions = (self._offset + lengths + cache.position)[:, None]  # [R 1]
    x = self._with_positions(embeddings[:, None, :], positions)
    # Places behind the position hold zeros, no keys.
    own_mask = (jnp.arange(max_length) <= cache.position)[None, None, None, :]
    shared_mask = source_mask[:, None, None, :]

    def one_layer(layer, x, caches):
      own, shared = caches
      return layer.step(
        x,
        own,
        shared,
        position=cache.position,
        own_mask=own_mask,
        shared_mask=shared_mask,
        positions=positions,
      )

    inputs: PyTree = (own, cache.cross_attention)
    # Unrolled layers take one entry each, scanned ones trees with an axis of layers.
    if not stack.is_scanned(self.layers):
      inputs = tuple(zip(own, cache.cross_attention))
    x, written = stack.run(self.layers, one_layer, x, inputs)
    cache = dataclasses.replace(cache, self_attention=written, position=cache.position + 1)
    return self.decoder_norm(x)[:, 0, :], cache

  def _run(
    self,
    x: Float[Array, "B L D"],
    mask: Bool[Array, "B L"],
    source_length: int,
    *,
    key: Key | None,
    keep: bool = False,
  ) -> tuple[Float[Array, "B L D"], PyTree]:
    """All layers; their keys and values too, if they are to be kept."""
    length = x.shape[1]
    self._check_length(length)
    counted = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1
    positions = self._offset + jnp.maximum(counted, 0)  # that of padding is never seen
    in_key, layers_key = split_key(key, 2)
    x = dropout(self._with_positions(x, positions), self.dropout_rate, in_key)
    visible = visible_positions(length, source_length if self.full_source else 0)
    attended = jnp.asarray(visible[None, None]) & mask[:, None, None, :]  # [B 1 L L]

    def one_layer(layer, x, layer_key):
      x, memory = layer(x, mask=attended, positions=positions, key=layer_key)
      # Kept for decoding only: as an output of every layer, training would have to hold them.
      return x, memory if keep else None

    keys = stack.split_keys(layers_key, stack.count(self.layers))
    return stack.run(self.layers, one_layer, x, keys, remat=self.remat)

  @property
  def _offset(self) -> int:
    """How many positions a learned prefix takes before the first token."""
    return prefix_positions(self.layers, "self_attention")

  def _with_prompt(
    self, source: Float[Array, "B S D"], mask: Bool[Array, "B S"]
  ) -> tuple[Float[Array, "B P+S D"], Bool[Array, "B P+S"]]:
    return (source, mask) if self.prompt is None else self.prompt(source, mask)

  def _with_positions(
    self, x: Float[Array, "B L D"], positions: Int[Array, "B L"]
  ) -> Float[Array, "B L D"]:
    if self.position_embedder is None:
      return x
    return x + self.position_embedder(positions, dtype=x.dtype.name)

  def _check_length(self, length: int) -> None:
    if self.position_embedder is None:
      return
    length, known = length + self._offset, self.position_embedder.length
    if length > known:
      raise ConfigError(
        f"Prompt, input and target have {length} positions together, and the model has learned"
        f" {known}; shorten the feature lengths or the prompt."
      )


class DecoderLayer(nnx.Module):
  """Attention and mlp, each behind a norm and inside a residual, or both behind the same norm.

  `adapter` is an empty slot for a module [... D] -> [... D] that the layer's result goes through.
  """

  def __init__(self, config: DecoderLMConfig, *, rngs: nnx.Rngs):
    self.pre_self_attention_layer_norm = _norm(config)
    self.self_attention = Attention(
      config.width,
      config.heads,
      config.head_width,
      rngs=rngs,
      kv_heads=config.kv_heads,
      use_bias=config.use_bias,
      scale=config.head_width**-0.5,
      rotary=config.rotary,
      dropout_rate=config.rate_of_attention_dropout,
      initializer=normal(config.init_std),
      param_dtype=config.param_dtype,
    )
    # Parallel layers have one norm, which attention and mlp both read (PaLM, section 2).
    self.pre_mlp_layer_norm = nnx.data(None)
    if not config.parallel:
      self.pre_mlp_layer_norm = _norm(config)
    self.mlp = Mlp(
      config.width,
      config.mlp_width,
      rngs=rngs,
      activations=config.mlp_activations,
      use_bias=config.use_bias,
      initializer=normal(config.init_std),
      param_dtype=config.param_dtype,
    )
    self.adapter = nnx.data(None)
    self.dropout_rate = config.dropout_rate

  def __call__(
    self,
    x: Float[Array, "B L D"],
    *,
    mask: Bool[Array, "B 1 L L"],
    positions: Int[Array, "B L"],
    key: Key | None,
  ) -> tuple[Float[Array, "B L D"], KVCache]:
    """The next layer's x, and this one's keys and values [B G L K]."""
    project_key, attention_key, rest_key = split_key(key, 3)
    read = self.pre_self_attention_layer_norm(x)
    memory = self.self_attention.project(read, positions=positions, key=project_key)
    y = self.self_attention(read, memory, mask=mask, positions=positions, key=attention_key)
    return self._finish(x, read, y, rest_key), memory

  def step(
    self,
    x: Float[Array, "R 1 D"],
    own: KVCache,
    shared: KVCache,
    *,
    position: Int[Array, ""],
    own_mask: Bool[Array, "1 1 1 T"],
    shared_mask: Bool[Array, "B 1 1 S"],
    positions: Int[Array, "R 1"],
  ) -> tuple[Float[Array, "R 1 D"], KVCache]:
    """One position of R rows, written at `position` of their own cache [R G T K]."""
    read = self.pre_self_attention_layer_norm(x)
    new = self.self_attention.project(read, positions=positions)
    # Written before it is read: a position attends to itself.
    own = own.write(new.keys, new.values, position)
    y = self.self_attention.step(
      read, own, shared, own_mask=own_mask, shared_mask=shared_mask, positions=positions
    )
    return self._finish(x, read, y, None), own

  def _finish(
    self,
    x: Float[Array, "B L D"],
    read: Float[Array, "B L D"],
    y: Float[Array, "B L D"],
    key: Key | None,
  ) -> Float[Array, "B L D"]:
    """Adds what attention says, y, and the mlp of the norm that it read or of the next one."""
    y_key, mlp_key, z_key = split_key(key, 3)
    x = x + dropout(y, self.dropout_rate, y_key)
    if self.pre_mlp_layer_norm is not None:
      read = self.pre_mlp_layer_norm(x)
    x = x + dropout(self.mlp(read, key=mlp_key), self.dropout_rate, z_key)
    return x if self.adapter is None else self.adapter(x)


def visible_positions(length: int, source_length: int = 0) -> np.ndarray:
  """bool [L L]: whether query i may attend to key j; the first `source_length` see each other.

  causal:  1 0 0 0     with a source of 2:  1 1 0 0
           1 1 0 0                          1 1 0 0
           1 1 1 0                          1 1 1 0
           1 1 1 1                          1 1 1 1
  """
  index = np.arange(length)
  return (index[None, :] <= index[:, None]) | (index[None, :] < source_length)


def _last(x: Float[Array, "B L D"], mask: Bool[Array, "B S"]) -> Float[Array, "B 1 D"]:
  """The vectors of each row's last real position."""
  # Arg-max finds the first True, so the mask is turned around; padding may be on either side.
  last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
  return jnp.take_along_axis(x, last[:, None, None], axis=1)


def _norm(config: DecoderLMConfig) -> nnx.Module:
  if config.norm == "rms":
    return RMSNorm(config.width, epsilon=config.norm_epsilon, param_dtype=config.param_dtype)
  return LayerNorm(
    config.width,
    epsilon=config.norm_epsilon,
    use_bias=config.use_bias,
    param_dtype=config.param_dtype,
  )
