"""A teacher that reads something else than its student: an input with a demonstration, a passage, a hint.

The task declares what it reads as a feature of rank 1 beside its input (`data.features`), in the frame of
an input; batches then have it as NAME [B S'] with NAME_mask.  Targets, their weights and all other features
are the student's, so that the two are compared at the same target tokens.
"""

from typing import Any

from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.models.readout import AnyReadout
from promot_jax.token_ids import TokenIds
from promot_jax.types import Batch, Key


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
