"""Dropout of one stage, where it is not the backbone's own.

Rates are static values of a model's modules, so another rate is the same parameters in a model of
another structure.
"""

from typing import TypeVar

from flax import nnx

from promot_jax import errors, paths
from promot_jax.training.stages import Stage

Model = TypeVar("Model", bound=nnx.Module)


def graphdef(model: nnx.Module, stage: Stage) -> nnx.GraphDef:
  """The structure that a stage trains: the model's own, with the stage's dropout if it has one.

  Raises:
    ConfigError: as `with_rate`.
  """
  if stage.dropout_rate is not None:
    model = with_rate(model, stage.dropout_rate)
  return paths.split(model, stage.trainable)[0]


def with_rate(model: Model, rate: float) -> Model:
  """The model with every dropout at `rate`; shares the arrays of the given one.

  Raises:
    ConfigError: the model has no dropout.
  """
  changed = paths.copy(model)
  # By the attribute's name: methods call theirs `drop_rate`, which a stage does not set.
  found = [m for _, m in nnx.iter_modules(changed) if "dropout_rate" in vars(m)]
  if not found:
    raise errors.ConfigError(
      f"A stage sets dropout_rate={rate}, but {type(model).__name__} has no dropout; leave it None."
    )
  for module in found:
    module.dropout_rate = rate
  return changed
