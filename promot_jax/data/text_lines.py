"""Text files of users, read by one rule: UTF-8, and a line ends where \\n or \\r\\n is, nowhere else.

`str.splitlines` also ends a line at U+2028, U+0085 or a form feed, which JSON allows inside a string
and spreadsheets inside a cell.  A byte order mark is dropped.  What cannot be used is named by file,
line and byte, because a file of a million lines is not searched by hand.
"""

import dataclasses
import gzip
import io
import json
import math
import pathlib
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from promot_jax.errors import ConfigError, DataError

STANDARD_INPUT = "-"
_MARK = b"\xef\xbb\xbf"
_FOREIGN = {
  b"\xff\xfe": "is UTF-16, not UTF-8: convert it with iconv -f UTF-16 -t UTF-8",
  b"\xfe\xff": "is UTF-16, not UTF-8: convert it with iconv -f UTF-16 -t UTF-8",
  b"\x1f\x8b": "is compressed with gzip: unpack it with gunzip",
  b"PK\x03\x04": "is a zip archive or a spreadsheet: unpack it, or save it as text",
}
_SHOWN = 60  # characters of a line in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
  """One line of a file: its number, from 1, and its text without the line's end."""

  number: int
  text: str


def read_text(path: str | pathlib.Path) -> str:
  """The whole file, or standard input for '-', decoded; its byte order mark is dropped.

  Raises:
    ConfigError: it is not there or must not be read.
    DataError: it is no UTF-8.
  """
  data = _read(path)
  _check_beginning(path, data)
  data = data.removeprefix(_MARK)
  try:
    return data.decode("utf-8")
  except UnicodeDecodeError as error:
    before = data[: error.start]
    start = before.rfind(b"\n") + 1
    byte, column = data[error.start], error.start - start + 1
    raise _undecodable(path, before.count(b"\n") + 1, byte, column) from None


def read_lines(path: str | pathlib.Path) -> list[Line]:
  """Every line of a file, empty ones too; a last line without an end counts, nothing after an end.

  Raises:
    ConfigError, DataError: as `read_text`.
  """
  return list(_decoded(path, io.BytesIO(_read(path))))


def stream_lines(path: str | pathlib.Path) -> Iterator[Line]:
  """The same one by one, for files that do not fit into memory; a name in .gz is read unpacked.

  Raises:
    ConfigError, DataError: as `read_text`; or a packed file is damaged.
  """
  packed = str(path).endswith(".gz")
  try:
    with gzip.open(path) if packed else open(path, "rb") as file:
      yield from _decoded(path, file)
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise DataError(f"{_name(path)} cannot be unpacked: {error}. Fetch it again.") from None
  except OSError as error:
    raise _unreadable(path, error) from None


