"""A data set's score: the median over its templates, each of which is measured as a task of its own.

A single template says as much about its wording as about the model; Sanh et al. (2022) therefore report the
median over all templates of a data set.
"""

import statistics
from collections.abc import Mapping, Sequence

from promot_jax.evaluation.records import TaskResult

SEVERAL = "score"
"""Name of the median where the templates are measured by several metrics."""


def over_templates(
  results: Sequence[TaskResult], templates: Mapping[str, Sequence[str]]
) -> list[TaskResult]:
  """The median of each data set, shots, state of the method and split of which every template was measured.

  Args:
    results: of one checkpoint.
    templates: data set -> names of its tasks.
  """
  found = []
  for data_set, tasks in templates.items():
    groups: dict[tuple[int, str, str], dict[str, TaskResult]] = {}
    for result in results:
      if result.task in tasks:
        key = (result.shots, result.method, result.split)
        groups.setdefault(key, {})[result.task] = result
    found += [
      _median(data_set, list(group.values()))
      for group in groups.values()
      # A median of some templates would change with every one that is added.
      if len(group) == len(tasks)
    ]
  return found


def _median(data_set: str, results: Sequence[TaskResult]) -> TaskResult:
  first = results[0]
  metrics = {result.metric for result in results}
  metric = metrics.pop() if len(metrics) == 1 else SEVERAL
  return TaskResult(
    task=data_set,
    shots=first.shots,
    method=first.method,
    metric=metric,
    scores={metric: statistics.median(result.score for result in results)},
    # Not their sum: the templates ask about the same examples.
    count=max(result.count for result in results),
    split=first.split,
    checkpoint=first.checkpoint,
    # The fewest examples that one of them is of: the median is no surer than that.
    limit=min((result.limit for result in results if result.limit), default=None),
    median_of=len(results),
  )
