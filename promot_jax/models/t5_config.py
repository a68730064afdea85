"""Shapes and arithmetic of a T5, as one hashable value."""

import dataclasses

from promot_jax import token_ids
from promot_jax.errors import ConfigError
from promot_jax.models import stack
from promot_jax.models.encoder_decoder_config import EncoderDecoderConfig

RECIPE_VALUES = ("T5Config",)

RELATIVE_BIASES = ("shared", "per_layer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
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
    for name in ("vocab_size", "width", "heads", "head_width", "mlp_width"):
      if getattr(self, name) < 1:
        raise ConfigError(f"T5Config.{name}={getattr(self, name)} must be at least 1.")
    if self.encoder_layers < 1 or self.decoder_layers < 1:
      raise ConfigError(
        f"T5Config needs at least one layer in each stack, but encoder_layers="
        f"{self.encoder_layers} and decoder_layers={self.decoder_layers}."
      )
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ConfigError(
        f"T5Config.dropout_rate={self.dropout_rate} must be at least 0 and below 1."
      )
    if self.dtype == "float16":
      raise ConfigError(
        "T5Config.dtype='float16' is refused: activations of published T5s exceed its largest value"
        " (65504) and become infinite; use 'bfloat16', which has float32's range."
      )
    if self.relative_bias not in RELATIVE_BIASES:
      raise ConfigError(
        f"T5Config.relative_bias={self.relative_bias!r} is unknown; use one of"
        f" {', '.join(RELATIVE_BIASES)}."
      )
    if self.remat not in stack.REMAT_POLICIES:
      raise ConfigError(
        f"T5Config.remat={self.remat!r} is unknown; use one of {', '.join(stack.REMAT_POLICIES)}."
      )

  @property
  def logits_scale(self) -> float:
    """The factor of the logits."""
    scaled = self.tied_logits if self.scale_logits is None else self.scale_logits
    return self.width**-0.5 if scaled else 1.0

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
    return EncoderDecoderConfig(
      vocab_size=self.vocab_size,
      width=self.width,
      heads=self.heads,
      head_width=self.head_width,
      mlp_width=self.mlp_width,
      encoder_layers=self.encoder_layers,
      decoder_layers=self.decoder_layers,
      mlp_activations=self.mlp_activations,
      use_bias=False,
      attention_scale=1.0,
      init_std=None,
      norm="rms",
      norms="pre",
      norm_epsilon=1e-6,
      relative_bias=self.relative_bias,
      relative_buckets=self.relative_buckets,
      relative_max_distance=self.relative_max_distance,
      embedding_std=self.embedding_std,
      embedding_lookup=self.embedding_lookup,
      tied_logits=self.tied_logits,
      logits_scale=self.logits_scale,
      dropout_rate=self.dropout_rate,
      attention_dropout_rate=self.dropout_rate,
      mlp_dropout_rate=self.dropout_rate,
      dropout_along_length=True,
      scan_layers=self.scan_layers,
      remat=self.remat,
      param_dtype=self.param_dtype,
    )
