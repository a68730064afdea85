"""Several models whose answers come from one decode, such as an ensemble under several weights.

What each of them writes goes into its own journal, as if its own evaluation had been stopped before the scores:
`evaluator.evaluate` then finds every output there and runs no model.
"""

import dataclasses
from collections.abc import Callable, Sequence

from promot_jax.decoding.strategies import Sample
from promot_jax.evaluation import evaluator, running
from promot_jax.evaluation import rows as rows_lib
from promot_jax.evaluation import task as task_lib
from promot_jax.evaluation.kept import Kept
from promot_jax.evaluation.outputs import Outputs
from promot_jax.evaluation.setting import Batching, Setting
from promot_jax.evaluation.subject import Subject
from promot_jax.evaluation.task import EvalTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefixes:
  """What the written tokens followed: `distinct` ones, where the models apart follow `total`."""

  distinct: int = 0
  total: int = 0

  def __add__(self, other: "Prefixes") -> "Prefixes":
    return Prefixes(distinct=self.distinct + other.distinct, total=self.total + other.total)

  @property
  def share(self) -> float | None:
    """Of distinct ones; None where nothing was written."""
    return self.distinct / self.total if self.total else None


def write(
  subjects: Sequence[Subject],
  tasks: Sequence[EvalTask],
  *,
  together: Subject,
  setting: Setting,
  batching: Batching,
  kept: Sequence[Kept],
  progress: Callable[[evaluator.Progress], None],
) -> Prefixes:
  """Writes the raw outputs of several models that are missing into their journals.

  Only of answers that are generated and not drawn: those depend on nothing but their own row.  Others are
  left to each model's own evaluation.

  Args:
    subjects: the models by which the outputs are known; none of them is made.
    together: makes the model that writes for all of them, in their order.
    kept: where results of each are kept.
    progress: called before the first batch and after each, with examples as rows.

  Raises:
    ConfigError: an input is longer than the last bucket.
    DataError: a task has no examples.
  """
  if isinstance(setting.strategy, Sample):
    return Prefixes()
  missing: list[set[rows_lib.Row]] = []
  journals: list[Outputs] = []
  for subject, own in zip(subjects, kept, strict=True):
    plans = [
      task_lib.plan(task, setting, identity=subject.identity, made_from=subject.made_from)
      for task in tasks
    ]
    todo = {position: plan for position, plan in enumerate(plans) if own.find(plan) is None}
    journals.append(Outputs(todo, own.journal()))
    rows = [row for position in todo for row in _generated(position, tasks[position])]
    missing.append(set(journals[-1].missing(rows)))
  every = [row for position, task in enumerate(tasks) for row in _generated(position, task)]
  wanted = [row for row in every if any(row in absent for absent in missing)]
  counted, done, copies = Prefixes(), 0, len(subjects)
  if not wanted:
    return counted
  progress(evaluator.Progress(done=done, total=len(wanted)))
  for finished in running.outputs(
    together, wanted, tasks, setting=setting, batching=batching, copies=copies
  ):
    for number, (outputs, absent) in enumerate(zip(journals, missing, strict=True)):
      outputs.add([(row, out) for row, out in finished.outputs[number::copies] if row in absent])
    counted += prefixes([output.tokens for _, output in finished.outputs], copies)
    done += len(finished.outputs) // copies
    progress(evaluator.Progress(done=done, total=len(wanted)))
  return counted


def prefixes(written: Sequence[Sequence[int]], copies: int) -> Prefixes:
  """Of outputs of which those of one example are side by side, `copies` of each."""
  distinct = total = 0
  for start in range(0, len(written), copies):
    own = written[start : start + copies]
    # Each token, and the end behind the last, follows all tokens before it.
    found = [tuple(tokens[:length]) for tokens in own for length in range(len(tokens) + 1)]
    distinct, total = distinct + len(set(found)), total + len(found)
  return Prefixes(distinct=distinct, total=total)


def _generated(position: int, task: EvalTask) -> list[rows_lib.Row]:
  if task.way != "generated":
    return []
  return [row for row in rows_lib.of_task(position, task) if row.option != task_lib.TARGET]
