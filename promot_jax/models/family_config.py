"""What the configurations of several families say alike: checks of their fields, and what follows from them.

These classes have no fields.  A family's configuration is one frozen dataclass that lists its own, in
its own order and with its own defaults, as recipes and stored identities know them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax.errors import ConfigError
from promot_jax.models.encoder_decoder_config import EncoderDecoderConfig
from promot_jax.models.layers import ACTIVATIONS
from promot_jax.token_ids import Ids, TokenIds

# What `EncoderDecoderConfig` calls by the name that every family of encoders and decoders has for it.
_SHARED = (
  *("vocab_size", "width", "heads", "head_width", "mlp_width"),
  *("embedding_lookup", "dropout_rate", "scan_layers", "remat", "param_dtype"),
)


class FamilyConfig:
  """Of any family."""

  def require_positive(self, *names: str) -> None:
    """Raises ConfigError for a size below 1."""
    for name in names:
      if getattr(self, name) < 1:
        raise ConfigError(f"{self._field(name)} must be at least 1.")

  def require_rates(self, *names: str) -> None:
    """Raises ConfigError for a rate of dropout that is none; None stands for another one."""
    for name in names:
      # Not 1 either: what is kept is divided by 1 - rate.
      rate = getattr(self, name)
      if rate is not None and not 0.0 <= rate < 1.0:
        raise ConfigError(f"{self._field(name)} must be at least 0 and below 1.")

  def require_choices(self, choices: Mapping[str, Sequence[str]]) -> None:
    """Raises ConfigError for a value that is not among those of its field."""
    for name, known in choices.items():
      if getattr(self, name) not in known:
        raise ConfigError(f"{self._field(name)} is unknown; use one of {', '.join(known)}.")

  def _field(self, name: str) -> str:
    value = getattr(self, name)
    return f"{type(self).__name__}.{name}={value!r}"


class WritingConfig(FamilyConfig):
  """Of families that write text."""

  pad: int
  eos: int
  output_ends: tuple[int, ...] | None
  decoder_start: Any
  forced_bos: Ids = None
  forced_eos: Ids

  @property
  def token_ids(self) -> TokenIds:
    """What pads, begins and ends sequences."""
    return TokenIds(
      pad=self.pad,
      eos=self.eos,
      output_ends=self.output_ends,
      decoder_start=self.decoder_start,
      forced_first=self.forced_bos,
      forced_last=self.forced_eos,
    )


class StackedConfig(FamilyConfig):
  """Of families that `encoder_decoder_stacks` computes."""

  heads: int

  @property
  def key_heads(self) -> int:
    """Heads of keys and values."""
    return self.heads

  def made_of(self, **own: Any) -> EncoderDecoderConfig:
    """The stacks of this configuration: what has one name everywhere is taken over, `own` is the rest."""
    return EncoderDecoderConfig(**{name: getattr(self, name) for name in _SHARED}, **own)


class TwoStacksConfig(StackedConfig, WritingConfig):
  """Of an encoder-decoder."""

  encoder_layers: int
  decoder_layers: int

  @property
  def stack_layers(self) -> dict[str, int]:
    """How many layers each stack has, the reader first."""
    return {"encoder": self.encoder_layers, "decoder": self.decoder_layers}


class LikeBertConfig(StackedConfig):
  """Of BERT's arithmetic: learned positions, biases everywhere, a norm after each residual."""

  width: int
  max_positions: int
  activation: str
  init_std: float
  attention_dropout_rate: float

  @property
  def head_width(self) -> int:
    """Features of each head."""
    return self.width // self.heads

  def require_like_bert(self) -> None:
    """Raises ConfigError for heads that do not share the width evenly, or an unknown activation."""
    if self.width % self.heads:
      kind = type(self).__name__
      raise ConfigError(
        f"{kind}.width={self.width} must be a multiple of {kind}.heads={self.heads}."
      )
    self.require_choices({"activation": tuple(ACTIVATIONS)})

  def made_of(self, **own: Any) -> EncoderDecoderConfig:
    """As of `StackedConfig`; `own` is what BART and BERT do not share."""
    return super().made_of(
      mlp_activations=(self.activation,),
      use_bias=True,
      attention_scale=self.head_width**-0.5,
      init_std=self.init_std,
      norm="layer",
      norms="post",
      relative_bias=None,
      max_positions=self.max_positions,
      embedding_std=self.init_std,
      # BART's output kernel is its embedding; BERT has no logits, and nothing reads this.
      tied_logits=True,
      attention_dropout_rate=self.attention_dropout_rate,
      dropout_along_length=False,
      **own,
    )
