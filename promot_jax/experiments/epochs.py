"""How many examples a stage trains on, and with them the number of steps of stages in epochs.

A run counts what it has read; a plan, which reads nothing, takes what is known of the data sets.
"""

import dataclasses

from promot_jax.checkpoints.shared import AnyStore
from promot_jax.errors import DamagedRecord
from promot_jax.experiments import data
from promot_jax.experiments.experiment import Experiment
from promot_jax.micro import world
from promot_jax.training import choice
from promot_jax.training.stages import Stage
from tasks import catalog

# Examples of the training splits that the paper's data sets have.
_TRAIN_SIZES = {
  "rte": 2490,
  "cb": 250,
  "wic": 5428,
  "snli": 549_367,
  "openbookqa": 4957,
  "trivia_qa": 138_384,
  "web_questions": 3778,
  "wmt14_en_fr": 15_786_979,
  "wmt16_en_de": 4_548_885,
  "wmt16_en_ro": 610_320,
  "xsum": 203_577,
  "wiki_lingua": 99_020,
}
_STRICT = 0.9  # share of the training split where a tenth of it chooses checkpoints


def planned(experiment: Experiment) -> Experiment:
  """The experiment with the steps that its stages in epochs will have, as far as can be known."""
  lengths = [stage.of_length(examples(experiment, stage)) for stage in experiment.stages]
  return dataclasses.replace(experiment, stages=lengths)


def counted(
  experiment: Experiment, position: int, store: AnyStore, reader: data.Reader
) -> Experiment:
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
    count = sum(map(len, data.train_examples(experiment, stage.name, reader)))
  stages[position] = stage.of_length(count)
  return dataclasses.replace(experiment, stages=stages)


def examples(experiment: Experiment, stage: Stage) -> int:
  """Training examples of a stage by what is known of its data sets, of several tasks together."""
  total = 0
  for task in catalog.members(experiment.task_of(stage.name)):
    base = catalog.split_shots(task)[0]
    if experiment.source == "micro":
      size = world.sizes(base)["train"]
    else:
      strict = experiment.splits_of(task).train != "train"
      size = round(_TRAIN_SIZES[base] * (_STRICT if strict else 1))
    total += min(size, experiment.train_limit or size)
  return total


def text(experiment: Experiment, stage: Stage) -> str:
  """The number of epochs of a stage, for a table."""
  return f"{stage.steps * stage.batch_size / examples(experiment, stage):.3g}"
