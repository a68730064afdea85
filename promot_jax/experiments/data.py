"""Which examples an experiment trains, selects and reports on, and how each task is scored."""

import contextlib
import functools
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax import hosts
from promot_jax.data import cache
from promot_jax.data.batches import TrainBatches
from promot_jax.data.examples import Examples, LengthReport, load_examples
from promot_jax.data.templates import LABELS
from promot_jax.data.vocabularies import Vocabulary, open_vocabulary, reference
from promot_jax.errors import ConfigError
from promot_jax.evaluation.task import EvalTask
from promot_jax.experiments import writing
from promot_jax.experiments.experiment import Experiment
from promot_jax.methods.prompt import check_prompt_ids, prompt_count
from promot_jax.metrics import format_share, postprocess
from promot_jax.metrics.headline import metric_of
from promot_jax.micro import lexicon
from promot_jax.micro.vocabulary import vocabulary as micro_vocabulary
from promot_jax.networks import vocabulary_fit
from promot_jax.probing.scores import Splits
from promot_jax.token_ids import TokenIds
from tasks import catalog, on_demand, prepared

# Words that only the French of the micro world has.
_FRENCH = frozenset(words[0] for words in lexicon.TRANSLATIONS.values()) - frozenset(
  word for english, words in lexicon.TRANSLATIONS.items() for word in (english, *words[1:])
)


class Reader:
  """Reads each split once in a process; later processes find it in the user's cache."""

  def __init__(self, report: Callable[[str], None], cache_dir: pathlib.Path | None = None):
    self._report = report
    self._cache_dir = cache_dir or cache.default_dir()
    self._read: dict[tuple, Examples] = {}

  def examples(
    self,
    experiment: Experiment,
    task: str,
    split: str,
    lengths: Mapping[str, int],
    limit: int | None,
  ) -> Examples:
    """One split of one task; the first reading says what was cut."""
    name = experiment.seqio_name(task)
    malformed, empty_targets = experiment.malformed, experiment.empty_targets
    key = (name, split, lengths["inputs"], lengths["targets"], limit, malformed, empty_targets)
    if key not in self._read:
      text_vocabulary(experiment)  # refuses one that does not fit before any data is read
      own = experiment.vocabulary if reference(experiment.vocabulary) else None
      with quiet():
        read = functools.partial(
          load_examples,
          name,
          split,
          lengths,
          limit=limit,
          malformed=malformed,
          empty_targets=empty_targets,
          modules=(f"tasks.{catalog.split_shots(task)[0]}",),
          vocabulary=own,
          register=functools.partial(on_demand.register, name, experiment.vocabulary),
          source=functools.partial(prepared.digest, name),
          cache_dir=self._cache_dir,
        )
        found = hosts.in_turn(read)  # what the first process prepares, the others find
      vocabulary_fit.check_examples(found, experiment.backbone.vocab_size)
      self._report(f"data      {name} {split}: {found.lengths}")
      self._read[key] = found
    return self._read[key]