def read_json_lines(path: str | pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
  """(line number, object) of every line that is not blank.

  Every object can be written again as it is: there is no NaN, no infinity, no lone surrogate and no
  second value of one name in it.

  Raises:
    ConfigError, DataError: as `read_text`; or a line is no such object.
  """
  return list(_objects(path, read_lines(path)))


def stream_json_lines(path: str | pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """The same one by one, as `stream_lines`."""
  return _objects(path, stream_lines(path))


def json_object(text: str, *, where: str) -> dict[str, Any]:
  """A JSON object, read strictly (RFC 8259).

  Args:
    where: 'FILE:LINE', for messages.

  Raises:
    DataError: it is none.
  """
  value = json_value(text, where=where)
  if not isinstance(value, dict):
    raise DataError(f'{where} is {kind_of(value)}, not an object such as {{"inputs": "..."}}.')
  return value


def json_value(text: str, *, where: str) -> Any:
  """Any JSON value, read as strictly.

  Raises:
    DataError: it is none.
  """
  try:
    # Strictly: what Python reads beyond JSON could not be written again for others.
    value = json.loads(
      text, parse_constant=_constant, parse_float=_number, object_pairs_hook=_unique
    )
    # Surrogates show only when they are encoded.
    json.dumps(value, ensure_ascii=False).encode()
  except UnicodeEncodeError as error:
    raise DataError(
      f"{where} has half of a surrogate pair (\\u{ord(error.object[error.start]):04x}), which is no"
      " character. Write the whole pair, or the character itself."
    ) from None
  except RecursionError:
    raise DataError(f"{where} is nested too deeply to be read.") from None
  except ValueError as error:
    raise DataError(f"{where} is no JSON: {error}: {shown(text)}") from None
  return value


def text_field(record: Mapping[str, Any], field: str, *, where: str) -> str:
  """The text in a field of an object.

  Raises:
    DataError: there is no such field, or it holds something else.
  """
  if field not in record:
    found = ", ".join(record) or "no field at all"
    raise DataError(f"{where} has no field '{field}' (it has: {found}). Use --field=NAME.")
  value = record[field]
  if not isinstance(value, str):
    raise DataError(
      f"{where}: field '{field}' is {kind_of(value)}, {shown(json.dumps(value))}, not a text in"
      " quotes."
    )
  return value


def kind_of(value: Any) -> str:
  """What JSON calls a value: 'a number', 'a list', ..."""
  if value is None or isinstance(value, bool):
    return json.dumps(value)
  names = {dict: "an object", list: "a list", str: "a text"}
  return next((name for kind, name in names.items() if isinstance(value, kind)), "a number")


def shown(text: str) -> str:
  """The beginning of a text, for a message."""
  return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _decoded(path: str | pathlib.Path, lines: Iterable[bytes]) -> Iterator[Line]:
  """Lines of bytes, each with its end, as texts."""
  for number, data in enumerate(lines, 1):
    # Only a file's beginning tells what it is.
    if number == 1:
      _check_beginning(path, data)
      data = data.removeprefix(_MARK)
    try:
      text = data.decode("utf-8")
    except UnicodeDecodeError as error:
      raise _undecodable(path, number, data[error.start], error.start + 1) from None
    # One carriage return, which belongs to the end; any other is text.
    yield Line(number=number, text=text.removesuffix("\n").removesuffix("\r"))


def _objects(
  path: str | pathlib.Path, lines: Iterable[Line]
) -> Iterator[tuple[int, dict[str, Any]]]:
  for line in lines:
    # The white space of JSON: a form feed alone is no empty line.
    if line.text.strip(" \t\r"):
      yield line.number, json_object(line.text, where=f"{_name(path)}:{line.number}")


def _check_beginning(path: str | pathlib.Path, data: bytes) -> None:
  for start, problem in _FOREIGN.items():
    if data.startswith(start):
      raise DataError(f"{_name(path)} {problem}.")


def _undecodable(path: str | pathlib.Path, line: int, byte: int, column: int) -> DataError:
  return DataError(
    f"{_name(path)}:{line} is no UTF-8: byte 0x{byte:02x} at byte {column} of the line"
    " cannot be decoded. Convert the file, for example with iconv -f LATIN1 -t UTF-8."
  )


def _read(path: str | pathlib.Path) -> bytes:
  try:
    if str(path) == STANDARD_INPUT:
      return sys.stdin.buffer.read()
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise _unreadable(path, error) from None


def _unreadable(path: str | pathlib.Path, error: OSError) -> ConfigError:
  reason = error.strerror or str(error)
  return ConfigError(f"{_name(path)} cannot be read: {reason}. Name another file.")


def _name(path: str | pathlib.Path) -> str:
  return "standard input" if str(path) == STANDARD_INPUT else str(path)


def _constant(name: str) -> float:
  raise ValueError(f"{name} is no JSON value; write null")


def _number(text: str) -> float:
  value = float(text)
  # Python reads 1e999 as infinity, which JSON does not have.
  if not math.isfinite(value):
    raise ValueError(f"the number {text[:20]} is too large")
  return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"the name {twice!r} occurs twice")
  return found
