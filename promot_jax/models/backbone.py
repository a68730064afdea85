"""What every backbone offers, so that methods, objectives and decoding need not know which it is.

A backbone is an NNX module that holds arrays only; T5, BART and the decoder-only models are the classes
that there are.  What all of them have is asked for here, by its name; what only some have (an encoder,
learned positions) is asked of the configuration.
"""

from typing import Any, Protocol, runtime_checkable

from promot_jax.errors import ConfigError
from promot_jax.models.readout import Readout
from promot_jax.token_ids import HasTokenIds, TokenIds
from promot_jax.types import Array, Batch, Bool, Float, Int, Key


class Cache(Protocol):
  """A pytree of what earlier positions left behind, for R rows."""

  def repeat(self, count: int) -> "Cache":
    """Each row `count` times, side by side."""
    ...

  def reorder(self, indices: Int[Array, "R"]) -> "Cache":
    """Row r becomes a copy of row indices[r], which is of the same example."""
    ...


@runtime_checkable
class Decodable(Protocol):
  """A module that predicts token after token; ensembles of backbones are decodable, too."""

  @property
  def token_ids(self) -> TokenIds:
    """What pads, begins and ends its sequences, and what is forced."""
    ...

  def prefill(self, batch: Batch, *, max_length: int) -> tuple[Float[Array, "B V"], Any]:
    """Reads the input: float32 logits of the first generated token, and the `Cache` to go on with.

    Args:
      batch: encoder_input_tokens [B S], and whatever else a method reads.
      max_length: the largest number of tokens that will be generated.
    """
    ...

  def decode_step(self, tokens: Int[Array, "R"], cache: Any) -> tuple[Float[Array, "R V"], Any]:
    """The tokens just chosen -> float32 logits of the next ones, and the cache that knows them."""
    ...


class Reader(Protocol):
  """The stack that reads the input: the encoder, or a decoder-only model's decoder."""

  @property
  def prompt(self) -> Any:
    """The slot for learned input vectors: a module called as `prompt(embeddings, mask)`, or None."""
    ...

  @property
  def layers(self) -> Any:
    """See `models.stack`."""
    ...


class Configuration(HasTokenIds, Protocol):
  """What the configuration of every backbone says, whatever else it has; a frozen dataclass."""

  @property
  def vocab_size(self) -> int:
    """Rows of the embedding."""
    ...

  @property
  def width(self) -> int:
    """D."""
    ...

  @property
  def stack_layers(self) -> dict[str, int]:
    """How many layers each stack ('encoder', 'decoder') has, the reader first."""
    ...

  @property
  def heads(self) -> int:
    """Of queries."""
    ...

  @property
  def key_heads(self) -> int:
    """Of keys and values."""
    ...

  @property
  def max_positions(self) -> int | None:
    """The longest sequence, if positions were learned; None: there is no longest one."""
    ...

  @property
  def bos(self) -> int | None:
    """The token that begins an input, if there is one."""
    ...

  @property
  def scan_layers(self) -> bool:
    """Whether the layers of each stack are one module with a leading axis."""
    ...


def writes_text(config: Any) -> bool:
  """Whether the backbone of a configuration has a decoder; an encoder alone has not."""
  return "decoder" in config.stack_layers


def require_writer(model: Any, by: str) -> None:
  """Whether a model predicts tokens, by the function of this name.

  Raises:
    ConfigError: it is an encoder alone, which has no such function.
  """
  # By the function that is asked for: a network of a user's own need be of no class of ours.
  if not hasattr(model, by):
    raise ConfigError(
      f"{type(model).__name__} is an encoder alone and writes no text: it can only be asked through a"
      " prediction head that was trained on the task. Leave the method attached, name the tuned task"
      " only, and do not ask for the pretrained model."
    )


class Backbone(Decodable, Protocol):
  """A pretrained network; `key=None` means no dropout, and nothing else tells training apart."""

  config: Any
  """A `Configuration`."""

  @property
  def head(self) -> Any:
    """The slot for a prediction head (`models.head.Head`), or None."""
    ...

  def hidden(
    self,
    batch: Batch,
    *,
    input_embeddings: Float[Array, "B S D"] | None = None,
    key: Key | None = None,
  ) -> Float[Array, "B T D"]:
    """What predicts each target when those before it are given, ready for `logits`.

    Args:
      batch: encoder_input_tokens [B S], decoder_target_tokens [B T], where the decoder is apart from
        what reads the input decoder_input_tokens [B T], and whatever else a method reads.
      input_embeddings: in place of the embedded inputs, whose tokens may then be left out.
      key: for dropout.
    """
    ...

  def encode(
    self,
    batch: Batch,
    *,
    input_embeddings: Float[Array, "B S D"] | None = None,
    key: Key | None = None,
  ) -> tuple[Float[Array, "B P+S D"], Bool[Array, "B P+S"]]:
    """What the reader makes of the input alone, and where it is text; a prompt's P positions first."""
    ...

  def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Float32 logits: `readout.logits`."""
    ...

  @property
  def readout(self) -> Readout:
    """Kernel, bias and scale of the logits, for what need not see all logits at once."""
    ...

  @property
  def stacks(self) -> dict[str, Any]:
    """Its stacks by name, which is that of their attribute; the reader first."""
    ...

  @property
  def reader(self) -> Reader:
    """The stack that reads the input and has the slot for a prompt."""
    ...

  def prefill(
    self,
    batch: Batch,
    *,
    max_length: int,
    input_embeddings: Float[Array, "B S D"] | None = None,
  ) -> tuple[Float[Array, "B V"], Any]:
    """As of `Decodable`; `input_embeddings` as in `hidden`."""
    ...
