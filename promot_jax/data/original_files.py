"""The original files of a data set as the origin of a task's records: no network, no preparation.

    DATA_SOURCE = 'files'
    DATA_DIR = '/data'  # where /data/super_glue/RTE/train.jsonl lies

A task says in which files its data set is distributed (`Layout`, mostly one, sometimes a second one of
others), and how a row of them becomes a record with the field names of its other sources.  Files are read
row by row each time, so that memory does not grow with them.  Every record carries its `where`, file and
line; one that cannot be used carries its `problem`, which `malformed` of an experiment refuses or counts.
A file that cannot be read at all (no UTF-8, rows of other columns, unequal halves) ends the reading.
"""

import dataclasses
import glob
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from promot_jax import errors, identity
from promot_jax.data import record_files
from promot_jax.data.task import PROBLEM, WHERE, Source

Row = tuple[str, Any]
"""File and line, and what is there."""
Files = Sequence[Sequence[str]]
"""Paths of the files that each of a split's patterns means."""

_BLOCK = (
  256  # records handed to TensorFlow at once, which spends more on a call than on what is in it
)
_READ = 2**24  # bytes up to which a file counts with its content, else with size and time of change


class NumberedRows(Protocol):
  """Rows of a split's files by their numbers, each read when it is asked for.

  content: digest of the files.
  problem: what is known to be wrong with some of them; empty: nothing.
  """

  @property
  def content(self) -> str: ...
  @property
  def problem(self) -> str: ...
  def __len__(self) -> int: ...
  def row(self, number: int) -> Row: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """One form in which a data set's files are distributed.

  splits: name -> paths below DATA_DIR, which may be patterns ('training/*.en'); all have to be there.
  rows: reads the files of a split (`data.layouts`).
  record: a row -> the record that a template reads; None: it takes no part and is not counted.  Raises
    DataError, or KeyError where the row has no such field, for one that cannot be used.
  numbered: gives the same rows by their numbers; None: they are only read one after another.
  """

  splits: Mapping[str, tuple[str, ...]]
  rows: Callable[[Files], Iterable[Row]]
  record: Callable[[Any], Mapping[str, Any] | None]
  numbered: Callable[[Files, record_files.RecordFiles], NumberedRows] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OriginalFiles:
  """An origin of records (`data.task.Origin`).

  layouts: of a split the first one counts whose files are there.
  references: the field with all accepted texts of a record, where there are several: in 'train' each of
    them is an example of its own.
  merged: whether a file has a row for each reference: outside of 'train' neighbours that agree in
    everything else are one record.
  folder: DATA_DIR; None as long as nobody has said it.
  """

  layouts: tuple[Layout, ...]
  references: str | None = None
  merged: bool = False
  folder: str | None = None

  def at(self, folder: str) -> "OriginalFiles":
    """The same below a folder."""
    return dataclasses.replace(self, folder=folder)

  @property
  def description(self) -> str:
    return f"original files below {self.folder}"

  @property
  def splits(self) -> tuple[str, ...]:
    """Of all layouts, in their order."""
    # Layouts may share splits, and differ in which they have.
    return tuple(dict.fromkeys(split for layout in self.layouts for split in layout.splits))

  def data_source(self) -> Any:
    """See `data.task.Origin`."""
    import seqio

    def dataset(split: str, shuffle_files: bool = False, seed: int | None = None) -> Any:
      del shuffle_files, seed  # the records keep their order
      return _dataset(lambda: self.records(split), what=f"{self.description}, split '{split}'")

    return seqio.FunctionDataSource(dataset, splits=self.splits)

  def records(self, split: str) -> Iterator[dict[str, Any]]:
    """Records with WHERE and PROBLEM, those that cannot be used with nothing else.

    Raises:
      ConfigError: the files are not there.
      DataError: one cannot be read, or has no record.
    """
    layout, files = self._found(split)
    found = _records(layout.rows(files), layout.record)
    # Trained on one text each, measured against all of them.
    if self.references is not None and split == "train":
      found = _each(found, self.references)
    elif self.references is not None and self.merged:
      found = _merged(found, self.references)
    # Looked at here, so that an empty file is named before a data set without elements is.
    first = next(found, None)
    if first is None:
      names = ", ".join(path for paths in files for path in paths[:3])
      raise errors.DataError(f"{names}: there is no record for split '{split}'.")
    return itertools.chain([first], found)

  def numbered(self, split: str, opener: record_files.RecordFiles) -> "NumberedRecords | None":
    """The records of a split by their numbers; None where they are few, or cannot be had so.

    Raises:
      ConfigError, DataError: a file cannot be read.
    """
    if self.references is not None or not self.is_there(split):
      return None
    layout, files = self._found(split)
    paths = [path for each in files for path in each]
    # A packed file is only read from its start.
    packed = any(path.endswith(".gz") for path in paths)
    if layout.numbered is None or packed or sum(map(os.path.getsize, paths)) < record_files.LARGE:
      return None
    return NumberedRecords(rows=layout.numbered(files, opener), layout=layout)

  def count(self, split: str) -> int:
    """Records of a split that can be used; reads it."""
    return sum(not record[PROBLEM[0]] for record in self.records(split))

  def files(self, split: str) -> list[str]:
    """Paths of a split's files.

    Raises:
      ConfigError: they are not there.
    """
    return [path for paths in self._found(split)[1] for path in paths]

  def digest(self) -> str:
    """Of all files: small ones by content, large ones and folders by size and time of change."""
    # Splits that are not there take no part: a model may be measured without training data.
    told = []
    for split in self.splits:
      for path in self.files(split) if self.is_there(split) else ():
        # Relative: the same files in another folder are the same data.
        name = os.path.relpath(path, self.folder)
        # A folder of articles is not opened file by file for a digest.
        if os.path.isdir(path):
          told.append([name, str(os.stat(path).st_mtime_ns)])
        else:
          told.append([name, identity.of_files(path, read=("*",), largest=_READ)])
    return identity.digest([told])

  def is_there(self, split: str) -> bool:
    """Whether the files of a split are there."""
    return any(_paths(self.folder, layout, split) for layout in self.layouts)

  def state(self) -> str:
    """See `data.task.Origin`."""
    there = [split for split in self.splits if self.is_there(split)]
    missing = [split for split in self.splits if split not in there]
    found = "; ".join(f"{split} {_shown(self.folder, self.files(split))}" for split in there)
    absent = f"; not there: {', '.join(missing)}" if missing else ""
    return f"files below {self.folder}: {found or 'none'}{absent}"

  def explained(self, task: str, error: Exception) -> None:
    """Its own errors say what to do."""
    del task, error

  def _found(self, split: str) -> tuple[Layout, list[list[str]]]:
    for layout in self.layouts:
      paths = _paths(self.folder, layout, split)
      if paths:
        return layout, paths
    wanted = " or ".join(
      " with ".join(layout.splits[split]) for layout in self.layouts if split in layout.splits
    )
    raise errors.ConfigError(
      f"DATA_DIR={str(self.folder)!r} has no files for split '{split}': expected is {wanted or 'none'}."
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NumberedRecords:
  """Records of a split by their numbers (`data.stream.NumberedRecords`)."""

  rows: NumberedRows
  layout: Layout

  def __len__(self) -> int:
    return len(self.rows)

  @property
  def content(self) -> str:
    return self.rows.content

  @property
  def problem(self) -> str:
    return self.rows.problem

  def record(self, number: int) -> Mapping[str, Any] | None:
    """As `OriginalFiles.records` gives it; None where the row takes no part."""
    return next(_records([self.rows.row(number)], self.layout.record), None)


def source(
  *layouts: Layout, references: str | None = None, merged: bool = False, **fields: Any
) -> Source:
  """Original files as a source of a task.

  Args:
    layouts, references, merged: see `OriginalFiles`.
    fields: see `data.task.Source`; `sizes` are the published ones.
  """
  origin = OriginalFiles(layouts=layouts, references=references, merged=merged)
  return Source(origin=origin, **fields)


def _paths(folder: str | None, layout: Layout, split: str) -> list[list[str]]:
  """Files of each pattern; none at all where one has no file."""
  # A layout may lack a split, such as one that the data set's authors did not give out.
  if folder is None or split not in layout.splits:
    return []
  base = pathlib.Path(folder).expanduser()
  found = [
    # The folder's own name is no pattern, whatever characters it has.
    sorted(glob.glob(str(pathlib.Path(glob.escape(str(base))) / pattern)))
    for pattern in layout.splits[split]
  ]
  # All sides or none: half a parallel corpus is no split.
  return found if all(found) else []


def _shown(folder: str | None, paths: Sequence[str]) -> str:
  first = os.path.relpath(paths[0], pathlib.Path(folder or ".").expanduser())
  return first + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _records(
  rows: Iterable[Row], record: Callable[[Any], Mapping[str, Any] | None]
) -> Iterator[dict[str, Any]]:
  for where, row in rows:
    try:
      found = record(row)
    except errors.DataError as error:
      yield _unusable(where, str(error))
    # The row's columns in the message, since mostly another layout was put there.
    except KeyError as error:
      fields = ", ".join(map(str, row)) if isinstance(row, Mapping) else "no field"
      yield _unusable(where, f"there is no {error.args[0]!r}; there are: {fields}.")
    # What a row leads to that is not built as the data set's are.
    except (TypeError, IndexError, AttributeError, ValueError) as error:
      yield _unusable(where, f"a field is of another kind ({error}).")
    else:
      if found is not None:
        yield {**found, WHERE[0]: where, PROBLEM[0]: ""}


def _unusable(where: str, problem: str) -> dict[str, Any]:
  return {WHERE[0]: where, PROBLEM[0]: problem}


def _each(records: Iterable[dict[str, Any]], references: str) -> Iterator[dict[str, Any]]:
  """One record for each reference."""
  for record in records:
    if record[PROBLEM[0]]:
      yield record
    else:
      yield from ({**record, references: [text]} for text in record[references])


def _merged(records: Iterable[dict[str, Any]], references: str) -> Iterator[dict[str, Any]]:
  """Neighbours that differ only in their references (and place) as one."""

  def rest(record: Mapping[str, Any]) -> Any:
    if record[PROBLEM[0]]:
      # Never equal to a neighbour's.
      return record[WHERE[0]]  # alone
    # Compared without their place, which always differs.
    return [(name, value) for name, value in record.items() if name not in (references, WHERE[0])]

  # Neighbours only: the whole file would have to be kept to find others.
  for _, group in itertools.groupby(records, rest):
    first, *others = group
    if others:
      texts = [text for each in (first, *others) for text in each[references]]
      first = {**first, references: texts}
    yield first


def _dataset(records: Callable[[], Iterator[dict[str, Any]]], *, what: str) -> Any:
  """A tf.data.Dataset of the records, its element's spec that of the first usable one.

  Raises:
    DataError: no record can be used.
  """
  import tensorflow as tf

  # The first that can be used tells the elements' types, for seqio wants them beforehand.
  first = next((each for each in records() if not each[PROBLEM[0]]), None)
  if first is None:
    problem = next(records())
    raise errors.DataError(
      f"{what}: no record can be used, the first for this reason: {problem[WHERE[0]]}:"
      f" {problem[PROBLEM[0]]}"
    )
  empty = _empty(first)

  def blocks() -> Iterator[dict[str, Any]]:
    # Fields of a record that cannot be used are empty, since all elements have one structure.
    every = (each if not each[PROBLEM[0]] else {**empty, **each} for each in records())
    while block := list(itertools.islice(every, _BLOCK)):
      yield _columns(first, block)

  dataset = tf.data.Dataset.from_generator(blocks, output_signature=_spec(first)).unbatch()
  return dataset.map(lambda record: record)  # makes plain tensors of the rows of ragged columns


def _spec(value: Any) -> Any:
  """Of a block: texts, whole numbers, lists of texts, and mappings of them."""
  import tensorflow as tf

  if isinstance(value, Mapping):
    return {name: _spec(each) for name, each in value.items()}
  if isinstance(value, list):
    return tf.RaggedTensorSpec([None, None], tf.string, ragged_rank=1)
  return tf.TensorSpec([None], tf.int64 if isinstance(value, int) else tf.string)


def _columns(first: Mapping[str, Any], block: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Records as one tensor for each field, in the nesting of a record."""
  import tensorflow as tf

  found: dict[str, Any] = {}
  for name, value in first.items():
    column = [record[name] for record in block]
    if isinstance(value, Mapping):
      found[name] = _columns(value, column)
    elif isinstance(value, list):
      found[name] = tf.ragged.constant(column, tf.string, ragged_rank=1)
    else:
      found[name] = tf.constant(column, tf.int64 if isinstance(value, int) else tf.string)
  return found


def _empty(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {name: _empty(each) for name, each in value.items()}
  return type(value)()