# Information and warnings of absl's and TensorFlow's loggers; errors (E, F) are shown.
_NOTE = re.compile(rb"WARNING: All log messages before absl|[IW]\d{4} [\d:. ]+\d+ [\w.]+:\d+\]")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Keeps the C++ notes that TensorFlow writes when it is imported off the screen.

  They go to file descriptor 2 and obey no setting.  If reading fails, what was written is shown.
  """
  sys.stderr.flush()
  shown = os.dup(2)
  with tempfile.TemporaryFile() as hidden:
    os.dup2(hidden.fileno(), 2)
    try:
      yield
    except BaseException:
      hidden.seek(0)
      os.write(shown, b"".join(line for line in hidden if not _NOTE.match(line)))
      raise
    finally:
      os.dup2(shown, 2)
      os.close(shown)


def train_examples(experiment: Experiment, stage: str, reader: Reader) -> list[Examples]:
  """The training examples of each task of a stage."""
  return [
    reader.examples(
      experiment,
      task,
      experiment.splits_of(task).train,
      experiment.lengths_of(stage),
      experiment.train_limit,
    )
    for task in catalog.members(experiment.task_of(stage))
  ]


def train_batches(experiment: Experiment, stage: str, batch_size: int, reader: Reader) -> Any:
  """`batches(step)` of a stage: its task's or its mixture's training examples."""
  examples = train_examples(experiment, stage, reader)
  return TrainBatches(
    examples if len(examples) > 1 else examples[0],
    batch_size=batch_size,
    seed=experiment.seed,
    rates=experiment.mixing,
    bucket_counts=(experiment.input_buckets, experiment.target_buckets),
    special=TokenIds.of(experiment.backbone),
  )


def validation_tasks(experiment: Experiment, stage: str, reader: Reader) -> list[EvalTask]:
  """The selection split of what a stage trains on, with the method attached if there is one."""
  prompt = "none" if experiment.method is None else "attached"
  tasks = catalog.members(experiment.task_of(stage))
  return [
    eval_task(
      experiment,
      task,
      experiment.splits_of(task).select,
      reader,
      tuned=True,
      prompt=prompt,
      prompt_id=number,
      lengths=experiment.lengths_of(stage),
      limit=experiment.validation_limit,
    )
    for number, task in enumerate(tasks)
  ]


def report_tasks(
  experiment: Experiment, reader: Reader, *, prompt_id: int | None = None
) -> list[EvalTask]:
  """Everything that the experiment's evaluation plan measures, the tuned tasks first.

  Args:
    prompt_id: row of the prompt bank that unseen tasks use where the plan has them with the prompt
      on.  None: the only prompt; with a prompt for each task, these evaluations are left out
      (`left_out` says so).
  """
  plan, method = experiment.evaluation, experiment.method
  adapted = bool(experiment.stages)
  wanted: list[tuple[str, bool, str, int, Mapping[str, int]]] = []  # name, tuned, prompt, row
  if plan.tuned:
    prompt = "attached" if method is not None and adapted else "none"
    lengths = experiment.feature_lengths
    wanted += [(task, adapted, prompt, row, lengths) for row, task in enumerate(experiment.tasks)]
  for state in plan.unseen_prompt:
    if state == "on" and (method is None or not adapted or _is_open(experiment, prompt_id)):
      continue  # nothing to attach, or nobody said which
    prompt = (
      "none" if method is None or not adapted else "attached" if state == "on" else "detached"
    )
    for base in plan.unseen:
      lengths = plan.task_lengths.get(base, plan.feature_lengths)
      names = [f"{base}_{shots}shot" if shots else base for shots in plan.shots]
      row = prompt_id or 0 if state == "on" else 0
      wanted += [(name, False, prompt, row, lengths) for name in names]
  return [
    eval_task(
      experiment,
      task,
      experiment.splits_of(task).report,
      reader,
      tuned=tuned,
      prompt=prompt,
      prompt_id=row,
      lengths=lengths,
      limit=plan.limit,
    )
    for task, tuned, prompt, row, lengths in wanted
  ]


def left_out(experiment: Experiment, *, prompt_id: int | None = None) -> str:
  """A sentence about what `report_tasks` leaves out of the plan; empty if it is nothing."""
  plan = experiment.evaluation
  wanted = "on" in plan.unseen_prompt and plan.unseen and experiment.stages
  if not wanted or not _is_open(experiment, prompt_id):
    return ""
  tasks = [catalog.split_shots(task)[0] for task in experiment.tasks]
  return (
    f"unseen tasks are not evaluated with a prompt: there is one for each of {', '.join(tasks)}; "
    f"promot eval --prompt=on --prompt_task={tasks[0]} attaches one"
  )


def _is_open(experiment: Experiment, prompt_id: int | None) -> bool:
  """Whether there are several prompts and none was named."""
  return prompt_id is None and getattr(experiment.method, "tasks", 1) > 1


def eval_task(
  experiment: Experiment,
  task: str,
  split: str,
  reader: Reader,
  *,
  tuned: bool,
  prompt: str,
  prompt_id: int,
  lengths: Mapping[str, int],
  limit: int | None,
) -> EvalTask:
  """One task at one number of shots with its examples, its post-processing and its metric.

  Args:
    tuned: whether it is written in the form that the experiment tunes its model in; else as for a
      model that was only pretrained (`writing`).
  """
  base, shots = catalog.split_shots(task)
  experiment = writing.written(experiment, tuned=tuned)
  words = text_vocabulary(experiment)
  metric = catalog.information(base).metric
  examples = reader.examples(experiment, task, split, lengths, limit)
  return EvalTask(
    label=base,
    shots=shots,
    examples=examples,
    limit=limit if limit is not None and len(examples) >= limit else None,
    metric_fns=(metric_of(base, metric),),
    metric=metric,
    postprocess=functools.partial(postprocess.postprocess, base),
    prompt=prompt,
    prompt_id=prompt_id,
    max_target_length=lengths["targets"],
    split=split,
    stop=writing.stop(words, tuned=tuned),
    writing=writing.described(words),
  )


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
    tasks: only those with the prompt attached are looked at.

  Raises:
    DataError: a prompt that the bank does not have.
  """
  prompts = prompt_count(model)
  if prompts < 2:
    return
  if train is not None:
    check_prompt_ids(train, prompts)
  for task in tasks:
    if task.prompt == "attached":
      rows = [task.prompt_row(index) for index in range(len(task.examples.inputs))]
      check_prompt_ids(np.asarray(rows), prompts)


