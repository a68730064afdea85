"""Which examples an experiment trains, selects and reports on, and how each task is scored."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax.data import mixtures, vocabularies
from promot_jax.data.batches import TrainBatches
from promot_jax.data.examples import Examples
from promot_jax.data.pool import Split
from promot_jax.data.stream import Stream
from promot_jax.errors import ConfigError
from promot_jax.evaluation.task import Classes, EvalTask
from promot_jax.experiments import checkpoint as checkpoints
from promot_jax.experiments import classes, writing
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.reader import Reader, text_vocabulary
from promot_jax.methods.prompt import check_prompt_ids, prompt_count
from promot_jax.probing.scores import Splits
from promot_jax.token_ids import TokenIds
from promot_jax.training.teacher_input import Demonstrated
from tasks import catalog, registered


def train_examples(experiment: Experiment, stage: str, reader: Reader) -> list[Split]:
  """The training examples of each task of a stage, those of replayed ones last."""
  (own,) = (each for each in experiment.stages if each.name == stage)
  # What an example's class is follows from the answers of all, a teacher is asked about all, and
  # demonstrations are chosen among all.
  whole = own.teacher_cache is not None or isinstance(own.teacher_inputs, Demonstrated)
  if own.objective.reads_classes or whole:
    return [*examples_in_memory(experiment, stage, reader)]
  lengths = experiment.lengths_of(stage)
  return [reader.training(experiment, task, lengths) for task in _trained(experiment, stage)]


def examples_in_memory(experiment: Experiment, stage: str, reader: Reader) -> list[Examples]:
  """The same, whatever their size."""
  return [
    _examples(
      experiment, stage, task, experiment.splits_of(task).train, experiment.train_limit, reader
    )
    for task in _trained(experiment, stage)
  ]


def _examples(
  experiment: Experiment, stage: str, task: str, split: str, limit: int | None, reader: Reader
) -> Examples:
  """A split of a task of a stage, with what the stage's teacher reads beside."""
  (own,) = (each for each in experiment.stages if each.name == stage)
  lengths, shown = experiment.lengths_of(stage), own.teacher_inputs
  if isinstance(shown, Demonstrated):
    return reader.demonstrated(experiment, task, split, lengths, limit, shown)
  return reader.examples(experiment, task, split, lengths, limit)


def _trained(experiment: Experiment, stage: str) -> list[str]:
  return [*catalog.members(experiment.task_of(stage)), *experiment.replayed(stage)]


def train_batches(experiment: Experiment, stage: str, batch_size: int, reader: Reader) -> Any:
  """`batches(step)` of a stage: its task's or its mixture's training examples."""
  (own,) = (each for each in experiment.stages if each.name == stage)
  told = classes.of_stage(experiment, own, reader, method=experiment.method)
  examples = [
    # Those of a stage that reads classes are in memory (`train_examples`).
    each if isinstance(each, Stream) else classes.numbered(each, told)
    for each in train_examples(experiment, stage, reader)
  ]
  return TrainBatches(
    examples if len(examples) > 1 else examples[0],
    batch_size=batch_size,
    seed=experiment.seed,
    rates=_rates(experiment, stage, list(map(len, examples))),
    bucket_counts=(experiment.input_buckets, experiment.target_buckets),
    special=TokenIds.of(experiment.backbone),
  )


def _rates(experiment: Experiment, stage: str, read: Sequence[int]) -> mixtures.Rates:
  """Rates of the stage's own tasks and of those that it replays.

  Args:
    read: numbers of examples that are there, in the order of `train_examples`.
  """
  replayed = experiment.replayed(stage)
  own = _own_rates(experiment, stage, read[: len(read) - len(replayed)])
  return experiment.replay.beside(own) if experiment.replay and replayed else own


def _own_rates(experiment: Experiment, stage: str, read: Sequence[int]) -> mixtures.Rates:
  """The recipe's; its default gives way to the rates that a mixture was registered with.

  Args:
    read: numbers of examples that are there, in the order of the mixture's tasks.
  """
  name = experiment.task_of(stage)
  # Its cap is on the whole data set, of which a task is one template and a limit may read a part.
  if isinstance(experiment.mixing, mixtures.OverTemplates):
    tasks = catalog.members(name)
    sources = [catalog.find(task).source(experiment.place) for task in tasks]
    known = [
      source.size(experiment.splits_of(task).train) or 0 for task, source in zip(tasks, sources)
    ]
    capped = experiment.mixing.of_data_sets(list(map(experiment.unit_of, tasks)), known, read)
    return lambda sizes: capped
  # A mixture of seqio says itself how often its tasks are drawn; what a recipe sets goes before.
  if experiment.mixing is not mixtures.equal or not catalog.is_open(name):
    return experiment.mixing
  own = registered.rates(catalog.split_shots(name)[0])
  return mixtures.equal if own is None else lambda sizes: np.asarray(own)


