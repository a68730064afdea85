"""What `promot infer` is asked: JSON lines, a table (`data.tables`), or one text on the command line."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax.data import tables, text_lines
from promot_jax.errors import ConfigError, DataError

Records = Sequence[tuple[int, Mapping[str, Any]]]
"""Number of the line in the input (of a Parquet file: of the row), and what it holds."""


def name(values) -> str:
  """What messages call the input."""
  return values.input or "--text"


def output(values) -> pathlib.Path:
  """Where the answers go: for one text, standard output if nothing else is said.

  Raises:
    ConfigError: nothing is said of a file's, or it is the input.
  """
  found = values.output or ("-" if values.input is None else "")
  if not found:
    raise ConfigError("no --output given: the JSON-lines file to write, or - for standard output.")
  path = pathlib.Path(found)
  if values.input and path.is_file() and path.resolve() == pathlib.Path(values.input).resolve():
    raise ConfigError(f"--output={path} is the input itself; give another file.")
  return path


def read(values) -> Records:
  """The lines to answer; each has the text, and none has a field that would be overwritten.

  Raises:
    ConfigError, DataError: as `tables.read` and `text_lines.read_json_lines`; or a line has no text, or a
      field of the answer's, or there is no line.
  """
  records = _all(values)[: values.limit]
  for number, record in records:
    where = f"{name(values)}:{number}"
    text_lines.text_field(record, values.field, where=where)
    for flag in ("prediction_field", "score_field"):
      if (field := getattr(values, flag)) in record:
        raise DataError(
          f"{where} has a field '{field}' already, which the answer would overwrite. Give the"
          f" answer's another name: --{flag}=NAME."
        )
  if not records:
    raise DataError(f"{name(values)} has no line to answer.")
  return records


def _all(values) -> Records:
  if values.input is None:
    return [(1, {values.field: values.text})]
  if tables.is_table(values.input) and tables.kind(values.input) != "json":
    table = tables.read(values.input)
    return [(row.number, row.cells) for row in table.rows]
  return text_lines.read_json_lines(values.input)
