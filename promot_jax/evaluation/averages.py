"""Norm. Avg: how much of a model's few-shot ability is left on tasks it was not tuned on.

It is the plain mean of the headline scores of the unseen tasks, without chance correction; of the eight
that are published (0 to 100) this was checked against the printed tables of Wang et al. 2024.  Which
tasks are unseen is a list in the recipe, which a run records; means over different lists are different
numbers and never stand in one table.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from promot_jax.evaluation import uncertainty
from promot_jax.evaluation.records import TaskResult

UNSEEN_TASKS: Mapping[str, str] = {
  "cb": "accuracy",
  "wic": "accuracy",
  "trivia_qa": "exact_match",
  "web_questions": "exact_match",
  "wmt16_en_de": "bleu",
  "wmt16_en_ro": "bleu",
  "xsum": "rouge2",
  "wiki_lingua": "rouge2",
}
"""The eight tasks of the paper and the metric of each, in the order of its tables: the default list."""

PUBLISHED = tuple(UNSEEN_TASKS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Average:
  """A Norm. Avg, with its standard error and 95 % interval over examples where every task has one.

  `value` is None while a task is missing: an average of fewer tasks is another number.  `first` is the
  smallest number of first examples that a task was measured on; None: all of them were.
  """

  value: float | None
  standard_error: float | None
  tasks: int
  examples: int
  missing: tuple[str, ...]
  interval: tuple[float, float] | None = None
  first: int | None = None


def ordered(unseen: Iterable[str] | None) -> tuple[str, ...]:
  """A list of unseen tasks in one order, the paper's first; None, as of earlier records: the eight."""
  if unseen is None:
    return PUBLISHED
  # A set, as two recipes may list the same tasks in another order: they share one table.
  names = set(unseen)
  return (*(task for task in PUBLISHED if task in names), *sorted(names - set(PUBLISHED)))


def described(unseen: Sequence[str]) -> str:
  """'the eight unseen tasks', or which they are."""
  if tuple(unseen) == PUBLISHED:
    return "the eight unseen tasks"
  return f"the unseen tasks {', '.join(unseen)}"


def metric_of(result: TaskResult) -> str:
  """The score of a result that enters the average: the paper's, else the task's headline score."""
  return UNSEEN_TASKS.get(result.task, result.metric)


def norm_average(scores: Mapping[str, float], unseen: Sequence[str] = PUBLISHED) -> float:
  """The plain mean of the unseen tasks' scores; KeyError if one is missing."""
  return sum(scores[task] for task in unseen) / len(unseen)


def average(
  results: Iterable[TaskResult],
  *,
  shots: int,
  attached: bool = False,
  unseen: Sequence[str] = PUBLISHED,
) -> Average:
  """Norm. Avg of one checkpoint's results at a number of shots.

  Args:
    results: any results of the checkpoint; those of other tasks, shots and states of the method
      are ignored.
    attached: average the results with the method attached instead of those without one.
    unseen: the tasks of the average.
  """
  # 'none' and 'detached' are one here: both are the model without a method.
  found = {
    result.task: result
    # The last one stays: of several splits the test split reports, as in a table's row.
    for result in sorted(results, key=lambda result: result.split == "test")
    if result.task in unseen
    and result.shots == shots
    and (result.method == "attached") == attached
    and metric_of(result) in result.scores
  }
  missing = tuple(task for task in unseen if task not in found)
  value = interval = None
  # Never of fewer tasks: a mean that leaves a hard one out is larger, and looks like progress.
  if unseen and not missing:
    scores = {task: found[task].scores[metric_of(found[task])] for task in unseen}
    limits = [uncertainty.of_result(found[task], metric_of(found[task])) for task in unseen]
    interval = uncertainty.of_mean(list(scores.values()), limits)
    value = norm_average(scores, unseen)
  # Of the score that enters the mean, which need not be the headline one.
  known = [result.standard_errors.get(metric_of(result)) for result in found.values()]
  deviations = [deviation for deviation in known if deviation is not None]
  error = None
  if unseen and len(deviations) == len(unseen):
    # The tasks' examples are drawn independently: variances add.
    error = math.hypot(*deviations) / len(unseen)
  return Average(
    value=value,
    standard_error=error,
    tasks=len(found),
    examples=sum(result.count for result in found.values()),
    missing=missing,
    interval=interval,
    first=min((result.limit for result in found.values() if result.limit), default=None),
  )