def validation_tasks(experiment: Experiment, stage: str, reader: Reader) -> list[EvalTask]:
  """The selection split of what a stage trains on, with the method attached if there is one."""
  state = "none" if experiment.method is None else "attached"
  tasks = catalog.members(experiment.task_of(stage))
  (own,) = (each for each in experiment.stages if each.name == stage)
  told = classes.of_stage(experiment, own, reader, method=experiment.method)
  found = [
    eval_task(
      experiment,
      task,
      experiment.splits_of(task).select,
      reader,
      tuned=True,
      method=state,
      bank_row=number,
      lengths=experiment.lengths_of(stage),
      limit=experiment.validation_limit,
      told=told,
    )
    for number, task in enumerate(tasks)
  ]
  # Only where the stage's own loss is computed does a teacher read anything.
  if not own.measures_loss:
    return found
  limit = experiment.validation_limit
  return [
    dataclasses.replace(
      each, examples=_examples(experiment, stage, task, each.split, limit, reader)
    )
    for task, each in zip(tasks, found, strict=True)
  ]


def selection_tasks(experiment: Experiment, reader: Reader) -> list[EvalTask]:
  """The selection split of each tuned task in the form it is tuned in, whatever stage there is."""
  return [
    eval_task(
      experiment,
      task,
      experiment.splits_of(task).select,
      reader,
      tuned=True,
      method="none",
      bank_row=row,
      lengths=experiment.feature_lengths,
      limit=experiment.validation_limit,
      answers=experiment.evaluation.answers,
    )
    for row, task in enumerate(experiment.tasks)
  ]


def report_tasks(
  experiment: Experiment,
  reader: Reader,
  *,
  checkpoint: Checkpoint | None = None,
  bank_row: int | None = None,
) -> list[EvalTask]:
  """Everything that the experiment's evaluation plan measures, the tuned tasks first.

  Args:
    checkpoint: which is measured; None: what the experiment ends with.
    bank_row: row of the method's bank that unseen tasks use where the plan has them with the method
      on.  None: the only one; with a row for each task, these evaluations are left out
      (`left_out` says so).
  """
  plan, checkpoint = experiment.evaluation, checkpoint or checkpoints.last(experiment)
  method, adapted = checkpoint.method, checkpoint.tuned
  # name, whether it is a tuned task, whether it is written as one, state, row
  wanted: list[tuple[str, bool, bool, str, int, Mapping[str, int]]] = []
  if plan.tuned:
    state = "attached" if method is not None else "none"
    lengths = experiment.feature_lengths
    # The number of a task in the mixture is its row: `TrainBatches` gives the same numbers in
    # training.
    wanted += [
      (task, adapted, adapted, state, row, lengths) for row, task in enumerate(experiment.tasks)
    ]
  for switch in plan.unseen_method:
    if switch == "on" and _is_open(checkpoint, bank_row):
      continue  # nobody said which
    if switch == "on" and method is None and "off" in plan.unseen_method:
      continue  # nothing to attach: it is measured once
    state = "detached" if switch == "off" else "attached"
    state = state if method is not None else "none"
    alike = plan.unseen_written == "tuned" and adapted and state != "detached"
    for base in experiment.unseen_tasks:
      lengths = lengths_of(experiment, base)
      names = [catalog.with_shots(base, shots) for shots in experiment.shots_of(base)]
      row = bank_row or 0 if switch == "on" else 0
      wanted += [(name, False, alike, state, row, lengths) for name in names]
  # A head knows the classes of the tuned tasks only; all others are answered in words.
  told = classes.of_checkpoint(experiment, checkpoint, reader) if plan.tuned else None
  return [
    eval_task(
      experiment,
      task,
      experiment.splits_of(task).report,
      reader,
      tuned=written,
      method=state,
      bank_row=row,
      lengths=lengths,
      limit=plan.limit,
      told=told if tuned else None,
      answers=plan.answers,
    )
    for task, tuned, written, state, row, lengths in wanted
  ]


def left_out(
  experiment: Experiment, *, checkpoint: Checkpoint | None = None, bank_row: int | None = None
) -> str:
  """A sentence about what `report_tasks` leaves out of the plan; empty if it is nothing."""
  plan, checkpoint = experiment.evaluation, checkpoint or checkpoints.last(experiment)
  wanted = "on" in plan.unseen_method and plan.unseen
  if not wanted or not _is_open(checkpoint, bank_row):
    return ""
  tasks = [catalog.split_shots(task)[0] for task in experiment.tasks]
  return (
    f"unseen tasks are not evaluated with the method: it has a row for each of {', '.join(tasks)}; "
    f"promot eval --attach=on --attach_task={tasks[0]} attaches one"
  )


