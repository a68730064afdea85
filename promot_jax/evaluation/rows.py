"""Which rows are run, through which model, and which of them share batches.

A row is an example of a task, or one of the answers among which it chooses.  Rows that see the same
model and decode alike are pooled, whatever their task, so that a whole suite compiles a handful of shapes.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from promot_jax.data import batches as batches_lib
from promot_jax.data import buckets as buckets_lib
from promot_jax.data import examples as examples_lib
from promot_jax.decoding.strategies import Sample
from promot_jax.evaluation.setting import Batching, Setting
from promot_jax.evaluation.task import TARGET, EvalTask, Way

WHOLE, DETACHED = "whole", "detached"
"""The states of a model that tasks see: as it is, and without its method."""


class Row(NamedTuple):
  """Task (position in the list), example of that task, answer option."""

  task: int
  example: int
  option: int = 0


class Pool(NamedTuple):
  """What rows must have in common to share batches."""

  state: str
  """Of the model."""
  way: Way
  """How answers come about."""
  length: int
  """Of the longest output."""
  features: str = ""
  """What the tasks declare beside inputs and targets."""
  stop: tuple[int, ...] = ()
  """Tokens behind which an output ends."""


def state_of(task: EvalTask) -> str:
  """Which model a task sees; `none` and `attached` both take the model as it is."""
  return DETACHED if task.method == "detached" else WHOLE


def of_task(position: int, task: EvalTask) -> list[Row]:
  """All rows of a task."""
  rows = []
  for example in range(len(task.examples.inputs)):
    if task.reads_answers:
      count = max(1, len(task.options_of(example)))
      rows += [Row(position, example, option) for option in range(count)]
    # A row more: log p of the target, which some metrics ask for beside the answer.
    if task.reads_likelihoods:
      rows.append(Row(position, example, TARGET))
  return rows


def pooled(
  rows: Sequence[Row], tasks: Sequence[EvalTask], setting: Setting
) -> list[tuple[Pool, list[Row]]]:
  """The rows by what they have in common, in a fixed order."""
  pools: dict[Pool, list[Row]] = {}
  for row in rows:
    task = tasks[row.task]
    length = task.max_target_length or setting.max_target_length
    # Log p of a target is scored as that of an option is, so the two share batches.
    way: Way = "ranked" if row.option == TARGET else task.way
    # Only what is generated can be stopped: others need not be kept apart for it.
    stop = task.stop_tokens if way == "generated" else ()
    pools.setdefault(Pool(state_of(task), way, length, _declared(task), stop), []).append(row)
  return sorted(pools.items())


def input_lengths(tasks: Sequence[EvalTask], batching: Batching) -> tuple[int, ...]:
  """Padded lengths, ascending.

  From all tasks, finished ones too, so that a resumed evaluation compiles nothing new.
  """
  if not isinstance(batching.buckets, int):
    return tuple(sorted(batching.buckets))
  lengths = np.asarray([len(tokens) for task in tasks for tokens in task.examples.inputs])
  return buckets_lib.best_lengths(lengths, count=batching.buckets)


def batch_sizes(tasks: Sequence[EvalTask], setting: Setting, batching: Batching) -> dict[Pool, int]:
  """Rows of a batch of each pool.

  A pool is run in as few batches as `batch_size` allows, and these have as many rows as it takes to hold all
  that is in it: 20 rows are one batch of 20 and not of 64, and 70 are two of 35.  It compiles a program for each
  input length as before.  By all rows, finished ones too, so that a resumed evaluation compiles nothing new;
  drawn answers depend on their batch, which then stays as large as it was asked for.
  """
  every = [row for position, task in enumerate(tasks) for row in of_task(position, task)]
  sizes = {}
  for pool, members in pooled(every, tasks, setting):
    rows = batching.batch_size
    if batching.multiple is not None and not isinstance(setting.strategy, Sample):
      count = -(-len(members) // rows)
      needed = -(-len(members) // count)
      rows = min(rows, -(-needed // batching.multiple) * batching.multiple)
    sizes[pool] = rows
  return sizes


def composition(
  run: Collection[int], tasks: Sequence[EvalTask], batching: Batching
) -> dict[str, Any]:
  """What decides which examples share a batch, for the record; no score depends on it but those of drawn answers.

  Args:
    run: positions of the tasks whose rows are pooled.
  """
  return {
    "rows": batching.batch_size,
    "padded inputs": list(input_lengths(tasks, batching)),
    "tasks": [f"{tasks[n].label} {tasks[n].shots}-shot {tasks[n].method}" for n in sorted(run)],
  }


def batches(
  rows: Sequence[Row],
  tasks: Sequence[EvalTask],
  *,
  lengths: Sequence[int],
  batch_size: int,
  setting: Setting,
) -> batches_lib.EvalBatches:
  """Batches of one pool's rows.

  Rows of similar input length share one and, within a bucket, rows of similar expected output length: a
  batch takes as long as its longest output.

  Raises:
    ConfigError: an input is longer than the last of `lengths`.
  """
  owners = [tasks[row.task] for row in rows]
  # Of the first one, as rows of one pool declare the same features (`Pool.features`).
  kinds = getattr(owners[0].examples, "kinds", {})
  examples = examples_lib.Examples(
    name="pool",
    split="",
    features={
      "inputs": [np.asarray(task.examples.inputs[row.example]) for task, row in zip(owners, rows)],
      "targets": [_target(task, row) for task, row in zip(owners, rows)],
      "prompt_ids": np.asarray([task.row_of(row.example) for task, row in zip(owners, rows)]),
      **{
        name: [task.examples.features[name][row.example] for task, row in zip(owners, rows)]
        for name in kinds
      },
    },
    kinds=kinds,
    records=[{}] * len(rows),
    lengths=examples_lib.LengthReport(examples=len(rows), inputs_limit=None, targets_limit=None),
  )
  # One bucket of targets: they are scored, or not looked at where text is generated.
  longest = max(len(target) for target in examples.targets)
  limits = buckets_lib.Buckets(inputs=tuple(lengths), targets=(longest,))
  return batches_lib.EvalBatches(
    examples, batch_size=batch_size, buckets=limits, special=setting.special
  )


def _declared(task: EvalTask) -> str:
  kinds = getattr(task.examples, "kinds", {})
  return " ".join(f"{name}={kinds[name]}" for name in sorted(kinds))


def _target(task: EvalTask, row: Row) -> np.ndarray:
  if task.way == "ranked" and row.option != TARGET:
    return np.asarray(list(task.options_of(row.example).values())[row.option])
  return np.asarray(task.examples.targets[row.example])
