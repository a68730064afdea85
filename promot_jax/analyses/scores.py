"""Scores of a run's moments: those that are stored, and what is missing, measured as `promot eval` does."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from promot_jax.analyses.courses import Course, Moment
from promot_jax.errors import ConfigError
from promot_jax.evaluation import averages, medians, uncertainty
from promot_jax.evaluation.records import TaskResult
from promot_jax.experiments import data, measurement
from promot_jax.experiments.restored import Restored

MEAN = "Norm. Avg"  # of a run's unseen tasks


class Score(NamedTuple):
  """A score, 0 to 100, with its 95 % interval over the examples where it has one."""

  value: float
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
  """What is measured at every moment.

  tuned: whether the tuned tasks are, in the form they were tuned in, method attached.
  tasks: the others; none: those of the run's plan.
  shots: number of demonstrations of the others.
  method: whether the others are measured with the run's method 'off' or 'on'.
  limit: only the first examples of each task, kept apart from whole results; None: the plan's.
  """

  tuned: bool = True
  tasks: Sequence[str] = ()
  shots: int = 1
  method: str = "off"
  limit: int | None = None

  def __post_init__(self):
    if self.method not in ("off", "on"):
      raise ConfigError(f"method={self.method!r} must be 'off' or 'on'.")

  @property
  def attached(self) -> bool:
    return self.method == "on"


class Measured(NamedTuple):
  """Results at a moment: of the tuned tasks, and of the others."""

  moment: Moment
  tuned: Sequence[TaskResult]
  others: Sequence[TaskResult]


def along(course: Course, wanted: Wanted) -> Iterator[Measured]:
  """The results of each moment in order; what is stored is not measured again.

  Raises:
    ConfigError: there is no such task or number of shots.
    PromotError: of what cannot be restored or measured.
  """
  directory, plan = course.directory, course.experiment.evaluation
  changed = dataclasses.replace(
    plan,
    tuned=wanted.tuned,
    unseen=tuple(wanted.tasks) or plan.unseen,
    shots=(wanted.shots,),
    unseen_method=(wanted.method,),
    limit=wanted.limit or plan.limit,
  )
  experiment = dataclasses.replace(course.experiment, evaluation=changed)
  directory = dataclasses.replace(directory, experiment=experiment)
  # Where `promot eval` puts them: scores of a part must not replace those that a report shows.
  part = directory.folder / "evaluation_of_parts" if changed.limit != plan.limit else None
  models = Restored(directory)
  for moment in course.moments:
    tasks = data.report_tasks(experiment, directory.session.reader, checkpoint=moment.checkpoint)
    found = measurement.measure(
      directory, moment.checkpoint, tasks, models=models, store=directory.results(part)
    )
    count = len(experiment.tasks) if wanted.tuned else 0
    others = found[count:]
    if experiment.templates is not None:
      others = [*others, *medians.over_templates(others, experiment.templates.units)]
    yield Measured(moment, found[:count], others)


def of_result(result: TaskResult, metric: str = "") -> Score:
  """A score of a result, by default its headline one."""
  low, high = uncertainty.of_result(result, metric) or (None, None)
  return Score(result.scores[metric or result.metric], low, high)


def mean_of(results: Sequence[TaskResult], tasks: Sequence[str], wanted: Wanted) -> Score | None:
  """The plain mean of tasks, as Norm. Avg is one; None where one of them is missing."""
  found = averages.average(
    results, shots=wanted.shots, attached=wanted.attached, unseen=tuple(tasks)
  )
  if found.value is None:
    return None
  low, high = found.interval or (None, None)
  return Score(found.value, low, high)
