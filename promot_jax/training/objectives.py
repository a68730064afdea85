"""What is minimized: an objective maps (model, batch) to a loss sum and to metrics.

An objective returns sums, not means, because a step may see its batch in several microbatches and
on several hosts: `normalizer(batch)`, computed once from the whole batch, is what the loss sum is
divided by.  Metrics are (sum, weight) pairs; their ratio is taken at the very end.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from promot_jax import errors, limits
from promot_jax.models.attention import input_mask, is_text
from promot_jax.training import losses
from promot_jax.types import Array, Bool, Float, Key

RECIPE_VALUES = ("Supervised",)

Batch = Mapping[str, jax.Array]
Metrics = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]

_NORMALIZERS = (
  "NUM_REAL_TARGET_TOKENS",
  "NUM_TOTAL_TARGET_TOKENS",
  "AVERAGE_PER_SEQUENCE",
  "SUM",
)


class Objective(Protocol):
  """What a stage needs of an objective; a frozen, hashable value.  A class of your own derives from it."""

  needs_teacher: ClassVar[bool] = False
  """Whether it is given a teacher, and fails without one."""
  reads_classes: ClassVar[bool] = False
  """Whether batches say which class an example is of, and a prediction head tells (`classification`)."""

  @property
  def reads_teacher(self) -> bool:
    """Whether anything depends on the teacher; where nothing does, none is made and given."""
    return self.needs_teacher

  def __call__(
    self, model: Any, batch: Batch, *, teacher: Any = None, key: Key | None = None
  ) -> tuple[Float[Array, ""], Metrics]:
    """(loss sum over the batch, metrics).  `key=None` means no dropout."""

  def normalizer(self, batch: Batch) -> Float[Array, ""] | float:
    """What the loss sum of the whole batch is divided by."""

  def whole(self) -> "Objective":
    """The same loss of logits that exist whole: what only saves memory does not tell two apart."""
    return self


LATER = {"later": True}
"""Metadata of a field that earlier versions did not have; its default is what they did."""


def earlier_text(objective: Any) -> str:
  """The text of an objective without later fields that say what earlier versions did.

  By this text a complete stage is recognised (`choice.trained_with`), also one of an earlier version.
  """
  shown = (
    f"{field.name}={getattr(objective, field.name)!r}"
    for field in dataclasses.fields(objective)
    if "later" not in field.metadata or getattr(objective, field.name) != field.default
  )
  return f"{type(objective).__name__}({', '.join(shown)})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised:
  """Cross-entropy of the target tokens under teacher forcing.

  label_smoothing: probability mass taken from the target, in [0, 1).
  z_loss: coefficient of log(Z)^2; T5X pre-trains with 1e-4.
  loss_normalizing_factor: 'NUM_REAL_TARGET_TOKENS' (mean over weighted target tokens),
    'NUM_TOTAL_TARGET_TOKENS' (padding counted), 'AVERAGE_PER_SEQUENCE' (each sequence's mean
    first, all sequences equal), a number, or None / 'sum' (T5X's default: no division).
  vocabulary_chunk: largest number of logits a token that exist at once; None = all of them.
  token_factor: of each token's cross-entropy: 'one', or its own 'probability', which is taken as a constant.
    That is dynamic fine-tuning (DFT; Wu et al., 2025, arXiv:2508.05629): what the model deems impossible
    pulls less.
  """

  needs_teacher: ClassVar[bool] = False
  reads_teacher: ClassVar[bool] = False
  reads_classes: ClassVar[bool] = False

  label_smoothing: float = 0.0
  z_loss: float = 0.0
  loss_normalizing_factor: str | float | None = "NUM_REAL_TARGET_TOKENS"
  vocabulary_chunk: int | None = None
  token_factor: losses.TokenFactor = dataclasses.field(default="one", metadata=LATER)

  __repr__ = earlier_text

  def __post_init__(self):
    factor = self.loss_normalizing_factor
    if isinstance(factor, str) and _normalizer_name(factor) not in _NORMALIZERS:
      raise errors.ConfigError(
        f"loss_normalizing_factor='{factor}' is not one of {', '.join(_NORMALIZERS)},"
        " a number, or None."
      )
    # A number divides the loss as it is: 0 or NaN would only show as divergence.
    if isinstance(factor, (int, float)):
      limits.require("Supervised", above=0, loss_normalizing_factor=factor)
    limits.require("Supervised", least=0, below=1, label_smoothing=self.label_smoothing)
    limits.require("Supervised", least=0, z_loss=self.z_loss)
    if self.vocabulary_chunk is not None and self.vocabulary_chunk < 1:
      raise errors.ConfigError(
        f"vocabulary_chunk={self.vocabulary_chunk} must be at least 1, or None for whole logits."
      )
    if self.token_factor not in typing.get_args(losses.TokenFactor):
      raise errors.ConfigError(
        f"Supervised: token_factor={self.token_factor!r} must be 'one' or 'probability'."
      )

  def __call__(
    self, model: Any, batch: Batch, *, teacher: Any = None, key: Key | None = None
  ) -> tuple[Float[Array, ""], Metrics]:
    targets, weights = batch["decoder_target_tokens"], self.weights(batch)
    hidden = model.hidden(batch, key=key)
    terms = losses.cross_entropy(
      model.readout,
      hidden,
      targets,
      weights,
      label_smoothing=self.label_smoothing,
      z_loss=self.z_loss,
      factor=self.token_factor,
      chunk=self.vocabulary_chunk,
    )
    loss = terms.minimized + terms.z_loss
    return loss, token_metrics(terms, batch, model.token_ids.pad, loss=loss)

  def normalizer(self, batch: Batch) -> Float[Array, ""] | float:
    """What the loss sum of the whole batch is divided by; 1 for a batch without target tokens."""
    factor = self.loss_normalizing_factor
    if not isinstance(factor, str):
      return 1.0 if factor is None else factor
    name = _normalizer_name(factor)
    if name == "SUM":
      return 1.0
    if name == "NUM_TOTAL_TARGET_TOKENS":
      return float(batch["decoder_target_tokens"].size)
    # A batch of padding alone has a loss of 0, not NaN.
    total = self.weights(batch).sum()
    return jnp.where(total > 0, total, 1.0)

  def whole(self) -> "Supervised":
    """The same loss with all logits at once."""
    return dataclasses.replace(self, vocabulary_chunk=None)

  def weights(self, batch: Batch) -> Float[Array, "B T"]:
    """Loss weights, divided by their sum in each sequence for AVERAGE_PER_SEQUENCE."""
    weights = target_weights(batch)
    factor = self.loss_normalizing_factor
    if isinstance(factor, str) and _normalizer_name(factor) == "AVERAGE_PER_SEQUENCE":
      # A row that only fills the batch up has no tokens: 0, not 0 / 0.
      total = weights.sum(axis=-1, keepdims=True)
      weights = jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 0.0)
    return weights


def target_weights(batch: Batch) -> Float[Array, "B T"]:
  """`decoder_loss_weights` in float32.

  Raises:
    ConfigError: the batch has none.  Targets alone do not tell padding: its id differs by family.
  """
  weights = batch.get("decoder_loss_weights")
  if weights is None:
    raise errors.ConfigError(
      "The batch has no decoder_loss_weights; give 1.0 for every target token that is to be learned"
      " and 0.0 for padding."
    )
  return weights.astype(jnp.float32)


def mean_metrics(metrics: Metrics) -> dict[str, float]:
  """sum / weight of each metric; NaN where the weight is 0.  Waits for the device."""
  # One transfer for all of them.
  pairs = jax.device_get(metrics)
  return {
    name: float(value) / float(weight) if weight else float("nan")
    for name, (value, weight) in pairs.items()
  }


def token_metrics(
  terms: losses.LossTerms, batch: Batch, pad: int, *, loss: Float[Array, ""]
) -> Metrics:
  """T5X's metric names.  'loss' itself is added by the step, which knows the normalizer.

  Args:
    pad: id of padding.
    loss: the sum that is minimized.
  """
  targets = batch["decoder_target_tokens"]
  tokens = jnp.asarray(targets.size, jnp.float32)
  metrics = {
    "accuracy": (terms.correct, terms.weight),
    "cross_ent_loss": (terms.cross_entropy, terms.weight),
    "z_loss": (terms.z_loss, terms.weight),
    "loss_per_nonpadding_target_token": (loss, terms.weight),
    "loss_per_all_target_tokens": (loss, tokens),
    "non_padding_fraction/decoder_target_tokens": (_count(is_text(targets, pad=pad)), tokens),
  }
  if "encoder_input_tokens" in batch:
    inputs = batch["encoder_input_tokens"]
    metrics["non_padding_fraction/encoder_input_tokens"] = (
      _count(input_mask(batch, inputs.shape, pad=pad)),
      jnp.asarray(inputs.size, jnp.float32),
    )
  return metrics


def _count(mask: Bool[Array, "..."]) -> Float[Array, ""]:
  return mask.sum(dtype=jnp.float32)


def _normalizer_name(factor: str) -> str:
  """T5X's spelling of a name given in any case, with or without its 'NUM_'."""
  name = factor.upper()
  return f"NUM_{name}" if f"NUM_{name}" in _NORMALIZERS else name
