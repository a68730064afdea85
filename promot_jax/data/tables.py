"""Tables of users, one row an example: TSV, CSV, JSON lines and Parquet, told apart by the name's end.

| name ends in      | read by      | a cell is                  | a row is named by           |
|-------------------|--------------|----------------------------|-----------------------------|
| .csv, .tsv, .tab  | Python's csv | text, blanks around it off | the line it begins in       |
| .jsonl, .ndjson   | `text_lines` | any JSON value             | its line                    |
| .parquet, .pq     | pyarrow      | the same, dates as ISO text | its number, from 1         |

Text is UTF-8, with or without a byte order mark, and a line ends at \\n or \\r\\n (`text_lines`).  In TSV
and CSV a cell that begins with a double quote is a quoted one: it ends at the next single quote, two
quotes are one, and tabs, commas and line ends in it are text; elsewhere in a cell a quote is a quote.
`quotes=False` takes every quote as it is, as the files of GLUE need.  A .csv file whose first line with
content has no comma is separated by semicolons, or else by tabs.  The first row has the names of the
columns: none twice, and columns without a name are not read.  Rows without content are left out; any other
has as many cells as there are columns, since a row that lost or gained one says something else than its
author meant.
"""

import csv
import dataclasses
import math
import pathlib
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from promot_jax import identity
from promot_jax.data import text_lines
from promot_jax.errors import ConfigError, DataError

_KINDS = {
  ".csv": "csv",
  ".tsv": "csv",
  ".tab": "csv",
  ".jsonl": "json",
  ".ndjson": "json",
  ".parquet": "parquet",
  ".pq": "parquet",
}
ENDINGS = tuple(_KINDS)
_SAVE_AS = {
  ".xlsx": "Save it from the spreadsheet as 'CSV UTF-8'.",
  ".xls": "Save it from the spreadsheet as 'CSV UTF-8'.",
  ".ods": "Save it from the spreadsheet as 'Text CSV', UTF-8.",
  ".json": "Write one object a line, for example with jq -c '.[]' FILE.json > FILE.jsonl.",
  ".txt": "Rename it to .tsv if tabs separate its columns, or to .csv.",
  ".gz": "Unpack it with gunzip.",
}
_LARGEST_CELL = 2**27  # characters; Python's csv stops at 2**17, which a long document passes
_SHOWN = 8  # names of columns in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One row: where it begins, and its cells by the names of the columns.

  number: the line, from 1; of a Parquet file, which has none, the row.
  """

  number: int
  cells: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """A file's rows in their order.

  columns: in their order; of JSON lines the names of every object, in the order they first occur.
  unit: what a row's number counts, 'line' or 'row'.
  """

  path: str
  columns: tuple[str, ...]
  rows: tuple[Row, ...]
  unit: str = "line"

  def __len__(self) -> int:
    return len(self.rows)

  def where(self, row: Row) -> str:
    """'FILE:12', or 'FILE, row 12', for messages."""
    return f"{self.path}:{row.number}" if self.unit == "line" else f"{self.path}, row {row.number}"

  def require(self, columns: Sequence[str], *, what: str) -> None:
    """Checks that the columns are there.

    Args:
      what: names the wish, "TEMPLATE='{premise} answer:'".

    Raises:
      DataError: one is not.
    """
    for name in columns:
      if name not in self.columns:
        found = ", ".join(map(repr, self.columns[:_SHOWN]))
        more = f" and {len(self.columns) - _SHOWN} more" if len(self.columns) > _SHOWN else ""
        raise DataError(
          f"{self.path} has no column {name!r}, which {what} needs; it has: {found}{more}."
        )


def is_table(path: str | pathlib.Path) -> bool:
  """Whether a name ends as a table's does."""
  return pathlib.PurePath(path).suffix.lower() in _KINDS


def kind(path: str | pathlib.Path) -> str:
  """'csv', 'json' or 'parquet'; nothing is read.

  Raises:
    ConfigError: the name says neither, or is no file's.
  """
  if "://" in str(path):
    raise ConfigError(f"{path} is a URL, and tables are read from files: download it first.")
  ending = pathlib.PurePath(path).suffix.lower()
  if ending not in _KINDS:
    advice = _SAVE_AS.get(ending, "Rename it after what it holds.")
    raise ConfigError(
      f"{path} ends in {ending or 'nothing'!r}, and a table's name ends in {', '.join(ENDINGS)}. "
      + advice
    )
  return _KINDS[ending]


