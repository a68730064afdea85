"""Runs a model on few-shot tasks and scores what it writes.

    tasks -> rows -> pooled batches -> generate or score options -> text -> metrics -> TaskResult

Tasks that see the same model (method attached or not) share one stream of length-bucketed batches,
so a whole suite of tasks compiles a handful of shapes.  Where results are kept, raw outputs are journaled
batch by batch and finished results are found again: repeating a stopped evaluation runs only what is
missing.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

from promot_jax.evaluation import rows as rows_lib
from promot_jax.evaluation import running, scorer
from promot_jax.evaluation import task as task_lib
from promot_jax.evaluation.kept import Kept
from promot_jax.evaluation.outputs import Outputs
from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.setting import Batching, Setting
from promot_jax.evaluation.subject import Subject
from promot_jax.evaluation.task import EvalTask
from promot_jax.evaluation.tokens import Tokens

__all__ = [
  "Batching",
  "EvalTask",
  "Kept",
  "Progress",
  "Setting",
  "Subject",
  "Tokens",
  "evaluate",
  "unfinished",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
  """How far an evaluation is: rows are examples (times options where options are scored).

  tasks_done: tasks of which every row is done, of `tasks` in all.
  tokens: of the batches that were run, not of those before a stop.
  """

  done: int
  total: int
  tasks_done: int = 0
  tasks: int = 0
  tokens: Tokens = Tokens()  # noqa: RUF009 (a frozen value)


def evaluate(
  subject: Subject,
  tasks: Sequence[EvalTask],
  *,
  setting: Setting,
  batching: Batching = Batching(),  # noqa: B008 (a frozen value)
  kept: Kept | None = None,
  progress: Callable[[Progress], None] | None = None,
) -> list[TaskResult]:
  """Scores of a model on every task, in the tasks' order.

  Args:
    kept: where results of this model are kept and found again.
    progress: called before the first batch and after each.

  Raises:
    ConfigError: a task asks for `detached` and the subject cannot be, or an input is longer than the
      last bucket.
    DataError: a task has no examples.
  """
  plans = _plans(subject, tasks, setting)
  results: dict[int, TaskResult] = {}
  for position, plan in enumerate(plans):
    if kept and (found := kept.find(plan)):
      results[position] = found
  # Rows of all that is missing are pooled, so that tasks share batches and compiled shapes.
  todo = {position: plan for position, plan in enumerate(plans) if position not in results}
  if todo:
    together = rows_lib.composition(todo, tasks, batching)
    todo = {
      position: dataclasses.replace(plan, notes={**plan.notes, "batches": together})
      for position, plan in todo.items()
    }
    # The journal is read before any model is made: a stopped evaluation may only have to be scored.
    outputs = Outputs(todo, kept.journal() if kept else None)
    missing = outputs.missing(
      row for position in todo for row in rows_lib.of_task(position, tasks[position])
    )
    if missing:
      tell = _teller(missing, tasks, progress)
      for finished in running.outputs(subject, missing, tasks, setting=setting, batching=batching):
        outputs.add(finished.outputs)
        tell(finished)
    for position, plan in todo.items():
      results[position], predictions = scorer.score(
        tasks[position],
        plan,
        outputs=outputs.of(position),
        decode=subject.decode,
        setting=setting,
      )
      if kept:
        kept.write(results[position], predictions)
    # Only now: as long as a result is missing, a stopped evaluation goes on from the journal.
    outputs.forget()
  return [results[position] for position in range(len(tasks))]


def unfinished(
  subject: Subject, tasks: Sequence[EvalTask], *, setting: Setting, kept: Kept
) -> list[EvalTask]:
  """The tasks that `evaluate` would still have to run."""
  plans = _plans(subject, tasks, setting)
  return [task for task, plan in zip(tasks, plans) if kept.find(plan) is None]


def _plans(subject: Subject, tasks: Sequence[EvalTask], setting: Setting) -> list[TaskResult]:
  return [
    task_lib.plan(task, setting, identity=subject.identity, made_from=subject.made_from)
    for task in tasks
  ]


def _teller(
  missing: Sequence[rows_lib.Row],
  tasks: Sequence[EvalTask],
  progress: Callable[[Progress], None] | None,
) -> Callable[[running.Finished], None]:
  """Tells the beginning, and gives what tells of each batch; what was there before counts as done."""
  # Of all tasks, finished ones too: a resumed evaluation shows where it is in the whole.
  total = sum(len(rows_lib.of_task(position, task)) for position, task in enumerate(tasks))
  left = collections.Counter(row.task for row in missing)  # rows to run, by task

  counted = Tokens()

  def tell(finished: running.Finished) -> None:
    nonlocal counted
    left.subtract(row.task for row, _ in finished.outputs)
    counted += finished.tokens
    if progress:
      open_tasks = sum(count > 0 for count in left.values())
      done = total - sum(left.values())
      progress(
        Progress(
          done=done,
          total=total,
          tasks_done=len(tasks) - open_tasks,
          tasks=len(tasks),
          tokens=counted,
        )
      )

  tell(running.Finished([], counted))
  return tell
