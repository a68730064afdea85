"""What a validation of a stage measures: decoded metrics of its tasks, its loss, or both.

Names are those that the tasks' metrics return; of several tasks 'TASK/METRIC', with the 'mean' of their
own headline metrics.  Only what the stage's choice asks for is measured: a stage that chooses by 'loss'
decodes nothing.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from promot_jax import partitioning
from promot_jax.data import examples as example_lists
from promot_jax.data.batches import EvalBatches
from promot_jax.data.task import Task
from promot_jax.evaluation import evaluator
from promot_jax.evaluation.records import TaskResult
from promot_jax.experiments import classes
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.reader import decoder
from promot_jax.token_ids import TokenIds
from promot_jax.training import selection, teacher_input, validation_loss
from promot_jax.training.selection import LOSS, STANDARD_ERROR, TOKEN_ACCURACY
from promot_jax.training.stages import Stage
from tasks import catalog

MEAN = "mean"
Beside = Callable[[int, Mapping[str, np.ndarray], np.ndarray], Mapping[str, np.ndarray]]
"""(number of the task, host batch, numbers of its rows' examples, -1 for none) -> host batch."""


def measure(
  experiment: Experiment,
  stage: Stage,
  tasks: Sequence[evaluator.EvalTask],
  model: nnx.Module,
  *,
  teacher: nnx.Module | None = None,
  beside: Beside = lambda task, batch, numbers: batch,
  place: Callable[[Mapping[str, Any]], Any],
  progress: Callable[[evaluator.Progress], None],
) -> dict[str, float]:
  """Numbers by name: all that `stage.asks` for and what comes with them.

  Args:
    tasks: the selection split of each task.
    teacher: the network of the stage, if it has one that is asked.
    beside: adds to the batch of a task, of which the number is given, what is kept of a teacher.
    place: puts a host batch onto the devices.
    progress: called before the first batch and after each.
  """
  found: dict[str, float] = {}
  # Decoding costs as much as many steps, so it is left out where only the loss is asked for.  A
  # stage whose function does not say what it needs gets everything.
  if stage.asks is None or not all(map(selection.is_forced, stage.asks)):
    plan = experiment.evaluation
    subject = evaluator.Subject(
      make=lambda: model, decode=decoder(experiment), place=place, fetch=partitioning.fetch
    )
    results = evaluator.evaluate(
      subject,
      tasks,
      setting=evaluator.Setting(
        special=TokenIds.of(experiment.backbone),
        strategy=plan.strategy,
        max_target_length=experiment.feature_lengths["targets"],
      ),
      batching=evaluator.Batching(batch_size=plan.batch_size, buckets=experiment.input_buckets),
      progress=progress,
    )
    found |= decoded(results)
    if stage.asks is None or any(name.endswith(STANDARD_ERROR) for name in stage.asks):
      found |= standard_errors(results)
  # The loss comes from the stage's own objective, a teacher's part in it included.
  if stage.measures_loss:
    # An average of the student is part of training: here the student stands for it.
    if stage.own_teacher is not None:
      teacher = teacher_input.reader(model, stage.teacher_inputs)

    def sums_of(batches: Iterator[Mapping[str, Any]]) -> Iterator[validation_loss.Sums]:
      placed = map(place, batches)
      return validation_loss.sums(
        model, stage.objective, placed, teacher=teacher, fetch=partitioning.fetch
      )

    found |= _forced(experiment, stage, tasks, sums_of=sums_of, beside=beside, progress=progress)
  return found


def known(experiment: Experiment, stage: Stage) -> tuple[list[str], list[str] | None]:
  """Names that a validation of the stage gives: (decoded metrics, all of them).

  All are None where a task's metric does not tell its names: then the first validation shows them.
  """
  bases = [catalog.split_shots(task)[0] for task in catalog.members(experiment.task_of(stage.name))]
  names = [_score_names(catalog.find(base)) for base in bases]
  # Of one task names stay short, as a recipe's VALIDATION_METRIC writes them.
  if len(bases) == 1:
    metrics, ahead = list(names[0] or ()), [""]
  else:
    metrics = [f"{base}/{name}" for base, own in zip(bases, names) for name in own or ()]
    metrics, ahead = [MEAN, *metrics], ["", *(f"{base}/" for base in bases)]
  if None in names:
    return metrics, None
  by_force = [f"{each}{name}" for each in ahead for name in (LOSS, TOKEN_ACCURACY)]
  return metrics, [*metrics, *by_force, *(name + STANDARD_ERROR for name in metrics)]


def _score_names(task: Task) -> list[str] | None:
  """Names of a task's scores; None where a metric does not tell them."""
  names = [getattr(metric, "names", None) for metric in task.metric_fns]
  return None if None in names else [name for each in names for name in each or ()]


def decoded(results: Sequence[TaskResult]) -> dict[str, float]:
  """Every score of every task by name."""
  if len(results) == 1:
    return dict(results[0].scores)
  values = {f"{each.task}/{name}": score for each in results for name, score in each.scores.items()}
  return {**values, MEAN: float(np.mean([each.score for each in results]))}


def standard_errors(results: Sequence[TaskResult]) -> dict[str, float]:
  """Standard errors over the examples, as far as the metrics tell them."""
  several = len(results) > 1
  values = {
    f"{each.task}/{name}{STANDARD_ERROR}" if several else f"{name}{STANDARD_ERROR}": deviation
    for each in results
    for name, deviation in each.standard_errors.items()
  }
  own = [each.standard_errors.get(each.metric) for each in results]
  if several and None not in own:  # the examples of two tasks are independent
    values[MEAN + STANDARD_ERROR] = math.sqrt(sum(d * d for d in own if d is not None)) / len(own)
  return values


def _forced(
  experiment: Experiment,
  stage: Stage,
  tasks: Sequence[evaluator.EvalTask],
  *,
  sums_of: Callable[[Iterator[Mapping[str, Any]]], Iterator[validation_loss.Sums]],
  beside: Beside,
  progress: Callable[[evaluator.Progress], None],
) -> dict[str, float]:
  """The stage's objective on the tasks' examples, all together and of several each by itself.

  A batch has the rows of one of the stage's microbatches: what fits there fits here.

  Args:
    sums_of: gives what the objective sums over host batches, a batch each.
    beside: as in `measure`.
  """
  special = TokenIds.of(experiment.backbone)
  examples = [with_rows(task) for task in tasks]
  rows = stage.batch_size // stage.microbatches
  counts = (experiment.input_buckets, experiment.target_buckets)
  # One set of lengths for all tasks, so that each compiles once.
  buckets = EvalBatches(examples, batch_size=rows, bucket_counts=counts, special=special).buckets
  total = sum(len(each) for each in examples)
  done = 0

  def told(task: int) -> Iterator[Mapping[str, Any]]:
    nonlocal done
    batches = EvalBatches(examples[task], batch_size=rows, buckets=buckets, special=special)
    for batch, numbers in batches:
      progress(evaluator.Progress(done=done, total=total))
      yield beside(task, batch, numbers)
      done += int((numbers >= 0).sum())

  # Each task's sums are kept: the mean over all weighs every token alike, and a task's own is told
  # too.
  sums = [validation_loss.add(sums_of(told(task))) for task in range(len(tasks))]
  progress(evaluator.Progress(done=total, total=total))
  found = validation_loss.means(validation_loss.add(sums))
  if len(tasks) > 1:
    for task, own in zip(tasks, sums, strict=True):
      means = validation_loss.means(own)
      found |= {f"{task.label}/{name}": value for name, value in means.items()}
  return found


def with_rows(task: evaluator.EvalTask) -> example_lists.Examples:
  """The examples, each with the row of the bank that the task gives it, and with its class."""
  count = len(task.examples.inputs)
  examples = classes.numbered(task.examples, task.classes)
  return examples.with_prompt_ids(np.asarray([task.row_of(i) for i in range(count)]))