def read(path: str | pathlib.Path, *, quotes: bool = True) -> Table:
  """The rows of a file.

  Args:
    quotes: whether a cell of TSV and CSV may stand in double quotes, see the module.

  Raises:
    ConfigError: it is not there, must not be read, or is of another kind.
    DataError: it has no rows, or one that cannot be read.
  """
  kind_of_file = kind(path)
  path = pathlib.Path(path).expanduser()
  # A pipe or device has no end, or only one reading.
  if path.exists() and not path.is_file():
    what = "a folder" if path.is_dir() else "a pipe or device"
    raise DataError(f"{path} is {what}, and a table is a file: name one.")
  if kind_of_file == "parquet":
    table = _parquet(path)
  elif kind_of_file == "json":
    table = _json_lines(path)
  else:
    table = _separated(path, quotes=quotes)
  # With a sentence of its own, since a file that was saved empty is a common mistake.
  if not table.rows:
    needs = "one row for each example" if table.columns else "a row with names of columns first"
    raise DataError(f"{path} is empty: a table has {needs}.")
  return table


def digest(path: str | pathlib.Path) -> str:
  """Digest of a table's bytes, by which data that were read from it are known.

  Raises:
    ConfigError: it cannot be read.
  """
  try:
    return identity.of_file(pathlib.Path(path).expanduser())
  except OSError as error:
    raise ConfigError(f"{path} cannot be read: {error.strerror}. Name another file.") from None


def text_of(value: Any, *, where: str, column: str) -> str:
  """A cell as a template shows it: text, a number or a truth value as JSON writes it.

  Raises:
    DataError: it is missing, or a list or an object.
  """
  if isinstance(value, str):
    return value
  # Before numbers, for True is an int in Python.
  if isinstance(value, bool):
    return "true" if value else "false"
  if value is None:
    raise DataError(f"{where}: column {column!r} has no value.")
  if isinstance(value, int | float):
    return str(value)
  raise DataError(
    f"{where}: column {column!r} is {text_lines.kind_of(value)}, {text_lines.shown(str(value))}, not"
    " a text or a number."
  )


def _json_lines(path: pathlib.Path) -> Table:
  rows = [Row(number=n, cells=record) for n, record in text_lines.read_json_lines(path)]
  # In the order in which they first occur: objects may lack some.
  columns = dict.fromkeys(name for row in rows for name in row.cells)
  return Table(path=str(path), columns=tuple(columns), rows=tuple(rows))


def _separated(path: pathlib.Path, *, quotes: bool) -> Table:
  text = text_lines.read_text(path)
  # Python's csv would take it for a character of a cell.
  if "\0" in text:
    line = text.count("\n", 0, text.index("\0")) + 1
    raise DataError(f"{path}:{line} has a NUL byte: it is binary, not a table in text.")
  lines = _with_ends(text)
  comma = path.suffix.lower() == ".csv"
  # Spreadsheets write semicolons into .csv where the comma is the decimal sign.
  separators = (",", ";", "\t") if comma else ("\t",)
  # Of the row of names: lines without content above it tell nothing.
  first = next((line for line in lines if not set(line) <= {*separators, *string.whitespace}), "")
  separator = next((each for each in separators if each in first), separators[0])
  found = _cells(path, lines, separator, quotes)
  names: list[str] = []
  rows: list[Row] = []
  for number, cells in found:
    # Lines of separators alone, as spreadsheets leave them at the end.
    if not any(cells):
      continue
    if not names:
      names = _header(path, number, cells)
    elif len(cells) != len(names):
      raise DataError(_ragged(path, number, cells, names, separator))
    else:
      # A column without a name cannot be asked for.
      rows.append(Row(number=number, cells={n: c for n, c in zip(names, cells) if n}))
  return Table(path=str(path), columns=tuple(filter(None, names)), rows=tuple(rows))


def _with_ends(text: str) -> list[str]:
  """Lines with their ends, which quoted cells keep."""
  parts = text.split("\n")
  return [part + "\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _cells(
  path: pathlib.Path, lines: Sequence[str], separator: str, quotes: bool
) -> Iterator[tuple[int, list[str]]]:
  """(line in which it begins, cells) of every row."""
  # Of the whole process, since the module has one limit.
  csv.field_size_limit(_LARGEST_CELL)
  reader = csv.reader(
    lines,
    delimiter=separator,
    # Strict: a quote in the wrong place would otherwise swallow the rest of the file.
    strict=True,
    quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
  )
  while True:
    # A row may have several lines, and is named by its first.
    begin = reader.line_num + 1
    try:
      cells = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      raise DataError(_explained(path, begin, lines, error)) from None
    # A line end in a quoted cell is text, in one form whatever wrote the file.
    yield begin, [cell.replace("\r\n", "\n").strip() for cell in cells]


