"""Shapes and arithmetic of a BERT, as one hashable value."""

import dataclasses

from promot_jax.errors import ConfigError
from promot_jax.models import stack
from promot_jax.models.encoder_decoder_config import EncoderDecoderConfig
from promot_jax.models.layers import ACTIVATIONS

_CHOICES = {
  "activation": tuple(ACTIVATIONS),
  "embedding_lookup": ("gather", "one_hot"),
  "remat": tuple(stack.REMAT_POLICIES),
  "dtype": ("float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
  """Everything that decides the shapes and the arithmetic of a BERT; the defaults are BERT's own."""

  vocab_size: int
  width: int
  heads: int
  """Each has width / heads features."""
  mlp_width: int
  layers: int
  max_positions: int = 512
  """The longest input, prompt included."""
  token_types: int = 2
  """Kinds of segments, such as a question and a passage."""
  pooler: bool = True
  """Whether there is a layer that reads the first token's vector."""
  activation: str = "gelu_exact"
  norm_epsilon: float = 1e-12
  dropout_rate: float = 0.0
  """Of the embedded tokens and of what each sublayer adds."""
  attention_dropout_rate: float = 0.0
  """Of attention weights."""
  scan_layers: bool = False
  remat: str = "none"
  """'none', 'full' or 'minimal': see `stack.REMAT_POLICIES`."""
  dtype: str = "float32"
  """Of activations.  Softmax and norms are float32 whatever it is."""
  param_dtype: str = "float32"
  embedding_lookup: str = "gather"
  """'gather' or 'one_hot'."""
  init_std: float = 0.02
  """Of all kernels and tables of a random start."""
  pad: int = 0

  def __post_init__(self):
    sizes = ("vocab_size", "width", "heads", "mlp_width", "layers", "max_positions", "token_types")
    for name in sizes:
      if getattr(self, name) < 1:
        raise ConfigError(f"BertConfig.{name}={getattr(self, name)} must be at least 1.")
    if self.width % self.heads:
      raise ConfigError(
        f"BertConfig.width={self.width} must be a multiple of BertConfig.heads={self.heads}."
      )
    for name in ("dropout_rate", "attention_dropout_rate"):
      if not 0.0 <= getattr(self, name) < 1.0:
        raise ConfigError(
          f"BertConfig.{name}={getattr(self, name)} must be at least 0 and below 1."
        )
    for name, choices in _CHOICES.items():
      if getattr(self, name) not in choices:
        raise ConfigError(
          f"BertConfig.{name}={getattr(self, name)!r} is unknown; use one of {', '.join(choices)}."
        )

  @property
  def head_width(self) -> int:
    """Features of each head."""
    return self.width // self.heads

  @property
  def stack_layers(self) -> dict[str, int]:
    """How many layers its one stack has."""
    return {"encoder": self.layers}

  @property
  def key_heads(self) -> int:
    """Heads of keys and values."""
    return self.heads

  @property
  def encoder_decoder(self) -> EncoderDecoderConfig:
    """What it is made of: BART's encoder, with a table of positions from row 0."""
    return EncoderDecoderConfig(
      vocab_size=self.vocab_size,
      width=self.width,
      heads=self.heads,
      head_width=self.head_width,
      mlp_width=self.mlp_width,
      encoder_layers=self.layers,
      decoder_layers=0,
      mlp_activations=(self.activation,),
      use_bias=True,
      attention_scale=self.head_width**-0.5,
      init_std=self.init_std,
      norm="layer",
      norms="post",
      norm_epsilon=self.norm_epsilon,
      relative_bias=None,
      max_positions=self.max_positions,
      embedding_std=self.init_std,
      embedding_lookup=self.embedding_lookup,
      tied_logits=True,
      dropout_rate=self.dropout_rate,
      attention_dropout_rate=self.attention_dropout_rate,
      mlp_dropout_rate=0.0,
      dropout_along_length=False,
      scan_layers=self.scan_layers,
      remat=self.remat,
      param_dtype=self.param_dtype,
    )
