"""Shapes and arithmetic of a BERT, as one hashable value."""

import dataclasses

from promot_jax.models import stack
from promot_jax.models.encoder_decoder_config import EncoderDecoderConfig
from promot_jax.models.family_config import LikeBertConfig
from promot_jax.token_ids import TokenIds

NOTHING = -1
"""In place of an id that a model without a decoder has not."""
_CHOICES = {
  "embedding_lookup": ("gather", "one_hot"),
  "remat": tuple(stack.REMAT_POLICIES),
  "dtype": ("float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(LikeBertConfig):
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
    self.require_positive("vocab_size", "width", "heads", "mlp_width", "layers")
    self.require_positive("max_positions", "token_types")
    self.require_like_bert()
    self.require_rates("dropout_rate", "attention_dropout_rate")
    self.require_choices(_CHOICES)

  @property
  def token_ids(self) -> TokenIds:
    """What pads its rows; it writes nothing that could begin or end."""
    return TokenIds(pad=self.pad, eos=NOTHING, decoder_start=None)

  @property
  def eos(self) -> int:
    """No token: it writes nothing."""
    return NOTHING

  @property
  def bos(self) -> None:
    """Not known: its vocabulary says what begins an input."""
    return None

  @property
  def decoder_start(self) -> None:
    """Nothing: there is no decoder."""
    return None

  @property
  def stack_layers(self) -> dict[str, int]:
    """How many layers its one stack has."""
    return {"encoder": self.layers}

  @property
  def encoder_decoder(self) -> EncoderDecoderConfig:
    """What it is made of: BART's encoder, with a table of positions from row 0."""
    return self.made_of(
      encoder_layers=self.layers,
      decoder_layers=0,
      norm_epsilon=self.norm_epsilon,
      mlp_dropout_rate=0.0,
    )
