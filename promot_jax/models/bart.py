"""BART: an encoder-decoder with learned positions, norms after each residual, and biases.

Lewis et al., 2020, arXiv:1910.13461; the arithmetic is that of transformers'
`BartForConditionalGeneration`.  The output kernel is the embedding table.  The module holds arrays
only.  Randomness, caches and batches are arguments; `key=None` means no dropout and is the only
difference between training and evaluation.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax.models.bart_config import BartConfig
from promot_jax.models.bart_stacks import Decoder, Encoder
from promot_jax.models.kv_cache import DecodeCache
from promot_jax.models.layers import Embedding, split_key
from promot_jax.models.padding import input_mask
from promot_jax.models.preparation import features_read, prepare
from promot_jax.models.readout import Readout
from promot_jax.token_ids import TokenIds
from promot_jax.types import Array, Batch, Float, Key


class Buffer(nnx.Variable):
  """An array that belongs to a network and is stored with it, and is never trained."""


class Bart(nnx.Module):
  """An encoder-decoder with the interface and, where it has the same parts, the names of T5.

  Example:
    model = Bart(bart_sizes.bart_base(), nnx.Rngs(0))
    logits = model.logits(model.hidden(batch))
  """

  def __init__(self, config: BartConfig, rngs: nnx.Rngs):
    self.config = config
    self.token_embedder = Embedding(
      config.vocab_size,
      config.width,
      rngs=rngs,
      std=config.init_std,
      lookup=config.embedding_lookup,
      param_dtype=config.param_dtype,
    )
    self.encoder = Encoder(config, rngs=rngs)
    self.decoder = Decoder(config, rngs=rngs)
    self.final_logits_bias = Buffer(jnp.zeros((config.vocab_size,), jnp.float32))
    self.head = nnx.data(None)

  def hidden(
    self, batch: Batch, *, input_embeddings: Array | None = None, key: Key | None = None
  ) -> Array:
    """Hidden states [B T D] of all target positions (teacher forcing).

    Args:
      batch: encoder_input_tokens [B S], decoder_input_tokens [B T], and what methods
        read.
      input_embeddings: [B S D] in place of the embedded encoder tokens, before positions are added.
      key: for dropout; None: no dropout.
    """
    model = prepare(self, batch, key)
    encoder_key, decoder_key = split_key(key, 2)
    memory, mask = model.encode(batch, input_embeddings=input_embeddings, key=encoder_key)
    targets = model._embed(batch["decoder_input_tokens"])
    return model.decoder(targets, memory, mask, key=decoder_key)

  def encode(
    self, batch: Batch, *, input_embeddings: Array | None = None, key: Key | None = None
  ) -> tuple[Array, Array]:
    """Memory [B P+S D] and its mask [B P+S] (bool); P is the length of an attached prompt.

    `encoder_input_mask` [B S] says which positions are text; without it see `padding.input_mask`.
    With `input_embeddings`, `encoder_input_tokens` may be left out.
    """
    model = prepare(self, batch, key)
    if input_embeddings is None:
      embeddings = model._embed(batch["encoder_input_tokens"])
    else:
      embeddings = input_embeddings.astype(jnp.dtype(self.config.dtype))
    mask = input_mask(batch, embeddings.shape[:2], pad=self.config.pad)
    return model.encoder(embeddings, mask, key=key)

  def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Float32 logits of hidden states."""
    return self.readout.logits(hidden)

  @property
  def readout(self) -> Readout:
    """The embedding table as the output kernel, and a bias that has no gradient."""
    bias = jax.lax.stop_gradient(self.final_logits_bias[...].astype(jnp.float32))
    return Readout(kernel=self.token_embedder.embedding[...].T, bias=bias)

  @property
  def reader(self) -> Encoder:
    """The stack that reads the input and has the slot for a prompt."""
    return self.encoder

  @property
  def stacks(self) -> dict[str, nnx.Module]:
    """Its stacks of layers by name, the reader first."""
    return {"encoder": self.encoder, "decoder": self.decoder}

  @property
  def token_ids(self) -> TokenIds:
    """What pads, begins and ends its sequences."""
    return self.config.token_ids

  def prefill(
    self, batch: Batch, *, max_length: int, input_embeddings: Array | None = None
  ) -> tuple[Array, DecodeCache]:
    """Reads the source: logits [B V] of the first generated token, and the cache to go on with.

    Args:
      batch: encoder_input_tokens [B S], and what methods read.
      max_length: the largest number of tokens that will be generated.
      input_embeddings: as in `hidden`.
    """
    model = prepare(self, batch)
    memory, mask = model.encode(batch, input_embeddings=input_embeddings)
    cache = model.decoder.start(memory, mask, max_length=max_length)
    cache = dataclasses.replace(cache, features=features_read(self, batch))
    first = jnp.full((memory.shape[0],), self.config.decoder_start, jnp.int32)
    return model.decode_step(first, cache)

  def decode_step(self, tokens: Array, cache: DecodeCache) -> tuple[Array, DecodeCache]:
    """Tokens [R] just generated -> logits [R V] of the next ones, and the cache that knows them."""
    model = prepare(self, cache.features)
    hidden, cache = model.decoder.step(model._embed(tokens), cache)
    return model.logits(hidden), cache

  def _embed(self, tokens: Array) -> Array:
    """[...] -> [... D] in the compute dtype."""
    embeddings = self.token_embedder(tokens, dtype=self.config.dtype)
    if not self.config.scale_embedding:
      return embeddings
    return embeddings * jnp.asarray(self.config.width**0.5, embeddings.dtype)
