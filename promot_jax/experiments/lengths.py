"""Whether a backbone with a table of positions can read and write as much as an experiment asks for.

Found from shapes before anything is trained: a run would otherwise fail at its first long batch, which
may be the evaluation after hours of training.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.experiments.experiment import Experiment
from promot_jax.models.backbone import writes_text
from promot_jax.training.on_policy import OnPolicyDistillation
from promot_jax.training.teacher_input import Demonstrated


def check(experiment: Experiment, model: Any) -> None:
  """Traces the longest batch of every kind.

  Args:
    model: abstract, with the experiment's method attached.

  Raises:
    ConfigError: input, target and what the method puts beside them exceed the learned positions.
  """
  if experiment.backbone.max_positions is None:
    return
  names: dict[tuple[int, int], str] = {}
  for name, lengths in _lengths(experiment):
    names.setdefault((lengths["inputs"], lengths["targets"]), name)
  # What is as long on both sides as another batch needs no trace of its own if it fits: a network of
  # many layers is traced for seconds.
  longest = [
    one for one in names if not any(one != other and _covers(other, one) for other in names)
  ]
  if all(_refusal(model, one) is None for one in longest):
    return
  # In the order in which they are set, so that the first one that is too long is named.
  for (inputs, targets), name in names.items():
    if error := _refusal(model, (inputs, targets)):
      raise ConfigError(f"{name} = {{'inputs': {inputs}, 'targets': {targets}}}: {error}")


def _covers(other: tuple[int, int], one: tuple[int, int]) -> bool:
  return other[0] >= one[0] and other[1] >= one[1]


def _refusal(model: Any, sizes: tuple[int, int]) -> ConfigError | None:
  """What the model says of a batch of these lengths of inputs and targets; None: it fits."""
  inputs, targets = sizes
  # One row tells as much as a batch, and a trace allocates nothing.
  batch = {
    "encoder_input_tokens": np.ones((1, inputs), np.int32),
    "decoder_input_tokens": np.ones((1, targets), np.int32),
    "decoder_target_tokens": np.ones((1, targets), np.int32),
    "prompt_ids": np.zeros(1, np.int32),
  }
  try:
    # The positions refuse while they are traced; the sentence names them.
    nnx.eval_shape(lambda network: _read(network, batch), model)
  except ConfigError as error:
    return error
  return None


def _read(network: Any, batch: Mapping[str, Any]) -> Any:
  """All that a model does with a batch; an encoder alone has no outputs."""
  return network.hidden(batch) if writes_text(network.config) else network.encode(batch)


def _lengths(experiment: Experiment) -> Iterator[tuple[str, Mapping[str, int]]]:
  """(name of the setting, lengths), where a task's evaluation may have its own."""
  yield "Experiment.feature_lengths", experiment.feature_lengths
  for stage, lengths in experiment.stage_feature_lengths.items():
    yield f"Experiment.stage_feature_lengths of '{stage}'", lengths
  for own in experiment.stages:
    given = experiment.lengths_of(own.name)
    written = given["targets"]
    if isinstance(own.objective, OnPolicyDistillation) and own.objective.length is not None:
      written = own.objective.length
      named = f"OnPolicyDistillation.length of stage '{own.name}' with its inputs"
      yield named, {"inputs": given["inputs"], "targets": written}
    shown = own.teacher_inputs
    if isinstance(shown, Demonstrated) and shown.length is not None:
      named = f"Demonstrated.length of stage '{own.name}' with what is written"
      yield named, {"inputs": shown.length, "targets": written}
  plan = experiment.evaluation
  if plan.unseen:
    yield "EvaluationPlan.feature_lengths", plan.feature_lengths
    # A mixture's or data set's name stands for its members, as lengths of their own do.
    asked = {
      *plan.unseen,
      *experiment.unseen_tasks,
      *map(experiment.unit_of, experiment.unseen_tasks),
    }
    for task, lengths in plan.task_lengths.items():
      if task in asked:
        yield f"EvaluationPlan.task_lengths of {task}", lengths
