"""Which answers the classes of an experiment's prediction head stand for.

A stage whose objective reads classes trains a head to tell the answers of its task apart; the experiment
is then measured by the head, if it is its last stage, on every task that was tuned.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from promot_jax.data.examples import Examples
from promot_jax.data.features import Feature
from promot_jax.errors import ConfigError
from promot_jax.evaluation.task import Classes
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.reader import Reader
from promot_jax.methods.base import Method
from promot_jax.methods.head import PredictionHead
from promot_jax.probing.scores import answer_of
from promot_jax.training.classification import CLASS_IDS
from promot_jax.training.stages import Stage
from tasks import catalog

MOST = 100
"""A task with more different answers is no classification."""


def of_checkpoint(experiment: Experiment, checkpoint: Checkpoint, reader: Reader) -> Classes | None:
  """What the head of a checkpoint tells apart; None where its last stage trained none.

  A head from a method file tells apart what the experiment's own does.
  """
  if not experiment.stages or not checkpoint.tuned:
    return None
  stage = experiment.stages[checkpoint.stages - 1]  # of a method file the last one
  if not checkpoint.stages and not _heads(checkpoint.method):
    return None
  return of_stage(experiment, stage, reader, method=checkpoint.method)


def of_stage(
  experiment: Experiment, stage: Stage, reader: Reader, *, method: Method | None
) -> Classes | None:
  """What a stage teaches a head of a method to tell apart; None where it teaches none.

  The labels of its task; of one that has none, the different answers of its training examples, sorted.
  A mixture's are those of all of its tasks.

  Raises:
    ConfigError: there is no head, or one of another number of classes, or there are too many answers.
  """
  if not stage.objective.reads_classes:
    return None
  answers: dict[str, None] = {}
  for task in catalog.members(experiment.task_of(stage.name)):
    # A dict for its order: the number of a class is its place, the same in each process and each
    # run.
    answers |= dict.fromkeys(labels(task) or _answers(experiment, stage, task, reader))
  head = head_of(method, stage)
  require_count(head, tuple(answers), stage)
  return Classes(answers=tuple(answers), head=repr(head))


def labels(task: str) -> tuple[str, ...]:
  """The labels of a task with or without shots; none where its answers are known by reading only."""
  return catalog.find(catalog.split_shots(task)[0]).labels


def head_of(method: Method | None, stage: Stage) -> PredictionHead:
  """The head of an experiment's method, for a stage that reads classes off it.

  Raises:
    ConfigError: it has none.
  """
  found = _heads(method)
  if not found:
    raise ConfigError(
      f"stage '{stage.name}' reads classes off a prediction head, and the experiment's method has none;"
      " set Experiment.method to PredictionHead(classes=N), or to Combined with one."
    )
  return found[0]


def require_count(head: PredictionHead, answers: Sequence[str], stage: Stage) -> None:
  """Raises ConfigError unless the head has a class for each answer."""
  if head.classes != len(answers):
    shown = ", ".join(map(repr, answers[:10])) + ", ..." * (len(answers) > 10)
    raise ConfigError(
      f"stage '{stage.name}' tells {len(answers)} answers apart ({shown}), and its PredictionHead has"
      f" classes={head.classes}; set HEAD_CLASSES={len(answers)}."
    )


def numbered(examples: Examples, classes: Classes | None) -> Examples:
  """The examples with the feature `class_ids`; as they are where there are no classes."""
  if classes is None:
    return examples
  number = {answer: place for place, answer in enumerate(classes.answers)}
  # An answer of no class is -1: it is not trained on, and counts as wrong where it is measured.
  ids = [np.asarray(number.get(answer_of(examples, i), -1), np.int32) for i in range(len(examples))]
  return dataclasses.replace(
    examples,
    features={**examples.features, CLASS_IDS: ids},
    kinds={**examples.kinds, CLASS_IDS: Feature(rank=0)},
  )


def different(examples: Examples) -> list[str]:
  """The different answers of examples, sorted.

  Raises:
    ConfigError: they are too many.
  """
  found = sorted({answer_of(examples, index) for index in range(len(examples))})
  if len(found) > MOST:
    raise ConfigError(
      f"Task '{examples.name}' has {len(found)} different answers in {len(examples)} training examples;"
      f" a prediction head classifies, so choose a task with at most {MOST}."
    )
  return found


def _heads(method: Method | None) -> list[PredictionHead]:
  return [part for part in (method.parts if method else ()) if isinstance(part, PredictionHead)]


def _answers(experiment: Experiment, stage: Stage, task: str, reader: Reader) -> list[str]:
  split, lengths = experiment.splits_of(task).train, experiment.lengths_of(stage.name)
  return different(reader.examples(experiment, task, split, lengths, experiment.train_limit))
