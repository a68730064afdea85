"""Shapes and arithmetic of a BART, as one hashable value."""

import dataclasses

from promot_jax import token_ids
from promot_jax.models import stack
from promot_jax.models.encoder_decoder_config import EncoderDecoderConfig
from promot_jax.models.family_config import LikeBertConfig, TwoStacksConfig

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
class BartConfig(LikeBertConfig, TwoStacksConfig):
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
    self.require_positive("vocab_size", "width", "heads", "mlp_width", "max_positions")
    self.require_positive("encoder_layers", "decoder_layers")
    self.require_like_bert()
    self.require_rates("dropout_rate", "attention_dropout_rate", "activation_dropout_rate")
    self.require_choices(_CHOICES)

  @property
  def encoder_decoder(self) -> EncoderDecoderConfig:
    """What it is made of."""
    return self.made_of(
      encoder_layers=self.encoder_layers,
      decoder_layers=self.decoder_layers,
      # The default of torch's LayerNorm, which BART's code leaves as it is.
      norm_epsilon=1e-5,
      position_offset=POSITION_OFFSET,
      embedding_scale=self.width**0.5 if self.scale_embedding else 1.0,
      logits_bias=True,
      mlp_dropout_rate=self.activation_dropout_rate,
    )
