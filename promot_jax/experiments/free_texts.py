"""Texts that belong to no task, as an experiment's models are asked them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from promot_jax.data import vocabularies
from promot_jax.decoding.strategies import Sample
from promot_jax.errors import ConfigError, DataError
from promot_jax.experiments import shapes, writing
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.reader import text_vocabulary
from promot_jax.inference.answering import Form, Given
from promot_jax.models import preparation
from promot_jax.token_ids import TokenIds
from tasks import catalog

Stop = Literal["auto", "line", "none"]
"""Where an answer ends besides eos: as the form has it (`writing.stop`), at its first line feed, or nowhere."""


def form(experiment: Experiment, *, tuned: bool, bank_row: int = 0, stop: Stop = "auto") -> Form:
  """How they are written and read.

  Args:
    tuned: whether the model reads texts in the form that it was tuned in (`writing`).
    bank_row: of the method's bank.
  """
  plan = experiment.evaluation
  words = text_vocabulary(writing.written(experiment, tuned=tuned))
  return Form(
    vocabulary=words,
    stop={"auto": writing.stop(words, tuned=tuned), "line": ("\n",), "none": ()}[stop],
    special=TokenIds.of(experiment.backbone),
    strategy=plan.strategy,
    longest_input=plan.feature_lengths["inputs"],
    longest_answer=plan.feature_lengths["targets"],
    batch_size=plan.batch_size,
    bank_row=bank_row,
    seed=experiment.seed,
  )


def made_with(experiment: Experiment, *, tuned: bool, stop: Stop = "auto") -> dict[str, str]:
  """What changes an answer besides the model, by words that a message can show.

  A user's own vocabulary counts with its content, not only with its name.
  """
  asked = form(experiment, tuned=tuned, stop=stop)
  name = writing.written(experiment, tuned=tuned).vocabulary
  found = {
    "strategy": repr(asked.strategy),
    "longest answer": str(asked.longest_answer),
    "vocabulary": name,
    "writing": json.dumps(writing.described(asked.vocabulary)),
    "stop": repr(asked.stop),
    "token ids": repr(asked.special),
  }
  # Only what draws depends on it: greedy answers go on under any seed.
  if isinstance(asked.strategy, Sample):
    found["seed"] = str(asked.seed)
  if vocabularies.reference(name) is not None:
    found["words"] = f"{name} (sha {vocabularies.digest(name)[:16]})"
  return found


def features(
  experiment: Experiment,
  checkpoint: Checkpoint,
  questions: Sequence[tuple[str, str, Mapping[str, Any]]],
  *,
  form: Form,
  attached: bool,
  task: str | None = None,
) -> Given:
  """The features that the attached method reads and the tuned task declares, made of the questions.

  Args:
    checkpoint: which answers.
    questions: (where it stands, input, what the line holds) of each.
    form: in which they are asked.
    attached: whether the method is; a detached one reads nothing.
    task: of several tuned tasks the one that is meant; None: the first.

  Raises:
    DataError: a line lacks what a feature is made of, or holds something else.
  """
  name = task or experiment.tasks[0]
  found = catalog.find(name).features
  if not found or not attached:
    return Given()
  # From shapes: which features are asked for is known before the weights are there.
  read = preparation.names_read(shapes.abstract_checkpoint(experiment, checkpoint))
  wanted = {each: found[each] for each in found if {each, f"{each}_mask"} & read}
  files, words = experiment.files_of(name), form.vocabulary
  arrays: dict[str, list[np.ndarray]] = {each: [] for each in wanted}
  for where, text, line in questions if wanted else ():
    # Of a user's table the columns are named as in the training file; else as the task's records.
    record = files.record_of(line, where=where) if files is not None else line
    for each, feature in wanted.items():
      try:
        array = feature.array(each, record, vocabulary=words, after=text, target=experiment.targets)
      except DataError as error:
        raise DataError(f"{where}: {error}") from error
      arrays[each].append(array)
  kinds = {each: feature.kind for each, feature in wanted.items()}
  return Given(
    kinds=kinds,
    features=arrays,
    room={each: kind.extents(arrays[each]) for each, kind in kinds.items()},
  )


def labels(experiment: Experiment, task: str | None = None) -> tuple[str, ...]:
  """The words that the tuned task answers with.

  Args:
    task: of several tuned tasks the one that is meant; None: the first.

  Raises:
    ConfigError: its answers are free text.
  """
  name = task or catalog.split_shots(experiment.tasks[0])[0]
  found = catalog.find(name).labels
  if not found or experiment.targets != "raw":
    why = "its answers are free text" if not found else f"TARGETS='{experiment.targets}'"
    raise ConfigError(f"--probabilities: task '{name}' has no labels to compare ({why}).")
  return found
