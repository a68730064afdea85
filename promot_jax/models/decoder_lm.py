"""One decoder-only model, whose configuration makes it a GPT-2, a LLaMA or a PaLM.

Radford et al., 2019 (GPT-2); Touvron et al., 2023, arXiv:2302.13971 (LLaMA); Chowdhery et al.,
2022, arXiv:2204.02311 (PaLM).  It reads the batches of an encoder-decoder: x is
`encoder_input_tokens`, with whatever separates it from y at its end and with padding on either side;
y is `decoder_target_tokens`.  The sequence [x; y] is made here, and hidden states are returned where
they predict y, so losses, scores and metrics need not know which kind of model they have.

The module holds parameters only.  Randomness, caches and batches are arguments; `key=None` means no
dropout and is the only difference between training and evaluation.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from promot_jax.models.attention import input_mask
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.decoder_stack import Decoder
from promot_jax.models.kv_cache import DecodeCache
from promot_jax.models.layers import Embedding
from promot_jax.models.preparation import features_read, prepare
from promot_jax.models.readout import Readout
from promot_jax.types import Array, Batch, Bool, Float, Int, Key


class DecoderLM(nnx.Module):
  """A decoder-only model with the interface of T5; see `DecoderLMConfig`.

  Example:
    model = DecoderLM(decoder_sizes.gpt2_small(), nnx.Rngs(0))
    logits = model.logits(model.hidden(batch))
  """

  def __init__(self, config: DecoderLMConfig, rngs: nnx.Rngs):
    self.config = config
    self.token_ids = config.token_ids
    self.token_embedder = Embedding(
      config.vocab_size,
      config.width,
      rngs=rngs,
      std=config.embedding_std,
      lookup=config.embedding_lookup,
      param_dtype=config.param_dtype,
    )
    self.decoder = Decoder(config, rngs=rngs)
    # An empty slot: a plain None would be static to NNX and take no module later.
    self.head = nnx.data(None)
    self.tied_logits = config.tied_logits
    self.logits_scale = config.logits_scale

  def hidden(
    self,
    batch: Batch,
    *,
    input_embeddings: Float[Array, "B S D"] | None = None,
    key: Key | None = None,
  ) -> Float[Array, "B T D"]:
    """Hidden states that predict the T targets, after the final norm (teacher forcing).

    Args:
      batch: encoder_input_tokens [B S], decoder_target_tokens [B T], what methods read, and maybe
        encoder_input_mask [B S] (without it see `attention.input_mask`).
      input_embeddings: [B S D] in place of the embedded x.  Then `encoder_input_tokens` may be left
        out.
      key: for dropout; None: no dropout.

    Raises:
      ConfigError: the sequence is longer than the positions that were learned.
    """
    # Its length tells methods where x ends, as an infix between x and y needs it.
    given = batch["encoder_input_tokens"] if input_embeddings is None else input_embeddings
    model = prepare(self, batch, key, source_length=given.shape[1])
    source, mask = model._source(batch, input_embeddings)
    # The last target is predicted and never read.
    targets = model._embed(batch["decoder_target_tokens"][:, :-1])
    return model.decoder(source, mask, targets, key=key)

  def encode(
    self,
    batch: Batch,
    *,
    input_embeddings: Float[Array, "B S D"] | None = None,
    key: Key | None = None,
  ) -> tuple[Float[Array, "B P+S D"], Bool[Array, "B P+S"]]:
    """What the network makes of x without a target: [B P+S D] after the final norm, and its mask.

    Arguments as those of `hidden`; targets are not needed.
    """
    given = batch["encoder_input_tokens"] if input_embeddings is None else input_embeddings
    model = prepare(self, batch, key, source_length=given.shape[1])
    source, mask = model._source(batch, input_embeddings)
    return model.decoder.read(source, mask, key=key)

  def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Float32 logits of hidden states."""
    return self.readout.logits(hidden)

  @property
  def readout(self) -> Readout:
    """The output kernel, which may be the embedding table, and the factor of the logits."""
    tied = self.tied_logits
    kernel = self.token_embedder.embedding[...].T if tied else self.decoder.logits_dense.kernel[...]
    return Readout(kernel=kernel, scale=self.logits_scale)

  @property
  def reader(self) -> Decoder:
    """The stack that reads the input and has the slot for a prompt."""
    return self.decoder

  @property
  def stacks(self) -> dict[str, nnx.Module]:
    """Its stacks of layers by name: one."""
    return {"decoder": self.decoder}

  def prefill(
    self,
    batch: Batch,
    *,
    max_length: int,
    input_embeddings: Float[Array, "B S D"] | None = None,
  ) -> tuple[Float[Array, "B V"], DecodeCache]:
    """Reads x: logits [B V] of the first generated token, and the cache to go on with.

    Args:
      batch: encoder_input_tokens [B S], and what methods read; rows may have unequal lengths.
      max_length: the largest number of tokens that will be generated.
      input_embeddings: as in `hidden`.

    Raises:
      ConfigError: the sequence could become longer than the positions that were learned.
    """
    given = batch["encoder_input_tokens"] if input_embeddings is None else input_embeddings
    model = prepare(self, batch, source_length=given.shape[1])
    source, mask = model._source(batch, input_embeddings)
    hidden, cache = model.decoder.start(source, mask, max_length=max_length)
    return model.logits(hidden), dataclasses.replace(cache, features=features_read(self, batch))

  def decode_step(
    self, tokens: Int[Array, "R"], cache: DecodeCache
  ) -> tuple[Float[Array, "R V"], DecodeCache]:
    """Tokens just generated -> logits of the next ones, and the cache that knows them."""
    # Tokens come without their batch: the cache has kept what methods read of it.
    model = prepare(self, cache.features)
    embeddings = model._embed(tokens)
    hidden, cache = model.decoder.step(embeddings, cache)
    return model.logits(hidden), cache

  def _source(
    self, batch: Batch, input_embeddings: Float[Array, "B S D"] | None
  ) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
    """Embedded x and its mask."""
    if input_embeddings is None:
      embeddings = self._embed(batch["encoder_input_tokens"])
    else:
      embeddings = input_embeddings.astype(jnp.dtype(self.config.dtype))
    return embeddings, input_mask(batch, embeddings.shape[:2], pad=self.config.pad)

  def _embed(self, tokens: Int[Array, "..."]) -> Float[Array, "... D"]:
    """In the compute dtype."""
    # Padding may be no token at all, and a row of the table outside of it would be NaN.
    return self.token_embedder(jnp.maximum(tokens, 0), dtype=self.config.dtype)
