"""Cross-entropy of the classes that a prediction head reads off the input.

Batches stay those of text-to-text tasks: an example's class is the answer that its target is.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp

from promot_jax import errors
from promot_jax.training import limits, losses
from promot_jax.training.objectives import Batch, Metrics, target_weights
from promot_jax.types import Array, Bool, Float, Int, Key

RECIPE_VALUES = ("Classification",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
  """Mean over the examples whose target is one of the answers; the others count for nothing.

  answers: token ids of each class's answer, end of sequence included, in the order of the classes.
  label_smoothing: probability mass taken from the class, in [0, 1).
  """

  needs_teacher: ClassVar[bool] = False

  answers: Sequence[Sequence[int]]
  label_smoothing: float = 0.0

  def __post_init__(self):
    answers = tuple(tuple(map(int, ids)) for ids in self.answers)
    object.__setattr__(self, "answers", answers)
    if len(answers) < 2 or not all(answers) or len(set(answers)) < len(answers):
      raise errors.ConfigError(
        f"Classification.answers={answers} must be the token ids of at least two answers, all different."
      )
    limits.require("Classification", least=0, below=1, label_smoothing=self.label_smoothing)

  def __call__(
    self, model: Any, batch: Batch, *, teacher: Any = None, key: Key | None = None
  ) -> tuple[Float[Array, ""], Metrics]:
    """(loss sum over the batch, metrics).

    Raises:
      ConfigError: the model has no head, or one of another number of classes.
    """
    del teacher
    if model.head is None or model.head.readout.size != len(self.answers):
      found = "no prediction head" if model.head is None else f"{model.head.readout.size} classes"
      raise errors.ConfigError(
        f"Classification has {len(self.answers)} answers, and the model has {found}; attach"
        f" PredictionHead(classes={len(self.answers)})."
      )
    classes, known = self._classes(batch)
    terms = losses.cross_entropy(
      model.head.readout,
      model.head.vectors(model, batch, key=key),
      classes,
      known,
      label_smoothing=self.label_smoothing,
    )
    examples = jnp.asarray(known.size, jnp.float32)
    return terms.cross_entropy, {
      "accuracy": (terms.correct, terms.weight),
      "cross_ent_loss": (terms.cross_entropy, terms.weight),
      "known_answers": (terms.weight, examples),
    }

  def normalizer(self, batch: Batch) -> Float[Array, ""]:
    """How many examples have a class; 1 if none has."""
    return jnp.maximum(self._classes(batch)[1].sum(), 1.0)

  def whole(self) -> "Classification":
    """The same: its logits are few."""
    return self

  def _classes(self, batch: Batch) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
    """The class of each example, and 1 where it has one (else 0)."""
    targets, real = batch["decoder_target_tokens"], target_weights(batch) > 0
    same = jnp.stack([_is(targets, real, ids) for ids in self.answers], axis=-1)  # [B C]
    return jnp.argmax(same, axis=-1), same.any(axis=-1).astype(jnp.float32)


def _is(
  targets: Int[Array, "B T"], real: Bool[Array, "B T"], ids: Sequence[int]
) -> Bool[Array, "B"]:
  """Whether the tokens of a target that are no padding are these."""
  length = targets.shape[1]
  if len(ids) > length:
    return jnp.zeros(targets.shape[0], bool)
  wanted = jnp.asarray([*ids, *[0] * (length - len(ids))])
  inside = jnp.arange(length) < len(ids)
  return ((real == inside) & ((targets == wanted) | ~inside)).all(axis=1)
