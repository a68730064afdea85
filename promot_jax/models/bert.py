"""BERT: an encoder alone, which reads and does not write: what it says, a prediction head reads off it.

Devlin et al., 2019, arXiv:1810.04805; the arithmetic is that of transformers' `BertModel`.  It is the
encoder of `encoder_decoder_stacks` behind three tables: of tokens, of positions and of segments.  The
module holds parameters only; `key=None` means no dropout.
"""

import functools

import jax.numpy as jnp
from flax import nnx

from promot_jax.models.attention import input_mask
from promot_jax.models.bert_config import BertConfig
from promot_jax.models.encoder_decoder_stacks import Encoder
from promot_jax.models.layers import Embedding, Linear, normal
from promot_jax.models.preparation import prepare
from promot_jax.token_ids import TokenIds
from promot_jax.types import Array, Batch, Bool, Float, Key

TYPES = "encoder_input_types"
"""The feature int32 [B S] that says which segment a token is of; without it all are of the first."""


class Bert(nnx.Module):
  """Tokens -> a vector for each, and, with a pooler, one for all.

  Example:
    hidden, mask = model.encode({"encoder_input_tokens": tokens})
    whole = model.pooled(hidden[:, 0])
  """

  def __init__(self, config: BertConfig, rngs: nnx.Rngs):
    self.config = config
    table = functools.partial(
      Embedding, rngs=rngs, std=config.init_std, param_dtype=config.param_dtype
    )
    self.token_embedder = table(config.vocab_size, config.width, lookup=config.embedding_lookup)
    self.type_embedder = table(config.token_types, config.width)
    self.encoder = Encoder(config.encoder_decoder, rngs=rngs)
    # An empty slot: a plain None would be static to NNX and take no module later.
    self.head = nnx.data(None)
    # Published files may come without one, and a random one would be read as if it were theirs.
    if config.pooler:
      self.pooler = Linear(
        config.width,
        config.width,
        rngs=rngs,
        use_bias=True,
        initializer=normal(config.init_std),
        param_dtype=config.param_dtype,
      )

  def encode(
    self,
    batch: Batch,
    *,
    input_embeddings: Float[Array, "B S D"] | None = None,
    key: Key | None = None,
  ) -> tuple[Float[Array, "B P+S D"], Bool[Array, "B P+S"]]:
    """What the last layer makes of each token, and where there are tokens.

    Args:
      batch: encoder_input_tokens [B S], maybe encoder_input_mask [B S] (without it see
        `attention.input_mask`) and encoder_input_types [B S], and what methods read.
      input_embeddings: in place of the embedded tokens, before types and positions are added.
      key: for dropout.

    Raises:
      ConfigError: P + S is more than the positions that were learned.
    """
    model = prepare(self, batch, key)
    if input_embeddings is None:
      embeddings = model.token_embedder(batch["encoder_input_tokens"], dtype=self.config.dtype)
    else:
      embeddings = input_embeddings.astype(jnp.dtype(self.config.dtype))
    shape = embeddings.shape[:2]
    types = jnp.asarray(batch.get(TYPES, jnp.zeros(shape, jnp.int32)))
    # Before a prompt is put in front: its vectors are trained whole, so no type is added to them.
    embeddings = embeddings + model.type_embedder(types, dtype=self.config.dtype)
    return model.encoder(embeddings, input_mask(batch, shape, pad=self.config.pad), key=key)

  def pooled(self, first: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """What the pooler makes of the first token's vector: tanh(W x + b)."""
    return jnp.tanh(self.pooler(first))

  @property
  def token_ids(self) -> TokenIds:
    """As its configuration says."""
    return self.config.token_ids

  @property
  def reader(self) -> Encoder:
    """The stack that reads the input and has the slot for a prompt."""
    return self.encoder

  @property
  def stacks(self) -> dict[str, nnx.Module]:
    """Its stack of layers by name."""
    return {"encoder": self.encoder}
