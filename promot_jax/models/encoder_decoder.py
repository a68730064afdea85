"""The encoder-decoder: T5, mT5 and umT5, BART, and whatever else a configuration makes of it.

The module holds arrays only.  Randomness, caches and batches are arguments; `key=None` means no
dropout and is the only difference between training and evaluation.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax.models.attention import input_mask
from promot_jax.models.encoder_decoder_stacks import Decoder, Encoder
from promot_jax.models.kv_cache import DecodeCache
from promot_jax.models.layers import Embedding, split_key
from promot_jax.models.preparation import features_read, prepare
from promot_jax.models.readout import Readout
from promot_jax.types import Array, Batch, Bool, Float, Int, Key


class Buffer(nnx.Variable):
  """An array that belongs to a network and is stored with it, and is never trained."""


class EncoderDecoder(nnx.Module):
  """One embedding, two stacks; a `Backbone`.

  The networks of a family, `T5` and `Bart`, are of a class of their own name, by which files of
  methods know which network they belong to; everything that they do is here.
  """

  def __init__(self, config: Any, rngs: nnx.Rngs):
    """`config` is of a family; its `encoder_decoder` says what that is made of."""
    self.config = config
    self.token_ids = config.token_ids
    made_of = config.encoder_decoder
    self.token_embedder = Embedding(
      made_of.vocab_size,
      made_of.width,
      rngs=rngs,
      std=made_of.embedding_std,
      lookup=made_of.embedding_lookup,
      param_dtype=made_of.param_dtype,
    )
    self.encoder = Encoder(made_of, rngs=rngs)
    self.decoder = Decoder(made_of, rngs=rngs)
    if made_of.logits_bias:
      self.final_logits_bias = Buffer(jnp.zeros((made_of.vocab_size,), jnp.float32))
    # An empty slot: a plain None would be static to NNX and take no module later.
    self.head = nnx.data(None)
    self.embedding_scale = made_of.embedding_scale
    self.tied_logits = made_of.tied_logits
    self.logits_scale = made_of.logits_scale
    self.has_logits_bias = made_of.logits_bias

  def hidden(
    self,
    batch: Batch,
    *,
    input_embeddings: Float[Array, "B S D"] | None = None,
    key: Key | None = None,
  ) -> Float[Array, "B T D"]:
    """Hidden states of all target positions, after the last norm (teacher forcing).

    Args:
      batch: encoder_input_tokens [B S], decoder_input_tokens [B T], and what methods read.
      input_embeddings: in place of the embedded encoder tokens, before positions are added.
      key: for dropout; None: no dropout.
    """
    model = prepare(self, batch, key)
    # Prepared once for both stacks: nothing of a prepared model waits, so `encode` adds nothing.
    encoder_key, decoder_key = split_key(key, 2)
    memory, mask = model.encode(batch, input_embeddings=input_embeddings, key=encoder_key)
    targets = model._embed(batch["decoder_input_tokens"])
    return model.decoder(targets, memory, mask, key=decoder_key)

  def encode(
    self,
    batch: Batch,
    *,
    input_embeddings: Float[Array, "B S D"] | None = None,
    key: Key | None = None,
  ) -> tuple[Float[Array, "B P+S D"], Bool[Array, "B P+S"]]:
    """Memory and its mask; P is the length of an attached prompt.

    `encoder_input_mask` [B S] says which positions are text; without it see `attention.input_mask`.
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
    """The output kernel, which may be the embedding table, the logits' factor, and maybe a bias."""
    tied = self.tied_logits
    kernel = self.token_embedder.embedding[...].T if tied else self.decoder.logits_dense.kernel[...]
    bias = None
    if self.has_logits_bias:
      # Stored with the network and never trained, so no loss may look for its gradient.
      bias = jax.lax.stop_gradient(self.final_logits_bias[...].astype(jnp.float32))
    return Readout(kernel=kernel, bias=bias, scale=self.logits_scale)

  @property
  def reader(self) -> Encoder:
    """The stack that reads the input and has the slot for a prompt."""
    return self.encoder

  @property
  def stacks(self) -> dict[str, nnx.Module]:
    """Its stacks of layers by name, the reader first."""
    return {"encoder": self.encoder, "decoder": self.decoder}

  def prefill(
    self,
    batch: Batch,
    *,
    max_length: int,
    input_embeddings: Float[Array, "B S D"] | None = None,
  ) -> tuple[Float[Array, "B V"], DecodeCache]:
    """Reads the source: logits of the first generated token, and the cache to go on with.

    Args:
      batch: encoder_input_tokens [B S], and what methods read.
      max_length: the largest number of tokens that will be generated.
      input_embeddings: as in `hidden`.
    """
    model = prepare(self, batch)
    memory, mask = model.encode(batch, input_embeddings=input_embeddings)
    cache = model.decoder.start(memory, mask, max_length=max_length)
    cache = dataclasses.replace(cache, features=features_read(self, batch))
    # One row an example: the first step is the same for all of its beams or samples.
    first = jnp.full((memory.shape[0],), self.config.decoder_start, jnp.int32)
    return model.decode_step(first, cache)

  def decode_step(
    self, tokens: Int[Array, "R"], cache: DecodeCache
  ) -> tuple[Float[Array, "R V"], DecodeCache]:
    """Tokens just generated -> logits of the next ones, and the cache that knows them."""
    # Tokens come without their batch: the cache has kept what methods read of it.
    model = prepare(self, cache.features)
    hidden, cache = model.decoder.step(model._embed(tokens), cache)
    return model.logits(hidden), cache

  def _embed(self, tokens: Int[Array, "..."]) -> Float[Array, "... D"]:
    """In the compute dtype."""
    embeddings = self.token_embedder(tokens, dtype=self.config.dtype)
    if self.embedding_scale == 1.0:
      return embeddings
    return embeddings * jnp.asarray(self.embedding_scale, embeddings.dtype)
