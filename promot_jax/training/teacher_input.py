"""A teacher that reads something else than its student: an input with a demonstration, a passage, a hint.

The task declares what it reads as a feature of rank 1 beside its input (`data.features`), in the frame of
an input; batches then have it as NAME [B S'] with NAME_mask.  Of any task there is one feature more, the input
behind solved examples, where a stage asks for it (`Demonstrated`).  Targets, their weights and all other features
are the student's, so that the two are compared at the same target tokens.
"""

import dataclasses
from typing import Any, ClassVar, Literal, get_args

from flax import nnx

from promot_jax import limits
from promot_jax.errors import ConfigError
from promot_jax.models.readout import AnyReadout
from promot_jax.token_ids import TokenIds
from promot_jax.types import Batch, Key

RECIPE_VALUES = ("Demonstrated",)

Shown = Literal["itself", "others"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstrated:
  """An example's input behind solved examples, in the place of a feature's name as `Stage.teacher_inputs`.

  They are written as before the input of a few-shot task.

  shown: 'itself': the example with its own answer, so that the teacher knows what an answer may be;
    'others': training examples that are not the example itself, chosen by its text.
  shots: how many others.
  length: most tokens of such an input, which loses its start; None: there is no limit.
  """

  feature: ClassVar[str] = "demonstrated_inputs"

  shown: Shown = "itself"
  shots: int = 1
  length: int | None = None

  def __post_init__(self):
    if self.shown not in get_args(Shown):
      raise ConfigError(f"Demonstrated: shown={self.shown!r} must be 'itself' or 'others'.")
    limits.require_whole("Demonstrated", least=1, shots=self.shots)
    object.__setattr__(self, "shots", int(self.shots))  # 1e0 counts as one
    if self.shown == "itself" and self.shots != 1:
      raise ConfigError(
        f"Demonstrated: shots={self.shots} are of other examples; set shown='others', or shots=1."
      )
    if self.length is not None:
      limits.require_whole("Demonstrated", least=2, length=self.length)
      object.__setattr__(self, "length", int(self.length))

  def __str__(self) -> str:
    if self.shown == "itself":
      return "its input behind the example with its answer"
    return f"its input behind {self.shots} other solved example{'s' * (self.shots > 1)}"


TeacherInputs = str | Demonstrated | None
"""The name of a feature, or what makes one; None: what the student reads."""


def feature_of(inputs: TeacherInputs) -> str | None:
  """The name of the feature that a teacher reads in place of the input."""
  return inputs.feature if isinstance(inputs, Demonstrated) else inputs


def reader(model: Any, inputs: TeacherInputs) -> Any:
  """The model that reads what a stage's teacher does."""
  feature = feature_of(inputs)
  return model if feature is None else OtherInput(model, feature)


class OtherInput(nnx.Module):
  """A model that reads a feature of the batch in the place of its input; its arrays are shared.

  Example:
    teacher = OtherInput(model, "teacher_inputs")
    loss, metrics = Distillation()(student, batch, teacher=teacher)
  """

  def __init__(self, model: Any, feature: str):
    self.model = model
    self.feature = feature

  @property
  def token_ids(self) -> TokenIds:
    """The model's."""
    return TokenIds.of(self.model)

  @property
  def readout(self) -> AnyReadout:
    """The model's."""
    return self.model.readout

  def hidden(self, batch: Batch, *, key: Key | None = None) -> Any:
    """The model's hidden states at the batch's targets, behind the feature."""
    return self.model.hidden(reading(batch, self.feature), key=key)


def reading(batch: Batch, feature: str) -> dict[str, Any]:
  """The batch with a feature as its input.

  Raises:
    ConfigError: the batch has no such feature.
  """
  if feature not in batch or f"{feature}_mask" not in batch:
    raise ConfigError(
      f"the teacher reads feature '{feature}' in place of the input, and the examples have no such list of"
      " tokens; declare it in the task (docs/tasks.md), or set Stage.teacher_inputs=None."
    )
  return {
    **batch,
    "encoder_input_tokens": batch[feature],
    "encoder_input_mask": batch[f"{feature}_mask"],
  }