def _explained(path: pathlib.Path, line: int, lines: Sequence[str], error: csv.Error) -> str:
  """Python's message in the words of a table."""
  shown = text_lines.shown(lines[line - 1].rstrip("\r\n"))
  message = str(error)
  if "unexpected end of data" in message:
    return (
      f"{path}:{line} opens a cell with a double quote that nothing closes: {shown}. Close it, write"
      " two quotes for one, or read quotes as they are: QUOTES = False."
    )
  if "expected after" in message:
    return (
      f"{path}:{line} has text behind a closing double quote: {shown}. Write two quotes for one inside"
      " of a quoted cell, or read quotes as they are: QUOTES = False."
    )
  if "new-line character" in message:
    return (
      f"{path}:{line} has a carriage return inside of a line: {shown}. Put the cell into double"
      " quotes, or save the file with ordinary line ends."
    )
  return f"{path}:{line} cannot be read: {message}: {shown}."


def _header(path: pathlib.Path, line: int, cells: Sequence[str]) -> list[str]:
  names = list(cells)
  # A template names a column, and of two of one name it could mean either.
  for name in filter(None, names):
    if names.count(name) > 1:
      places = " and ".join(str(i) for i, each in enumerate(names, 1) if each == name)
      raise DataError(
        f"{path}:{line} names two columns {name!r} (columns {places}); give each its own name."
      )
  return names


def _ragged(
  path: pathlib.Path, line: int, cells: Sequence[str], names: Sequence[str], separator: str
) -> str:
  between = {",": "comma", ";": "semicolon", "\t": "tab"}[separator]
  first = text_lines.shown(cells[0])
  return (
    f"{path}:{line} has {len(cells)} cell{'s' * (len(cells) != 1)} and the first row names "
    f"{len(names)} columns ({', '.join(names[:_SHOWN])}); it begins with {first}. A cell with a "
    f"{between} in it stands in double quotes; an empty cell still has its {between}."
  )


def _parquet(path: pathlib.Path) -> Table:
  import pyarrow
  from pyarrow import parquet

  try:
    # As one stream of bytes: a path would be looked at as a folder of parts, or as a URL.
    with path.open("rb") as stream:
      found = parquet.read_table(stream)
      names = found.column_names
      columns = [column.to_pylist() for column in found.columns]
  except OSError as error:
    reason = error.strerror or str(error)
    # What the system refuses is the user's path; what the library refuses is the file.
    kind_of_error = ConfigError if error.errno else DataError
    raise kind_of_error(f"{path} cannot be read: {reason}. Name another file.") from None
  except (pyarrow.ArrowException, ValueError) as error:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise DataError(f"{path} is no Parquet file that can be read: {reason}") from None
  if len(set(names)) < len(names):
    twice = next(name for name in names if names.count(name) > 1)
    raise DataError(f"{path} names two columns {twice!r}; give each its own name.")
  rows = []
  # A cell that cannot be read is named by its row.
  for number, values in enumerate(zip(*columns), 1):
    try:
      cells = {name: _as_json(value) for name, value in zip(names, values)}
    except UnicodeDecodeError as error:
      raise DataError(
        f"{path}, row {number} has bytes that are no UTF-8: byte 0x{error.object[error.start]:02x}."
        " Leave such a column out of the file."
      ) from None
    rows.append(Row(number=number, cells=cells))
  return Table(path=str(path), columns=tuple(names), rows=tuple(rows), unit="row")


def _as_json(value: Any) -> Any:
  """What JSON would hold: nothing for NaN, which pandas writes for nothing; dates as ISO text."""
  # pandas writes NaN for what is missing.
  if isinstance(value, float) and not math.isfinite(value):
    return None
  if isinstance(value, bytes):
    return value.decode("utf-8")
  if isinstance(value, list):
    return [_as_json(item) for item in value]
  if isinstance(value, dict):
    return {str(name): _as_json(item) for name, item in value.items()}
  return value if value is None or isinstance(value, str | int | float) else str(value)
