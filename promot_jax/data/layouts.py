"""Rows of the files that data sets are distributed in, each with its file and line, one after another.

| files         | a row is                              | is named by           |
|---------------|---------------------------------------|-----------------------|
| JSON lines    | an object                             | FILE:LINE             |
| JSON document | an object in its list                 | FILE, record NUMBER   |
| TSV, CSV      | its cells by the names of the columns | FILE:LINE             |
| parallel text | a line of each file, by given names   | FILE:LINE             |

XML is in `data.xml_files`.  All but JSON documents and tables are streamed: memory does not grow with them.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax import identity
from promot_jax.data import record_files, tables, text_lines
from promot_jax.data.original_files import Files, Layout, Row
from promot_jax.errors import ConfigError, DataError


def json_lines(files: Files) -> Iterator[Row]:
  """Objects of JSON lines, of packed ones (.gz) too."""
  for path in _all(files):
    for number, record in text_lines.stream_json_lines(path):
      yield f"{path}:{number}", record


def json_document(
  files: Files, *, records: Callable[[Any], Iterable[Any]] = lambda document: document
) -> Iterator[Row]:
  """Objects of JSON documents.

  Args:
    records: those of a document, which by itself is their list.
  """
  for path in _all(files):
    document = text_lines.json_value(text_lines.read_text(path), where=path)
    try:
      # In here, because `records` is a generator, which fails while it is gone through.
      for number, record in enumerate(records(document), 1):
        yield f"{path}, record {number}", record
    except (KeyError, TypeError, AttributeError) as error:
      raise DataError(
        f"{path} is not built as expected: {type(error).__name__} {error}. Is it the file of that data"
        " set?"
      ) from None


def table(files: Files, *, columns: Sequence[str], quotes: bool = True) -> Iterator[Row]:
  """Rows of TSV and CSV (`data.tables`), whose first row names the columns.

  Args:
    columns: those that must be there.
    quotes: whether a cell may stand in double quotes.
  """
  for path in _all(files):
    found = tables.read(path, quotes=quotes)
    found.require(columns, what="the task")
    for row in found.rows:
      yield found.where(row), row.cells


def parallel(files: Files, *, names: Sequence[str]) -> Iterator[Row]:
  """Lines of the same number of several files, by a name for each.

  Raises:
    DataError: one of them has more lines.
  """
  for paths in _corpora(files, names):
    # To the end of the longer one, or a lost line would go unseen.
    for lines in itertools.zip_longest(*map(text_lines.stream_lines, paths)):
      if None in lines:
        raise DataError(_unequal(paths, lines))
      yield (
        f"{paths[0]}:{lines[0].number}",
        {name: line.text for name, line in zip(names, lines, strict=True)},
      )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NumberedLines:
  """The rows of `parallel` by their numbers (`original_files.NumberedRows`).

  Raises:
    DataError: two sides of a corpus have different numbers of lines.
  """

  files: Files
  names: Sequence[str]
  opener: record_files.RecordFiles

  def __post_init__(self) -> None:
    for paths, sides in zip(_corpora(self.files, self.names), self._corpora):
      if len(set(map(len, sides))) != 1:
        shortest, longest = min(map(len, sides)), max(sides, key=len)
        ended = ", ".join(path for path, side in zip(paths, sides) if len(side) == shortest)
        raise DataError(_unpaired(longest.path, shortest + 1, ended))

  @functools.cached_property
  def _corpora(self) -> list[list[record_files.RecordFile]]:
    return [
      [self.opener.lines(path) for path in paths] for paths in _corpora(self.files, self.names)
    ]

  @functools.cached_property
  def _first(self) -> np.ndarray:
    """Number of the first row of each corpus, and that of all rows."""
    return np.cumsum([0, *(len(sides[0]) for sides in self._corpora)])

  def __len__(self) -> int:
    return int(self._first[-1])

  @property
  def content(self) -> str:
    """Digest of all files."""
    return identity.digest([[side.content for side in sides] for sides in self._corpora])

  @property
  def problem(self) -> str:
    """What is known to be wrong before a row is read: lines that are empty."""
    every = [side for sides in self._corpora for side in sides if side.empty]
    return "; ".join(
      f"{side.path}:{side.first_empty} is empty"
      + f", and {side.empty - 1} more lines" * (side.empty > 1)
      for side in every
    )

  def row(self, number: int) -> Row:
    """A row and its place."""
    corpus = int(np.searchsorted(self._first, number, side="right")) - 1
    line, sides = number - int(self._first[corpus]), self._corpora[corpus]
    texts = (side.read(line).decode().removesuffix("\n").removesuffix("\r") for side in sides)
    return f"{sides[0].path}:{line + 1}", dict(zip(self.names, texts, strict=True))


def numbered_parallel(files: Files, opener: record_files.RecordFiles, *, names: Sequence[str]):
  """`NumberedLines` as a layout asks for them."""
  return NumberedLines(files=files, names=names, opener=opener)


def _corpora(files: Files, names: Sequence[str]) -> list[tuple[str, ...]]:
  """The files of each corpus, one of each side.

  Raises:
    ConfigError: one is missing.
  """
  # One corpus may be in several files, and the sides belong together by the order of their names.
  if len({len(paths) for paths in files}) != 1:
    counts = " and ".join(f"{len(paths)} of {name!r}" for name, paths in zip(names, files))
    raise ConfigError(
      f"{files[0][0]}: parallel text needs one file of each side, there are {counts}."
    )
  return list(zip(*files, strict=True))


def _unequal(paths: Sequence[str], lines: Sequence[text_lines.Line | None]) -> str:
  number = next(line.number for line in lines if line is not None)
  ended = ", ".join(path for path, line in zip(paths, lines) if line is None)
  goes_on = next(path for path, line in zip(paths, lines) if line is not None)
  return _unpaired(goes_on, number, ended)


def _unpaired(goes_on: str, number: int, ended: str) -> str:
  return (
    f"{goes_on}:{number} has no partner: {ended} ends after line {number - 1}. Parallel files have the same"
    " number of lines; was one of them cut, or a line end lost?"
  )


def of_parallel(*names: str) -> Callable[[Files], Iterator[Row]]:
  """`parallel` with its names, as a layout asks for."""
  return functools.partial(parallel, names=names)


def of_table(*columns: str, quotes: bool = True) -> Callable[[Files], Iterator[Row]]:
  """`table` with its columns."""
  return functools.partial(table, columns=columns, quotes=quotes)


def of_document(records: Callable[[Any], Iterable[Any]]) -> Callable[[Files], Iterator[Row]]:
  """`json_document` with what its records are."""
  return functools.partial(json_document, records=records)


def super_glue(name: str, record: Callable[[Any], Mapping[str, Any] | None]) -> Layout:
  """The folder of one of SuperGLUE's data sets."""
  splits = {"train": "train", "validation": "val", "test": "test"}
  return Layout(
    splits={split: (f"super_glue/{name}/{file}.jsonl",) for split, file in splits.items()},
    rows=json_lines,
    record=record,
  )