def in_memory(
  name: str,
  inputs: Sequence[np.ndarray],
  targets: Sequence[np.ndarray],
  records: Sequence[dict[str, Any]],
  *,
  prompt_id: int = 0,
) -> Examples:
  """Examples that come from no seqio task."""
  return Examples(
    name=name,
    split="all",
    inputs=inputs,
    targets=targets,
    records=records,
    prompt_ids=np.full(len(inputs), prompt_id, np.int32),
    lengths=LengthReport(
      examples=len(inputs),
      inputs_limit=None,
      targets_limit=None,
      longest_input=max(map(len, inputs)),
      longest_target=max(map(len, targets)),
    ),
  )


def format_metric(experiment: Experiment) -> Any:
  """Share of outputs in the tuned task's format; None where the task has none that can be told."""
  for task in experiment.tasks:
    base = catalog.split_shots(task)[0]
    if base in LABELS:
      return format_share.FormatShare(labels=LABELS[base])
    if base == "wmt14_en_fr" and experiment.source == "micro":
      return format_share.LanguageShare(is_word=_FRENCH.__contains__, language="micro French")
  return None


def decoder(experiment: Experiment) -> Callable[[Sequence[int]], str]:
  """Token ids -> text."""
  return text_vocabulary(experiment).decode


def text_vocabulary(experiment: Experiment) -> Vocabulary:
  """The vocabulary of the experiment's data, which fits its backbone.

  Raises:
    ConfigError: it cannot be opened, or the backbone has too few embedding rows for it, other
      special tokens or another kind of input; or there are no sentinels and targets need them.
  """
  if experiment.source == "micro" and reference(experiment.vocabulary) is None:
    found: Vocabulary = micro_vocabulary()
    name = "of the micro world"
  else:
    found, name = open_vocabulary(experiment.vocabulary), f"'{experiment.vocabulary}'"
  vocabulary_fit.check(found, name, experiment.backbone)
  if experiment.targets == "sentinel" and None in (found.sentinel(0), found.sentinel(1)):
    raise ConfigError(
      f"TARGETS='sentinel' puts answers between <extra_id_0> and <extra_id_1>, and vocabulary {name} "
      "has no such tokens; use TARGETS='raw'."
    )
  return found
