"""Shapes and arithmetic of a decoder-only model, as one hashable value.

| | GPT-2 | LLaMA-like | PaLM-like |
|---|---|---|---|
| positions | learned | rotary | rotary |
| norm | layer | rms | layer, without bias |
| biases | yes | no | no |
| layers | one part after the other | the same | attention and mlp side by side |
| heads of keys | as of queries | fewer | one |
| mlp | gelu | silu * linear | silu * linear |
| output kernel | the embedding | its own or the embedding | the embedding, scaled |
"""

import dataclasses

from promot_jax import token_ids
from promot_jax.errors import ConfigError
from promot_jax.models import stack
from promot_jax.models.family_config import WritingConfig
from promot_jax.models.layers import ACTIVATIONS
from promot_jax.models.positions import Llama3Scaling, RotaryPositions

RECIPE_VALUES = ("DecoderLMConfig",)

_CHOICES = {
  "positions": ("learned", "rotary"),
  "norm": ("layer", "rms"),
  "source_attention": ("causal", "full"),
  "embedding_lookup": ("gather", "one_hot"),
  "remat": tuple(stack.REMAT_POLICIES),
  # float16 would need its losses scaled
  "dtype": ("float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderLMConfig(WritingConfig):
  """Everything that decides the shapes and the arithmetic of a decoder-only model.

  The defaults are GPT-2's arithmetic; `decoder_sizes` has the published shapes.
  """

  vocab_size: int
  width: int
  layers: int
  heads: int
  head_width: int
  mlp_width: int
  kv_heads: int | None = None
  """Heads of keys and values, each shared by as many query heads; None: as many as `heads`."""
  mlp_activations: tuple[str, ...] = ("gelu",)
  """('gelu',) for GPT-2, ('silu', 'linear') for SwiGLU."""
  positions: str = "learned"
  """'learned' (a vector per position) or 'rotary'."""
  max_positions: int = 1024
  """Rows of the learned table: prompt, input and target together are never longer.  Rotary models
  only write it into the files that they export."""
  rope_theta: float = 10_000.0
  rope_scaling: Llama3Scaling | None = None
  norm: str = "layer"
  """'layer' or 'rms'."""
  norm_epsilon: float = 1e-5
  use_bias: bool = True
  """Of all linear layers and layer norms."""
  parallel: bool = False
  """Whether attention and mlp read the same norm and are added at once (PaLM)."""
  source_attention: str = "causal"
  """'causal', or 'full': input tokens and prompt attend to each other in both directions, and only
  targets are causal (prefix language model)."""
  tied_logits: bool = True
  """Whether the embedding table is the output kernel."""
  scale_logits: bool = False
  """Whether logits are multiplied by width**-0.5."""
  dropout_rate: float = 0.0
  """Where GPT-2 has it: embedded tokens, attention weights, and what each part adds."""
  attention_dropout_rate: float | None = None
  """Of attention weights; None: `dropout_rate`."""
  embedding_dropout_rate: float | None = None
  """Of embedded tokens; None: `dropout_rate`."""
  scan_layers: bool = False
  remat: str = "none"
  """'none', 'full' or 'minimal': see `stack.REMAT_POLICIES`."""
  dtype: str = "float32"
  """Of activations.  Softmax, norms, rotations and logits are float32 whatever it is."""
  param_dtype: str = "float32"
  embedding_lookup: str = "gather"
  """'gather' or 'one_hot'."""
  embedding_std: float = 0.02
  """Of a random start."""
  init_std: float | None = 0.02
  """Of all kernels of a random start; None: by the number of input features."""
  bos: int | None = None
  eos: int
  """Ends every target."""
  output_ends: tuple[int, ...] | None = None
  """Ids of which each ends an output; None: `eos` alone; (): none does."""
  forced_eos: token_ids.Ids = None
  """Token that ends an output of the greatest length, or several of which one may; None: any."""
  pad: int = -1
  """Marks padding in batches; by default a number that no token has."""
  written_pad: int | None = dataclasses.field(default=None, repr=False)
  """The id that a file of transformers names for padding: written again by a conversion, used by no
  computation here."""
  decoder_start: None = None
  """Always None, by which data code knows that there are no separate decoder inputs."""

  def __post_init__(self):
    # gin and JSON give lists; the configuration must be hashable to be a static jit argument.
    object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
    token_ids.settle(self)
    self.require_positive("vocab_size", "width", "layers", "heads", "head_width", "mlp_width")
    self.require_positive("max_positions")
    if self.key_heads < 1 or self.heads % self.key_heads:
      raise ConfigError(
        f"DecoderLMConfig.heads={self.heads} must be a multiple of kv_heads={self.kv_heads}."
      )
    self.require_choices(_CHOICES)
    unknown = [name for name in self.mlp_activations if name not in ACTIVATIONS]
    if unknown or not self.mlp_activations:
      raise ConfigError(
        f"DecoderLMConfig.mlp_activations={self.mlp_activations} are not valid; name one or more of"
        f" {', '.join(ACTIVATIONS)}."
      )
    self.require_rates("dropout_rate", "attention_dropout_rate", "embedding_dropout_rate")
    self.rotary  # noqa: B018  an odd head width is refused here, not in the first layer

  @property
  def key_heads(self) -> int:
    """Heads of keys and values."""
    return self.heads if self.kv_heads is None else self.kv_heads

  @property
  def rate_of_attention_dropout(self) -> float:
    """Of attention weights."""
    return self.dropout_rate if self.attention_dropout_rate is None else self.attention_dropout_rate

  @property
  def rate_of_embedding_dropout(self) -> float:
    """Of embedded tokens."""
    return self.dropout_rate if self.embedding_dropout_rate is None else self.embedding_dropout_rate

  @property
  def rotary(self) -> RotaryPositions | None:
    """The rotation of queries and keys; None with learned positions."""
    if self.positions != "rotary":
      return None
    return RotaryPositions(
      head_width=self.head_width, theta=self.rope_theta, scaling=self.rope_scaling
    )

  @property
  def logits_scale(self) -> float:
    """The factor of the logits."""
    return self.width**-0.5 if self.scale_logits else 1.0

  @property
  def stack_layers(self) -> dict[str, int]:
    """How many layers each stack has; there is one."""
    return {"decoder": self.layers}