def class_number(row: Mapping[str, Any], classes: Sequence[str], *, name: str = "label") -> int:
  """The number of a row's label among the classes, as TensorFlow Datasets has it; -1 where it has none.

  Raises:
    DataError: it is none of them.
  """
  label = row.get(name)
  # Test splits of SuperGLUE have no label at all.
  if label is None:
    return -1
  # As JSON, so that a truth value is compared with 'true' and 'false'.
  shown = label if isinstance(label, str) else json.dumps(label)
  if shown not in classes:
    raise DataError(f"{name} {shown!r} is none of {', '.join(classes)}.")
  return list(classes).index(shown)


def text(row: Mapping[str, Any], name: str) -> str:
  """A text of a row.

  Raises:
    KeyError: there is none.
    DataError: it is of another kind, or empty.
  """
  value = row[name]
  if not isinstance(value, str):
    raise DataError(f"{name!r} is {text_lines.kind_of(value)}, not a text.")
  # An empty text would become a question without its content, which no metric notices.
  if not value.strip():
    raise DataError(f"{name!r} is empty.")
  return value


def texts(row: Mapping[str, Any], name: str) -> list[str]:
  """A list of at least one text.

  Raises:
    KeyError: there is none.
    DataError: it is of another kind, or empty.
  """
  value = row[name]
  if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
    raise DataError(f"{name!r} is {text_lines.kind_of(value)}, not a list of texts.")
  return value


def _all(files: Files) -> Iterator[str]:
  return itertools.chain.from_iterable(files)
