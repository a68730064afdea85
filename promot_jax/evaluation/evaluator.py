"""Runs a model on few-shot tasks and scores what it writes.

    tasks -> rows -> pooled batches -> generate or score options -> text -> metrics -> TaskResult

Tasks that see the same model (prompt attached or not) share one stream of length-bucketed batches,
so a whole suite of tasks compiles a handful of shapes.  With a store, raw outputs are journaled batch
by batch and finished results are kept: repeating a stopped evaluation runs only what is missing.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from promot_jax import errors, paths
from promot_jax.data import batches as batches_lib
from promot_jax.data import buckets as buckets_lib
from promot_jax.data import examples as examples_lib
from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding import scoring, strategies
from promot_jax.evaluation import scorer
from promot_jax.evaluation import task as task_lib
from promot_jax.evaluation.journal import Journal
from promot_jax.evaluation.results import ResultStore, TaskResult
from promot_jax.evaluation.scorer import Output
from promot_jax.evaluation.task import EvalTask
from promot_jax.identity import Identity
from promot_jax.token_ids import TokenIds

__all__ = ["EvalTask", "Progress", "evaluate", "unfinished"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
  """How far an evaluation is: rows are examples (times options where options are scored).

  tasks_done: tasks of which every row is done, of `tasks` in all.
  """

  done: int
  total: int
  tasks_done: int = 0
  tasks: int = 0


class Row(NamedTuple):
  """One row to run: task (position in the list), example of that task, answer option."""

  task: int
  example: int
  option: int = 0


def evaluate(
  model: Any,
  tasks: Sequence[EvalTask],
  *,
  decode: Callable[[Sequence[int]], str],
  special: TokenIds,
  strategy: Any = strategies.Greedy(),  # noqa: B008 (a frozen value)
  batch_size: int = 64,
  max_target_length: int = 64,
  buckets: Sequence[int] | int = 3,
  detach: Callable[[Any], Any] | None = None,
  format_metric: Any = None,
  store: ResultStore | None = None,
  checkpoint: str = "model",
  identity: str = "",
  made_from: Identity | None = None,
  progress: Callable[[Progress], None] | None = None,
  place: Callable[[Mapping[str, np.ndarray]], Any] | None = None,
  fetch: Callable[[Any], np.ndarray] = np.asarray,
  seed: int | None = None,
) -> list[TaskResult]:
  """Scores of `model` on every task, in the tasks' order.

  Args:
    model: a backbone, with its method attached if it has one; or a function of no arguments that
      makes it, called only if something is left to run.
    decode: token ids -> text, the vocabulary's.
    special: the model's padding, end and start of decoding.
    strategy: how outputs are generated (`promot_jax.decoding.strategies`).
    buckets: padded input lengths, ascending; a number lets the evaluator choose that many.
    detach: model -> model without its prompt; needed if a task asks for `detached`.
    format_metric: applied to every task's whole answers; its `format_share` joins the scores.
    store, checkpoint: where results are kept and found again, under the checkpoint's name.
    identity: anything that tells two models of one checkpoint name apart, such as a digest.
    made_from: what is known of the model's origin; a stored result of another one is not used.
    progress: called before the first batch and after each.
    place: puts a host batch onto the devices; None leaves it to JAX.
    fetch: gives the whole of an array of outputs, wherever its parts lie.
    seed: of the keys of sampling strategies.

  Raises:
    ConfigError: a task asks for `detached` and there is no `detach`, or an input is longer than
      the last bucket.
    DataError: a task has no examples.
  """
  options: dict[str, Any] = {
    "strategy": strategy,
    "max_target_length": max_target_length,
    "special": special,
    "seed": seed,
    "made_from": made_from,
  }
  plans = [
    task_lib.plan(task, format_metric=format_metric, identity=identity, **options) for task in tasks
  ]
  results: dict[int, TaskResult] = {}
  for i, plan in enumerate(plans):
    if store and (found := store.find(checkpoint, plan)):
      results[i] = found
  todo = [i for i in range(len(tasks)) if i not in results]
  if not todo:
    return [results[i] for i in range(len(tasks))]

  journal = store.journal(checkpoint) if store else None
  outputs = _journaled(journal, plans, todo)  # task -> (example, option) -> Output
  runner = _Runner(
    tasks=tasks,
    special=special,
    strategy=strategy,
    batch_size=batch_size,
    max_target_length=max_target_length,
    place=place or (lambda batch: batch),
    fetch=fetch,
    key=None if seed is None else jax.random.key(seed),
  )
  rows = [
    row for i in todo for row in _rows(i, tasks[i]) if (row.example, row.option) not in outputs[i]
  ]
  if rows:
    models = _models(model, detach, {_state(tasks[row.task]) for row in rows}, tasks)
    limits = _buckets(buckets, tasks)
    total = sum(len(_rows(i, task)) for i, task in enumerate(tasks))
    done = total - len(rows)
    left = collections.Counter(row.task for row in rows)  # rows to run, by task

    def tell() -> None:
      if progress:
        finished_tasks = len(tasks) - len(left)
        progress(Progress(done=done, total=total, tasks_done=finished_tasks, tasks=len(tasks)))

    tell()
    for finished in runner.run(models, rows, limits):
      for row, output in finished:
        outputs[row.task][row.example, row.option] = output
      done += len(finished)
      left -= collections.Counter(row.task for row, _ in finished)
      if journal:
        journal.append(_entry(plans[row.task], row, output) for row, output in finished)
      tell()

  for i in todo:
    results[i], predictions = scorer.score(
      tasks[i],
      plans[i],
      outputs=outputs[i],
      decode=decode,
      format_metric=format_metric,
      special=special,
    )
    if store:
      store.write(checkpoint, results[i], predictions)
  if journal:
    journal.remove({plans[i].fingerprint for i in todo})
  return [results[i] for i in range(len(tasks))]


def unfinished(
  tasks: Sequence[EvalTask],
  *,
  store: ResultStore,
  checkpoint: str,
  special: TokenIds,
  strategy: Any = strategies.Greedy(),  # noqa: B008 (a frozen value)
  max_target_length: int = 64,
  format_metric: Any = None,
  identity: str = "",
  seed: int | None = None,
  made_from: Identity | None = None,
) -> list[EvalTask]:
  """The tasks that `evaluate` would still have to run with these settings."""
  options: dict[str, Any] = {
    "strategy": strategy,
    "max_target_length": max_target_length,
    "special": special,
    "seed": seed,
    "made_from": made_from,
  }
  return [
    task
    for task in tasks
    if store.find(
      checkpoint, task_lib.plan(task, format_metric=format_metric, identity=identity, **options)
    )
    is None
  ]


# Planning: which rows are run, through which model.


def _rows(position: int, task: EvalTask) -> list[Row]:
  return [
    Row(position, i, option)
    for i in range(len(task.examples.inputs))
    for option in range(max(1, len(task.options_of(i))))
  ]


def _buckets(buckets: Sequence[int] | int, tasks: Sequence[EvalTask]) -> tuple[int, ...]:
  """From all tasks, finished ones too, so that a resumed evaluation compiles nothing new."""
  if not isinstance(buckets, int):
    return tuple(sorted(buckets))
  lengths = np.asarray([len(tokens) for task in tasks for tokens in task.examples.inputs])
  return buckets_lib.best_lengths(lengths, count=buckets)


# Running: batches through the model, one batch ahead of the host.


def _state(task: EvalTask) -> str:
  """Which model a task sees; `none` and `attached` both take the model as it is."""
  return "detached" if task.prompt == "detached" else "whole"


def _models(
  model: Any, detach: Callable | None, states: set[str], tasks: Sequence[EvalTask]
) -> dict[str, Any]:
  if "detached" in states and detach is None:
    names = [task.label for task in tasks if task.prompt == "detached"]
    raise errors.ConfigError(
      f"Tasks {', '.join(names)} ask for the prompt detached, but the evaluation got no way to "
      "detach it; pass detach=method.detach, or prompt='none' for a model without a method."
    )
  whole = _committed(model() if _is_maker(model) else model)
  return {state: detach(whole) if detach and state == "detached" else whole for state in states}


def _committed(model: Any) -> Any:
  """The same arrays, bound to their devices as trained and restored ones are.

  Fresh arrays are not, and to jit that is another program: each mixture would be compiled anew.
  """
  leaves = paths.named_leaves(model)
  bound = {name: jax.device_put(leaf, leaf.sharding) for name, leaf in leaves.items()}
  return paths.replace_leaves(model, bound)


def _is_maker(model: Any) -> bool:
  """Functions make a model; a model, which may be callable itself, offers hidden states."""
  return callable(model) and not hasattr(model, "prefill") and not hasattr(model, "hidden")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Runner:
  tasks: Sequence[EvalTask]
  special: TokenIds
  strategy: Any
  batch_size: int
  max_target_length: int
  place: Callable
  fetch: Callable
  key: Any

  def run(
    self, models: Mapping[str, Any], rows: Sequence[Row], buckets: Sequence[int]
  ) -> Iterator[list[tuple[Row, Output]]]:
    """The outputs of each batch.  Rows are pooled that see one model and decode alike."""
    pools: dict[tuple[str, bool, int], list[Row]] = {}
    for row in rows:
      pools.setdefault(self._pool(self.tasks[row.task]), []).append(row)
    waiting = None
    for (state, scored, length), pooled in sorted(pools.items()):
      for batch, numbers in self._batches(pooled, buckets):
        members = [pooled[number] for number in numbers if number >= 0]  # -1 fills the last batch
        started = self._start(models[state], batch, members[0], scored, length), members, numbers
        if waiting:  # the device works on the new batch while the host reads the one before
          yield _read(*waiting, self.special, self.fetch)
        waiting = started
    if waiting:
      yield _read(*waiting, self.special, self.fetch)

  def _batches(self, rows: Sequence[Row], buckets: Sequence[int]) -> batches_lib.EvalBatches:
    """Rows of similar input length and, within a bucket, of similar expected output length: a
    batch takes as long as its longest output."""
    tasks = [self.tasks[row.task] for row in rows]
    examples = examples_lib.Examples(
      name="pool",
      split="",
      inputs=[np.asarray(task.examples.inputs[row.example]) for task, row in zip(tasks, rows)],
      targets=[_target(task, row) for task, row in zip(tasks, rows)],
      records=[{}] * len(rows),
      prompt_ids=np.asarray([task.prompt_row(row.example) for task, row in zip(tasks, rows)]),
      lengths=examples_lib.LengthReport(examples=len(rows), inputs_limit=None, targets_limit=None),
    )
    longest = max(len(target) for target in examples.targets)
    limits = buckets_lib.Buckets(inputs=tuple(buckets), targets=(longest,))
    return batches_lib.EvalBatches(
      examples, batch_size=self.batch_size, buckets=limits, special=self.special
    )

  def _pool(self, task: EvalTask) -> tuple[str, bool, int]:
    return _state(task), task.ranked, task.max_target_length or self.max_target_length

  def _start(
    self, model: Any, batch: Mapping[str, np.ndarray], first: Row, scored: bool, length: int
  ) -> Any:
    placed = self.place(batch)
    if scored:
      return scoring.score(model, placed)
    key = self.key
    if key is not None:  # other randomness for every batch, the same when it is run again
      key = jax.random.fold_in(jax.random.fold_in(key, first.task), first.example)
    return generate_lib.generate(model, placed, strategy=self.strategy, max_length=length, key=key)


def _target(task: EvalTask, row: Row) -> np.ndarray:
  if task.ranked:
    return np.asarray(list(task.options_of(row.example).values())[row.option])
  return np.asarray(task.examples.targets[row.example])


def _read(
  result: Any,
  rows: Sequence[Row],
  numbers: np.ndarray,
  special: TokenIds,
  fetch: Callable[[Any], np.ndarray],
) -> list[tuple[Row, Output]]:
  """Waits for a batch and pairs its rows with their outputs."""
  places = np.flatnonzero(np.asarray(numbers) >= 0)
  if not hasattr(result, "tokens"):
    scores = fetch(result)[places]
    return [(row, Output(tokens=[], score=float(value))) for row, value in zip(rows, scores)]
  tokens = fetch(result.tokens)[places, 0]  # the best of each row's outputs
  scores = fetch(result.scores)[places, 0]
  return [
    (row, Output(tokens=special.before_end(ids), score=float(value)))
    for row, ids, value in zip(rows, tokens, scores)
  ]


# The journal of raw outputs.


def _journaled(
  journal: Journal | None, plans: Sequence[TaskResult], todo: Sequence[int]
) -> dict[int, dict[tuple[int, int], Output]]:
  found: dict[int, dict[tuple[int, int], Output]] = {i: {} for i in todo}
  positions: dict[Any, int] = {plans[i].fingerprint: i for i in todo}
  for entry in journal.read() if journal else ():
    position = positions.get(entry.get("fingerprint"))
    if position is not None:
      output = Output(tokens=entry["tokens"], score=entry["score"])
      found[position][entry["index"], entry["option"]] = output
  return found


def _entry(plan: TaskResult, row: Row, output: Output) -> dict[str, Any]:
  return {
    "fingerprint": plan.fingerprint,
    "index": row.example,
    "option": row.option,
    "tokens": output.tokens,
    "score": output.score,
  }
