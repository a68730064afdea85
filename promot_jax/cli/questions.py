"""What `promot infer` is asked: JSON lines, a table (`data.tables`), or one question of the command line.

The text of a question is a field's.  For a model that was tuned on tables of the user's own it is made by
the template of these, from the columns that it names: the questions have the columns of the training file.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax.data import tables, text_lines
from promot_jax.data.own_files import OwnFiles
from promot_jax.errors import ConfigError, DataError

FIELD = "inputs"
PROBABILITIES = "probabilities"


Records = Sequence[tuple[int, Mapping[str, Any]]]
"""Number of the line in the input (of a Parquet file: of the row), and what it holds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """One line of the input.

  number: of the line.
  where: input and line, for messages.
  record: what it holds, and what the answer is added to.
  text: what the model reads.
  """

  number: int
  where: str
  record: Mapping[str, Any]
  text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
  """All of them.

  made_by: the field or the template that their texts are of.
  of_template: whether they are made as the rows were that the model was tuned on.
  """

  lines: tuple[Question, ...]
  made_by: str
  of_template: bool

  def __len__(self) -> int:
    return len(self.lines)


def name(values) -> str:
  """What messages call the input."""
  return values.input or "the command line"


def output(values) -> pathlib.Path:
  """Where the answers go: for one question, standard output if nothing else is said.

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


def records(values) -> Records:
  """The lines of the input, which need no model to be read.

  Raises:
    ConfigError, DataError: as `tables.read` and `text_lines.read_json_lines`; or there is no line.
  """
  if values.text is not None:
    return [(1, {values.field or FIELD: values.text})]
  found = _records(values)[: values.limit]
  if not found:
    raise DataError(f"{name(values)} has no line to answer.")
  return found


def asked(values, records: Records, files: OwnFiles | None = None) -> Questions:
  """The questions of the lines, in order; none has a field that its answer would overwrite.

  Args:
    files: the tables that the model was tuned on.

  Raises:
    DataError: a line has no text, or a field of the answer's.
  """
  template = files if files is not None and _wants_template(values, files, records[0][1]) else None
  found = []
  for number, record in records:
    where = f"{name(values)}:{number}" if values.input else name(values)
    if template is not None:
      text = template.input_of(record, where=where)
    else:
      text = text_lines.text_field(record, values.field or FIELD, where=where)
    _require_free(record, values, where)
    found.append(Question(number=number, where=where, record=record, text=text))
  made_by = template.template if template is not None else values.field or FIELD
  return Questions(lines=tuple(found), made_by=made_by, of_template=template is not None)


def _wants_template(values, files: OwnFiles, record: Mapping[str, Any]) -> bool:
  """Whether texts are made by the template: unless they are there, in a field that it does not name."""
  if values.field is not None or values.text is not None:
    return False
  return FIELD not in record or all(column in record for column in files.columns)


def _records(values) -> Records:
  if values.cell:
    return [(1, _cells(values.cell))]
  if tables.is_table(values.input) and tables.kind(values.input) != "json":
    table = tables.read(values.input)
    return [(row.number, row.cells) for row in table.rows]
  return text_lines.read_json_lines(values.input)


def _cells(given: Sequence[str]) -> dict[str, str]:
  found: dict[str, str] = {}
  for each in given:
    column, equals, text = each.partition("=")
    if not equals or not column.strip() or column.strip() in found:
      raise ConfigError(
        f"--cell={each!r}: give each column once, as in --cell 'premise=Anna sold the car.'"
      )
    found[column.strip()] = text
  return found


def _require_free(record: Mapping[str, Any], values, where: str) -> None:
  for flag in ("prediction_field", "score_field"):
    if (field := getattr(values, flag)) in record:
      raise DataError(
        f"{where} has a field '{field}' already, which the answer would overwrite. Give the"
        f" answer's another name: --{flag}=NAME."
      )
  if values.probabilities and PROBABILITIES in record:
    raise DataError(
      f"{where} has a field '{PROBABILITIES}' already, which --probabilities would overwrite; rename it."
    )
