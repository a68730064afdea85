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


def check(experiment: Experiment, model: Any) -> None:
  """Traces the longest batch of every kind.

  Args:
    model: abstract, with the experiment's method attached.

  Raises:
    ConfigError: input, target and what the method puts beside them exceed the learned positions.
  """
  if experiment.backbone.max_positions is None:
    return
  seen = set()
  for name, lengths in _lengths(experiment):
    inputs, targets = lengths["inputs"], lengths["targets"]
    if (inputs, targets) in seen:
      continue
    seen.add((inputs, targets))
    # One row tells as much as a batch, and a trace allocates nothing.
    batch = {
      "encoder_input_tokens": np.ones((1, inputs), np.int32),
      "decoder_input_tokens": np.ones((1, targets), np.int32),
      "decoder_target_tokens": np.ones((1, targets), np.int32),
      "prompt_ids": np.zeros(1, np.int32),
    }
    try:
      # The positions refuse while they are traced; the sentence names them, and here the setting.
      nnx.eval_shape(lambda network, batch=batch: _read(network, batch), model)
    except ConfigError as error:
      raise ConfigError(f"{name} = {{'inputs': {inputs}, 'targets': {targets}}}: {error}") from None


def _read(network: Any, batch: Mapping[str, Any]) -> Any:
  """All that a model does with a batch; an encoder alone has no outputs."""
  return network.hidden(batch) if writes_text(network.config) else network.encode(batch)


def _lengths(experiment: Experiment) -> Iterator[tuple[str, Mapping[str, int]]]:
  """(name of the setting, lengths), where a task's evaluation may have its own."""
  yield "Experiment.feature_lengths", experiment.feature_lengths
  for stage, lengths in experiment.stage_feature_lengths.items():
    yield f"Experiment.stage_feature_lengths of '{stage}'", lengths
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
