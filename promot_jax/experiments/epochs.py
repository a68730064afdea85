"""How many examples a stage trains on, and with them the number of steps of stages in epochs.

A run counts what it has read; a plan, which reads nothing, takes what is known of the data sets.
"""

import dataclasses

from promot_jax.checkpoints.shared import AnyStore
from promot_jax.errors import DamagedRecord
from promot_jax.experiments import data
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.reader import Reader
from promot_jax.training import choice
from promot_jax.training.stages import Stage
from tasks import catalog

ASSUMED = 10_000
"""Training examples in the plan of a stage in epochs whose data set's size nobody knows unread."""


def planned(experiment: Experiment) -> Experiment:
  """The experiment with the steps that its stages in epochs will have, as far as can be known."""
  lengths = [stage.of_length(examples(experiment, stage) or ASSUMED) for stage in experiment.stages]
  return dataclasses.replace(experiment, stages=lengths)


def counted(experiment: Experiment, position: int, store: AnyStore, reader: Reader) -> Experiment:
  """The experiment with the steps of one stage in epochs, by the examples that it trains on.

  A complete stage's are in its marker, so that nothing is read for it.

  Args:
    position: of the stage.
    store: its checkpoints.
  """
  stages = list(experiment.stages)
  stage = stages[position]
  if not stage.has_epochs:
    return experiment
  try:
    done = choice.marker(store) or {}
  except DamagedRecord:  # who reads it next sets it aside and says so
    done = {}
  count = done.get("examples")
  if count is None:
    own = len(catalog.members(experiment.task_of(stage.name)))
    read = sum(map(len, data.train_examples(experiment, stage.name, reader)[:own]))
    count = _with_replay(experiment, stage, read)
  stages[position] = stage.of_length(count)
  return dataclasses.replace(experiment, stages=stages)


def examples(experiment: Experiment, stage: Stage) -> int | None:
  """Training examples of a stage by what is known of its data sets, of several tasks together.

  None where a set's size is known only when it is read.
  """
  total = 0
  for task in catalog.members(experiment.task_of(stage.name)):
    split = experiment.splits_of(task).train
    size = catalog.find(task).source(experiment.place).size(split)
    if size is None:
      return None
    total += min(size, experiment.train_limit or size)
  return _with_replay(experiment, stage, total)


def _with_replay(experiment: Experiment, stage: Stage, own: int) -> int:
  """Examples that are seen while each of the stage's `own` ones is seen once."""
  replay = experiment.replay
  if replay is None or not replay.of_stage(stage.name):
    return own
  return round(own / (1 - replay.share))


def text(experiment: Experiment, stage: Stage) -> str:
  """The number of epochs of a stage, for a table; '?' before its data have been read."""
  count = examples(experiment, stage)
  return "?" if count is None else f"{stage.steps * stage.batch_size / count:.3g}"
