"""Runs along their steps: which checkpoints a stage kept, and what it began with."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from promot_jax.analyses.findings import Source
from promot_jax.errors import ConfigError, DataError
from promot_jax.experiments import checkpoint as checkpoints
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.training import choice
from promot_jax.training.stages import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
  """A model of a run; step: updates of the stage before it, 0: what the stage began with."""

  step: int
  checkpoint: Checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
  """One stage of a run from its beginning through the steps that were kept.

  name: the run's, which no other one of the same analysis has.
  """

  name: str
  directory: ModelDirectory
  stage: Stage
  moments: Sequence[Moment]

  @property
  def experiment(self) -> Experiment:
    return self.directory.experiment

  @property
  def last(self) -> Moment:
    return self.moments[-1]


def of(
  sources: Sequence[Source], *, stage: str = "", steps: Sequence[int] = (), least: int = 1
) -> tuple[list[Course], list[str]]:
  """The courses of runs, and a sentence about each run that has none.

  Args:
    stage: its name; '': the last one of each run.
    steps: only these, 0 is the beginning; none: all that were kept.
    least: how many kept steps there have to be.

  Raises:
    ConfigError: a source is no run, or none has such a stage or step.
    DataError: no run has kept enough steps.
  """
  found, left_out = [], []
  directories = runs_of(sources)
  for name, directory in zip(names(directories), directories, strict=True):
    try:
      found.append(_course(name, directory, stage, steps, least))
    # Beside others a run without a course, such as the pretrained model's, is only told.
    except (ConfigError, DataError) as error:
      if len(directories) == 1:
        raise
      left_out.append(error)
  if not found:
    raise left_out[0]
  return found, [f"Left out: {error}" for error in left_out]


def runs_of(sources: Sequence[Source]) -> list[ModelDirectory]:
  """The sources, all of them runs.

  Raises:
    ConfigError: there is none, or one is a file or another folder.
  """
  directories: list[ModelDirectory] = []
  for source in sources:
    if isinstance(source, pathlib.Path):
      raise ConfigError(f"{source} is no model directory; name one that promot train wrote.")
    directories.append(source)
  if not directories:
    raise ConfigError("no run is named; name a model directory that promot train wrote.")
  return directories


def names(directories: Sequence[ModelDirectory]) -> list[str]:
  """A name for each run: its experiment's, with seed or folder where that is not enough to tell it."""
  plain = [each.experiment.name for each in directories]
  seeded = [f"{each.experiment.name} seed {each.experiment.seed}" for each in directories]
  placed = [f"{each.experiment.name} ({each.folder})" for each in directories]
  for candidates in (plain, seeded):
    if len(set(candidates)) == len(candidates):
      return candidates
  return placed


def one_tuned_task(courses: Sequence[Course]) -> str:
  """The task that all runs were tuned on.

  Raises:
    ConfigError: two were tuned on different ones.
  """
  first = courses[0]
  for other in courses[1:]:
    if other.experiment.task != first.experiment.task:
      raise ConfigError(
        f"'{first.name}' was tuned on {first.experiment.task} and '{other.name}' on"
        f" {other.experiment.task}: their scores have no axis in common; name runs of one task."
      )
  return first.experiment.task


def require_target_tokens(course: Course) -> None:
  """Raises ConfigError where a stage trains a prediction head, whose classes are no tokens."""
  if course.stage.objective.reads_classes:
    raise ConfigError(
      f"stage '{course.stage.name}' of '{course.name}' trains a prediction head: it has no target tokens"
      " that this could be measured on."
    )


def _course(
  name: str, directory: ModelDirectory, stage: str, steps: Sequence[int], least: int
) -> Course:
  experiment = directory.experiment
  stages = [each.name for each in experiment.stages]
  if not stages:
    raise DataError(f"'{name}' in {directory.folder} trains nothing, so it has no checkpoints.")
  if stage and stage not in stages:
    raise ConfigError(f"'{name}' has no stage '{stage}'; it has {', '.join(stages)}.")
  position = stages.index(stage) if stage else len(stages) - 1
  own = experiment.stages[position]
  store = directory.store(own)
  kept = store.steps()
  if len(kept) < least:
    raise DataError(
      f"{store.directory} has {_listed(kept) or 'no checkpoints'}, and this needs {least}: train with"
      " --gin.stages.Stage.keep_last=None and a smaller period of validation, which keeps every"
      " validated step."
    )
  if missing := sorted(set(steps) - {0, *kept}):
    raise ConfigError(
      f"{store.directory} has no step {missing[0]}; it has 0 and {', '.join(map(str, kept))}."
    )
  wanted = sorted(set(steps)) if steps else sorted({0, *kept})
  moments = [
    Moment(
      step=step,
      checkpoint=checkpoints.after(experiment, position + 1, step)
      if step
      else _beginning(directory, position),
    )
    for step in wanted
  ]
  return Course(name=name, directory=directory, stage=own, moments=moments)


def _beginning(directory: ModelDirectory, position: int) -> Checkpoint:
  """What a stage began with, by the name under which its results are kept."""
  experiment = directory.experiment
  if not position:
    return checkpoints.pretrained(experiment)
  before = directory.store(experiment.stages[position - 1])
  return checkpoints.after(experiment, position, choice.chosen_step(before))


def _listed(steps: Sequence[int]) -> str:
  if not steps:
    return ""
  return f"only {len(steps)} checkpoint{'s' * (len(steps) > 1)} (step {', '.join(map(str, steps))})"


def require_names(value: Any, *, what: str) -> tuple[str, ...]:
  """A list of names of a setting.

  Raises:
    ConfigError: it is something else, such as one name.
  """
  if isinstance(value, str) or not isinstance(value, Iterable):
    raise ConfigError(f"{what}={value!r} must be a list: write [{value!r}].")
  return tuple(value)


def require_steps(value: Any, *, what: str) -> tuple[int, ...]:
  """The steps of a setting.

  Raises:
    ConfigError: they are no list of whole numbers from 0.
  """
  wrong = isinstance(value, str) or not isinstance(value, Iterable)
  steps = () if wrong else tuple(value)
  if wrong or any(not isinstance(step, int) or step < 0 for step in steps):
    raise ConfigError(f"{what}={value!r} must be a list of steps, such as [0, 100, 200].")
  return steps
