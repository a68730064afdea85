"""Cross-entropy of the classes that a prediction head reads off the input.

An example's class is a feature of the batch, `class_ids`, which is the place of its answer among those
that the classes stand for; batches are otherwise those of text-to-text tasks.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from promot_jax import errors, limits
from promot_jax.training import losses
from promot_jax.training.objectives import Batch, Metrics, target_weights
from promot_jax.types import Array, Float, Int, Key

RECIPE_VALUES = ("Classification",)

CLASS_IDS = "class_ids"
"""The feature int32 [B]: the class of each example; -1: its answer is no class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
  """Mean over the examples whose answer is one of the classes; the others count for nothing.

  label_smoothing: probability mass taken from the class, in [0, 1).
  """

  needs_teacher: ClassVar[bool] = False
  reads_teacher: ClassVar[bool] = False
  reads_classes: ClassVar[bool] = True

  label_smoothing: float = 0.0

  def __post_init__(self):
    limits.require("Classification", least=0, below=1, label_smoothing=self.label_smoothing)

  def __call__(
    self, model: Any, batch: Batch, *, teacher: Any = None, key: Key | None = None
  ) -> tuple[Float[Array, ""], Metrics]:
    """(loss sum over the batch, metrics).

    Raises:
      ConfigError: the model has no head, or the batch says no classes.
    """
    del teacher
    if model.head is None:
      raise errors.ConfigError(
        "Classification reads classes off a prediction head, and the model has none; attach"
        " PredictionHead(classes=N)."
      )
    classes, known = _classes(batch)
    terms = losses.cross_entropy(
      model.head.readout,
      model.head.vectors(model, batch, key=key),
      # -1 is no place in the logits; its weight of 0 takes the term out again.
      jnp.maximum(classes, 0),
      known,
      label_smoothing=self.label_smoothing,
    )
    # A share below 1 tells that answers of the data are missing among the classes.
    examples = jnp.asarray(known.size, jnp.float32)
    return terms.cross_entropy, {
      "accuracy": (terms.correct, terms.weight),
      "cross_ent_loss": (terms.cross_entropy, terms.weight),
      "known_answers": (terms.weight, examples),
    }

  def normalizer(self, batch: Batch) -> Float[Array, ""]:
    """How many examples have a class; 1 if none has."""
    return jnp.maximum(self.counted(batch), 1.0)

  def counted(self, batch: Batch) -> Float[Array, ""]:
    """How many examples have a class: the weight of the batch in a mean over several."""
    return _classes(batch)[1].sum()

  def whole(self) -> "Classification":
    """The same: its logits are few."""
    return self


def _classes(batch: Batch) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
  """The class of each example, and 1 where it has one (else 0)."""
  if CLASS_IDS not in batch:
    raise errors.ConfigError(
      f"The batch has no {CLASS_IDS}; give the class of every example, and -1 for those without."
    )
  classes = batch[CLASS_IDS]
  real = target_weights(batch).sum(axis=-1) > 0  # rows that fill a batch are copies
  return classes, ((classes >= 0) & real).astype(jnp.float32)
