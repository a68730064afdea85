"""A user's own files as a task: the value that everything else asks, and the origin of its records."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from promot_jax.data.file_features import RECORD
from promot_jax.data.own_files import OwnFiles
from promot_jax.data.task import Record, Source, Task
from promot_jax.data.templates import Rendered
from promot_jax.errors import ConfigError, DataError
from promot_jax.metrics import postprocess, registry

_SHOWN = 3  # rows in a message


# One value for the same files, since a registration is told by the task that it has.
@functools.cache
def task_of(files: OwnFiles) -> Task:
  """The task; of files whose labels are those of the training file, this reads it.

  Raises:
    ConfigError: METRIC is none of `registry.NAMES`, or needs labels.
    ConfigError, DataError: as `OwnFiles.words`.
  """
  # Reads the training file where its targets are the labels.
  labels = files.words
  try:
    metric = registry.find(files.metric, labels=labels)
  except ConfigError as error:
    raise ConfigError(f"METRIC={files.metric!r}: {error}") from None
  source = Source(
    origin=Tables(files=files),
    # Without a test file the rows that choose are those that are reported.
    report="test" if "test" in files.splits else "validation",
    sizes=_Sizes(files),
  )
  return Task(
    name=files.name,
    # The experiment's source chooses the words a model reads; the rows are the same.
    sources={"tfds": source, "micro": source, "files": source},
    fields=(("input",), ("answers",), *[(RECORD,)] * bool(files.declared)),
    template=_text,
    labels=labels,
    # Then an output is told by its first word, and what a model adds behind it does not count.
    first_token=bool(labels) and all(postprocess.first_word(word) == word for word in labels),
    metric=files.metric,
    metric_fns=(metric,),
    features={each.name: each.of_task for each in files.declared},
  )


def refuse_problems(files: OwnFiles) -> None:
  """Reads every split, so that a run that would stop at a row does not start.

  Raises:
    ConfigError, DataError: as `OwnFiles.rows`; or a row cannot be used, with the first ones' lines.
  """
  # Every split now: an error in the last one would else come after the training.
  for split in files.splits:
    rows = files.rows(split)
    if found := [problem for row in rows if (problem := _problem(row))]:
      raise DataError(
        f"{len(found)} of {len(rows)} rows for {split} cannot be used: {' | '.join(found[:_SHOWN])}"
        " Correct them, or leave them out and have them counted: --gin.MALFORMED=\"'skip'\"."
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
  """The files as the origin of records (`task.Origin`)."""

  files: OwnFiles

  @property
  def description(self) -> str:
    return f"the table {self.files.train_file}"

  def data_source(self) -> Any:
    """See `task.Origin`."""
    import seqio
    import tensorflow as tf

    def dataset(split: str, shuffle_files: bool = False, seed: int | None = None):
      del shuffle_files, seed  # the rows keep their order
      rows = self.files.rows(split)
      columns = {
        "input": tf.constant([row.text.input for row in rows], tf.string),
        # Ragged, since rows have different numbers of accepted answers.
        "answers": tf.ragged.constant(
          [list(row.text.answers) for row in rows], dtype=tf.string, ragged_rank=1
        ),
        "problem": tf.constant([_problem(row) for row in rows], tf.string),
        RECORD: tf.constant([row.features for row in rows], tf.string),
      }
      # The identity makes plain tensors of the rows of ragged columns.
      return tf.data.Dataset.from_tensor_slices(columns).map(lambda record: record)

    # seqio asks for sizes before it reads.
    sizes = {split: len(self.files.rows(split)) for split in self.files.splits}
    return seqio.FunctionDataSource(dataset, splits=self.files.splits, num_input_examples=sizes)

  def digest(self) -> str:
    """Of settings and content."""
    return self.files.digest()

  def state(self) -> str:
    """For a plan, which reads the rows: what is wrong with a file is known before anything runs."""
    sizes = ", ".join(f"{name} {len(self.files.rows(name))}" for name in self.files.splits)
    return f"rows of {self.files.train_file}: {sizes}"

  def explained(self, task: str, error: Exception) -> None:
    """Its own errors say what to do."""
    del task, error


class _Sizes(Mapping[str, int]):
  """Rows by split, counted when they are asked for: a model's answers need no training file."""

  def __init__(self, files: OwnFiles):
    self._files = files

  def __getitem__(self, split: str) -> int:
    if split not in self._files.splits:
      raise KeyError(split)
    return len(self._files.rows(split))

  def __iter__(self) -> Iterator[str]:
    return iter(self._files.splits)

  def __len__(self) -> int:
    return len(self._files.splits)


def _problem(row: Any) -> str:
  """Why a row cannot be trained or scored on; an empty target is named by its line, too."""
  if row.problem or row.text.answers:
    return row.problem
  return f"{row.where}: the target is empty. To answer rows without one, use promot infer."


def _text(record: Record) -> Rendered:
  answers = tuple(record["answers"])
  return Rendered(input=record["input"], target=answers[0], answers=answers)
