"""Shapes and arithmetic of a BART, as one hashable value."""

import dataclasses

from promot_jax import token_ids
from promot_jax.errors import ConfigError
from promot_jax.models import stack
from promot_jax.models.encoder_decoder_config import EncoderDecoderConfig
from promot_jax.models.layers import ACTIVATIONS

RECIPE_VALUES = ("BartConfig",)

POSITION_OFFSET = 2
"""Rows at the start of the published position tables that are never read."""

_CHOICES = {
  "embedding_lookup": ("gather", "one_hot"),
  "remat": tuple(stack.REMAT_POLICIES),
  # float16 would need its losses scaled
  "dtype": ("float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BartConfig:
  """Everything that decides the shapes and the arithmetic of a BART, and how it is decoded."""

  vocab_size: int
  width: int
  heads: int
  """Of both stacks; each has width / heads features."""
  mlp_width: int
  encoder_layers: int
  decoder_layers: int
  max_positions: int = 1024
  """The longest input, prompt included, and the longest target."""
  activation: str = "gelu_exact"
  scale_embedding: bool = False
  """Whether embedded tokens are multiplied by width**0.5; logits never are."""
  dropout_rate: float = 0.0
  """Of the embedded tokens and of what each sublayer adds."""
  attention_dropout_rate: float = 0.0
  """Of attention weights."""
  activation_dropout_rate: float = 0.0
  """Inside of the mlp."""
  scan_layers: bool = False
  remat: str = "none"
  """'none', 'full' or 'minimal': see `stack.REMAT_POLICIES`."""
  dtype: str = "float32"
  """Of activations.  Softmax, norms and logits are float32 whatever it is."""
  param_dtype: str = "float32"
  embedding_lookup: str = "gather"
  """'gather' or 'one_hot'."""
  init_std: float = 0.02
  """Of all kernels and tables of a random start."""
  bos: int = 0
  pad: int = 1
  eos: int = 2
  """Ends every target."""
  output_ends: tuple[int, ...] | None = None
  """Ids of which each ends an output; None: `eos` alone; (): none does."""
  decoder_start: int = 2
  forced_bos: token_ids.Ids = 0
  """Token that every output begins with, or several of which it may; None: any."""
  forced_eos: token_ids.Ids = 2
  """Token that ends an output of the greatest length, or several of which one may; None: any."""

  def __post_init__(self):
    token_ids.settle(self)
    sizes = ("vocab_size", "width", "heads", "mlp_width", "max_positions")
    for name in (*sizes, "encoder_layers", "decoder_layers"):
      if getattr(self, name) < 1:
        raise ConfigError(f"BartConfig.{name}={getattr(self, name)} must be at least 1.")
    if self.width % self.heads:
      raise ConfigError(
        f"BartConfig.width={self.width} must be a multiple of BartConfig.heads={self.heads}."
      )
    if self.activation not in ACTIVATIONS:
      raise ConfigError(
        f"BartConfig.activation={self.activation!r} is unknown; use one of {', '.join(ACTIVATIONS)}."
      )
    for name in ("dropout_rate", "attention_dropout_rate", "activation_dropout_rate"):
      if not 0.0 <= getattr(self, name) < 1.0:
        raise ConfigError(
          f"BartConfig.{name}={getattr(self, name)} must be at least 0 and below 1."
        )
    for name, choices in _CHOICES.items():
      if getattr(self, name) not in choices:
        raise ConfigError(
          f"BartConfig.{name}={getattr(self, name)!r} is unknown; use one of {', '.join(choices)}."
        )

  @property
  def head_width(self) -> int:
    """Features of each head."""
    return self.width // self.heads

  @property
  def token_ids(self) -> token_ids.TokenIds:
    """What pads, begins and ends sequences."""
    return token_ids.TokenIds(
      pad=self.pad,
      eos=self.eos,
      output_ends=self.output_ends,
      decoder_start=self.decoder_start,
      forced_first=self.forced_bos,
      forced_last=self.forced_eos,
    )

  @property
  def stack_layers(self) -> dict[str, int]:
    """How many layers each stack has, the reader first."""
    return {"encoder": self.encoder_layers, "decoder": self.decoder_layers}

  @property
  def key_heads(self) -> int:
    """Heads of keys and values."""
    return self.heads

  @property
  def encoder_decoder(self) -> EncoderDecoderConfig:
    """What it is made of."""
    return EncoderDecoderConfig(
      vocab_size=self.vocab_size,
      width=self.width,
      heads=self.heads,
      head_width=self.head_width,
      mlp_width=self.mlp_width,
      encoder_layers=self.encoder_layers,
      decoder_layers=self.decoder_layers,
      mlp_activations=(self.activation,),
      use_bias=True,
      attention_scale=self.head_width**-0.5,
      init_std=self.init_std,
      norm="layer",
      norms="post",
      norm_epsilon=1e-5,
      relative_bias=None,
      max_positions=self.max_positions,
      position_offset=POSITION_OFFSET,
      embedding_std=self.init_std,
      embedding_lookup=self.embedding_lookup,
      embedding_scale=self.width**0.5 if self.scale_embedding else 1.0,
      tied_logits=True,
      logits_bias=True,
      dropout_rate=self.dropout_rate,
      attention_dropout_rate=self.attention_dropout_rate,
      mlp_dropout_rate=self.activation_dropout_rate,
      dropout_along_length=False,
      scan_layers=self.scan_layers,
      remat=self.remat,
      param_dtype=self.param_dtype,
    )
