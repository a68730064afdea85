"""Norm. Avg: how much of a model's few-shot ability is left on tasks it was not tuned on.

It is the plain mean of the headline scores (0 to 100) of eight unseen tasks, without chance
correction; this was checked against the printed tables of Wang et al. 2024.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from promot_jax.evaluation import uncertainty
from promot_jax.evaluation.results import TaskResult

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
"""The eight tasks of the average and the metric of each, in the order of the paper's tables."""


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


def norm_average(scores: Mapping[str, float]) -> float:
  """The plain mean of the eight unseen tasks' scores; KeyError if one is missing."""
  return sum(scores[task] for task in UNSEEN_TASKS) / len(UNSEEN_TASKS)


def average(results: Iterable[TaskResult], *, shots: int, prompt_on: bool = False) -> Average:
  """Norm. Avg of one checkpoint's results at a number of shots.

  Args:
    results: any results of the checkpoint; those of other tasks, shots and prompt state are
      ignored.
    prompt_on: average the results with the prompt attached instead of those without a prompt.
  """
  found = {
    result.task: result
    for result in results
    if result.task in UNSEEN_TASKS
    and result.shots == shots
    and (result.prompt == "attached") == prompt_on
    and UNSEEN_TASKS[result.task] in result.scores
  }
  missing = tuple(task for task in UNSEEN_TASKS if task not in found)
  value = interval = None
  if not missing:
    limits = [uncertainty.of_result(found[task], UNSEEN_TASKS[task]) for task in UNSEEN_TASKS]
    interval = uncertainty.of_mean(
      [found[task].scores[UNSEEN_TASKS[task]] for task in UNSEEN_TASKS], limits
    )
    value = norm_average({task: found[task].scores[UNSEEN_TASKS[task]] for task in UNSEEN_TASKS})
  known = [result.standard_errors.get(UNSEEN_TASKS[task]) for task, result in found.items()]
  deviations = [deviation for deviation in known if deviation is not None]
  error = None
  if len(deviations) == len(UNSEEN_TASKS):
    # The tasks' examples are drawn independently: variances add.
    error = math.hypot(*deviations) / len(UNSEEN_TASKS)
  return Average(
    value=value,
    standard_error=error,
    tasks=len(found),
    examples=sum(result.count for result in found.values()),
    missing=missing,
    interval=interval,
    first=min((result.limit for result in found.values() if result.limit), default=None),
  )
