"""Shapes and arithmetic of a T5, as one hashable value."""

import dataclasses

from promot_jax import token_ids
from promot_jax.errors import ConfigError
from promot_jax.models import stack
from promot_jax.models.encoder_decoder_config import EncoderDecoderConfig
from promot_jax.models.family_config import TwoStacksConfig

RECIPE_VALUES = ("T5Config",)

_CHOICES = {
  "relative_bias": ("shared", "per_layer"),
  "embedding_lookup": ("gather", "one_hot"),
  "remat": tuple(stack.REMAT_POLICIES),
  "dtype": ("float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config(TwoStacksConfig):
  """Everything that decides the shapes and the arithmetic of a T5."""

  vocab_size: int
  width: int
  heads: int
  head_width: int
  mlp_width: int
  encoder_layers: int
  decoder_layers: int
  mlp_activations: tuple[str, ...] = ("gelu", "linear")
  """('gelu', 'linear') for T5 1.1 and mT5, ('relu',) for T5 1.0."""
  tied_logits: bool = False
  """Whether the embedding table is the output kernel (T5 1.0)."""
  scale_logits: bool | None = None
  """Whether logits are multiplied by width**-0.5; None: if and only if they are tied."""
  dropout_rate: float = 0.0
  relative_bias: str = "shared"
  """'shared': all layers of a stack read one table; 'per_layer': each has a table of its own (umT5
  and T5X's scanned models)."""
  relative_buckets: int = 32
  relative_max_distance: int = 128
  scan_layers: bool = False
  remat: str = "none"
  """'none', 'full' or 'minimal': see `stack.REMAT_POLICIES`."""
  dtype: str = "float32"
  """Of activations.  Softmax, norms and logits are float32 whatever it is."""
  param_dtype: str = "float32"
  embedding_lookup: str = "gather"
  """'gather' or 'one_hot'."""
  embedding_std: float = 1.0
  decoder_start: int = 0
  pad: int = 0
  eos: int = 1
  """Ends every target."""
  output_ends: tuple[int, ...] | None = None
  """Ids of which each ends an output; None: `eos` alone; (): none does."""
  forced_bos: token_ids.Ids = None
  """Token that every output begins with, or several of which it may; None: any."""
  forced_eos: token_ids.Ids = None
  """Token that ends an output of the greatest length, or several of which one may; None: any."""

  def __post_init__(self):
    # gin and JSON give lists; the configuration must be hashable to be a static jit argument.
    object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
    token_ids.settle(self)
    self.require_positive("vocab_size", "width", "heads", "head_width", "mlp_width")
    if self.encoder_layers < 1 or self.decoder_layers < 1:
      raise ConfigError(
        f"T5Config needs at least one layer in each stack, but encoder_layers="
        f"{self.encoder_layers} and decoder_layers={self.decoder_layers}."
      )
    self.require_rates("dropout_rate")
    if self.dtype == "float16":
      raise ConfigError(
        "T5Config.dtype='float16' is refused: activations of published T5s exceed its largest value"
        " (65504) and become infinite; use 'bfloat16', which has float32's range."
      )
    self.require_choices(_CHOICES)

  @property
  def logits_scale(self) -> float:
    """The factor of the logits."""
    scaled = self.tied_logits if self.scale_logits is None else self.scale_logits
    return self.width**-0.5 if scaled else 1.0

  @property
  def bos(self) -> None:
    """No token begins an input."""
    return None

  @property
  def max_positions(self) -> None:
    """Positions are relative, so any length will do."""
    return None

  @property
  def encoder_decoder(self) -> EncoderDecoderConfig:
    """What it is made of."""
    return self.made_of(
      encoder_layers=self.encoder_layers,
      decoder_layers=self.decoder_layers,
      mlp_activations=self.mlp_activations,
      use_bias=False,
      # T5 draws its first queries so small that their products need no division by sqrt(K).
      attention_scale=1.0,
      init_std=None,
      norm="rms",
      norms="pre",
      norm_epsilon=1e-6,
      relative_bias=self.relative_bias,
      relative_buckets=self.relative_buckets,
      relative_max_distance=self.relative_max_distance,
      embedding_std=self.embedding_std,
      tied_logits=self.tied_logits,
      logits_scale=self.logits_scale,
      attention_dropout_rate=self.dropout_rate,
      mlp_dropout_rate=self.dropout_rate,
      dropout_along_length=True,
    )