def lengths_of(experiment: Experiment, base: str) -> Mapping[str, int]:
  """Most tokens of a task's inputs and targets where it is measured: a tuned one as it is trained."""
  if base in (catalog.split_shots(task)[0] for task in experiment.tasks):
    return experiment.feature_lengths
  plan = experiment.evaluation
  # Lengths may be given for a data set, and again for one of its templates, which wins.
  own = plan.task_lengths.get(experiment.unit_of(base), plan.feature_lengths)
  return plan.task_lengths.get(base, own)


def _is_open(checkpoint: Checkpoint, bank_row: int | None) -> bool:
  """Whether the method has several rows and none was named."""
  return bank_row is None and checkpoint.method is not None and checkpoint.method.tasks > 1


def eval_task(
  experiment: Experiment,
  task: str,
  split: str,
  reader: Reader,
  *,
  tuned: bool,
  method: str,
  bank_row: int,
  lengths: Mapping[str, int],
  limit: int | None,
  told: Classes | None = None,
  answers: str = "auto",
) -> EvalTask:
  """One task at one number of shots with its examples, its post-processing and its metric.

  Args:
    tuned: whether it is written in the form that the experiment tunes its model in; else as for a
      model that was only pretrained (`writing`).
    told: what the model's prediction head tells apart, where that gives the answers.
    answers: how they come about else; see `EvaluationPlan`.

  Raises:
    ConfigError: they shall be ranked, and are no labels, or were trained between sentinels.
  """
  base, shots = catalog.split_shots(task)
  experiment = writing.written(experiment, tuned=tuned)
  words = text_vocabulary(experiment)
  found = catalog.find(base)
  examples = reader.examples(experiment, task, split, lengths, limit)
  made = EvalTask(
    label=base,
    shots=shots,
    examples=examples,
    limit=limit if limit is not None and len(examples) >= limit else None,
    metric_fns=tuple(found.metric_fns),
    metric=experiment.metric if tuned and experiment.metric else found.metric,
    postprocess=found.postprocess,
    references=found.references,
    method=method,
    bank_row=bank_row,
    max_target_length=lengths["targets"],
    split=split,
    classes=told,
    stop=(stop := writing.stop(words, tuned=tuned)),
    stop_tokens=vocabularies.tokens_with(words, stop),
    writing=writing.described(words),
  )
  if told is not None or answers == "generated" or (answers == "auto" and not found.ranked):
    return made
  if answers == "ranked" and experiment.targets != "raw":
    raise ConfigError(
      f"answers of '{base}' cannot be ranked: TARGETS='{experiment.targets}' writes them between sentinels."
    )
  return writing.ranked(made, words)


def probe_splits(
  experiment: Experiment, reader: Reader
) -> dict[tuple[str, int], Callable[[], Splits]]:
  """(task, shots) of each tuned task -> reads what a probe is trained, chosen and reported on."""

  def splits(row: int, task: str) -> Splits:
    names, lengths = experiment.splits_of(task), experiment.feature_lengths

    def read(split: str, limit: int | None) -> Examples:
      return reader.examples(experiment, task, split, lengths, limit).with_prompt_ids(row)

    return Splits(
      train=read(names.train, experiment.train_limit),
      select=read(names.select, experiment.validation_limit),
      report=read(names.report, experiment.evaluation.limit),
    )

  return {
    catalog.split_shots(task): functools.partial(splits, row, task)
    for row, task in enumerate(experiment.tasks)
  }


def check_prompts(model: Any, train: np.ndarray | None, tasks: Sequence[EvalTask]) -> None:
  """Every example must name a prompt of the model's bank; a single prompt serves all.

  Args:
    train: prompt ids of the training examples; None where nothing is trained.
    tasks: only those with the method attached are looked at.

  Raises:
    DataError: a prompt that the bank does not have.
  """
  prompts = prompt_count(model)
  # JAX clamps an index beyond the bank: an unknown task would use the last row in silence.
  if prompts < 2:
    return
  if train is not None:
    check_prompt_ids(train, prompts)
  for task in tasks:
    if task.method == "attached":
      rows = [task.row_of(index) for index in range(len(task.examples.inputs))]
      check_prompt_ids(np.asarray(rows), prompts)


def format_metric(experiment: Experiment) -> Any:
  """Share of outputs in the tuned task's format; None where the task has none that can be told."""
  every = (catalog.find(task).format_metric(experiment.place) for task in experiment.tasks)
  return next((metric for metric in every if metric is not None), None)
