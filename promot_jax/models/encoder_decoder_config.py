"""What an encoder, a decoder or both of them are built of, whichever family they belong to.

Nobody writes this value by hand.  The configuration of a family (`T5Config`, `BartConfig`) has the
settings that make sense for it, checks them, and says here which arithmetic they are:

| | T5 | BART |
|---|---|---|
| norms | rms, before each sublayer and after the last layer | layer, after each residual and the embeddings |
| positions | a bias of the scores by distance | a learned vector each |
| scores | not scaled: the first queries are small | divided by sqrt(K) |
| biases | none | in all linear layers, and of the logits |
| dropout | the same at all positions | at each position anew |
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
  """Shapes and arithmetic of the stacks, of the embedding that they share and of the logits."""

  vocab_size: int
  width: int
  heads: int
  head_width: int
  mlp_width: int
  encoder_layers: int
  decoder_layers: int

  # Linear layers.
  mlp_activations: tuple[str, ...]
  use_bias: bool
  attention_scale: float
  """Factor of the queries."""
  init_std: float | None
  """Of kernels and position tables; None: variance 1 / (input features)."""

  # Norms.
  norm: str
  """'rms' or 'layer'."""
  norms: str
  """'pre': of what each sublayer reads, and of what the last layer gives; 'post': of each sum, and of
  what the first layer reads."""
  norm_epsilon: float

  # Positions.
  relative_bias: str | None
  """'shared' (one table a stack), 'per_layer', or None."""
  relative_buckets: int = 32
  relative_max_distance: int = 128
  max_positions: int | None = None
  """Number of learned vectors; None: there are none."""
  position_offset: int = 0
  """Rows in front of them that are never read."""

  # Embeddings and logits.
  embedding_std: float
  embedding_lookup: str
  embedding_scale: float = 1.0
  tied_logits: bool
  logits_scale: float = 1.0
  logits_bias: bool = False
  """Whether a stored bias, which is never trained, is added to logits."""

  # Dropout.
  dropout_rate: float
  """Of the embedded tokens and of what each sublayer adds."""
  attention_dropout_rate: float
  mlp_dropout_rate: float
  dropout_along_length: bool
  """Whether the same features are dropped at all positions, as T5X does."""

  # How it is computed.
  scan_layers: bool
  remat: str
  param_dtype: str
