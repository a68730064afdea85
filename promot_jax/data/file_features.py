"""What FEATURES of a user's own tables declare: further columns that a model reads, each under a name.

    FEATURES = {'passages': {'template': '{passages}', 'rank': 2}, 'rejected': {'template': '{worse}',
                'form': 'targets'}, 'weight': {'template': '{weight}', 'form': 'float32'}}

A template alone, '{context}', is a text's tokens without anything around them.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from promot_jax.data import features, record_features, tables
from promot_jax.data.features import Feature
from promot_jax.data.record_features import RecordFeature
from promot_jax.data.text_template import TextTemplate
from promot_jax.errors import ConfigError, DataError

RECORD = "features"
"""Field of a record that holds the values of all of them, as JSON."""
_NUMBERS = ("int32", "float32")
_FORMS = (*record_features.FORMS, *_NUMBERS)
_FIELDS = ("template", "form", "rank")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFeature:
  """One feature of a row.

  template: a text with columns in braces; a column alone where it is numbers.
  form: of texts 'plain', 'inputs' or 'targets' (`record_features`); of numbers their type.
  rank: of a text 1; 2 of a column of lists of texts; of numbers how deeply their lists are nested.
  """

  name: str
  template: TextTemplate
  form: str
  rank: int

  @property
  def kind(self) -> Feature:
    """Of its array."""
    numbers = self.form in _NUMBERS
    return Feature(rank=self.rank, dtype=self.form if numbers else "int32")  # type: ignore[arg-type]

  @property
  def of_task(self) -> RecordFeature:
    """The same, made of a record of the task."""
    return RecordFeature(
      of=functools.partial(_of_record, self.name),
      kind=self.kind,
      form=self.form if self.form in record_features.FORMS else "plain",  # type: ignore[arg-type]
    )

  def value(self, cells: Mapping[str, Any], *, where: str) -> Any:
    """A text, texts or numbers.

    Raises:
      DataError: the row lacks a column, or it holds something else.
    """
    for column in self.template.columns:
      if column not in cells:
        found = ", ".join(map(repr, cells)) or "nothing"
        raise DataError(f"{where} has no {column!r}, which {self.template} needs; it has: {found}.")
    # A column by itself may hold lists, which text around it could not.
    only = self.template.only_column
    cell = cells.get(only) if only is not None else None
    if self.form in _NUMBERS:
      return self._numbers(cell, where)
    # As many texts as the row's list has; without a list it is a list of one.
    if self.rank == 2 and isinstance(cell, list):
      assert only is not None
      return [tables.text_of(item, where=where, column=only) for item in cell]
    texts = {
      column: tables.text_of(cells.get(column), where=where, column=column)
      for column in self.template.columns
    }
    text = self.template.fill(texts)
    return [text] if self.rank == 2 else text

  def _numbers(self, cell: Any, where: str) -> Any:
    """Of a table in text, a cell holds numbers as JSON writes them: 0.5 or [1, 2]."""
    try:
      # A table in text has numbers as text, and JSON says how lists are written.
      value = json.loads(cell) if isinstance(cell, str) else cell
      # Tried here, where the row's place is known for the message.
      self.kind.array(self.name, value)
    except (ValueError, DataError) as error:
      what = f"of {self.rank} nested lists" if self.rank else "alone"
      raise DataError(
        f"{where}: column {self.template.only_column!r} is {cell!r}, and {self.template} reads"
        f" {self.form} {what} ({str(error).removesuffix('.')})."
      ) from None
    return value


def parsed(given: Any) -> tuple[FileFeature, ...]:
  """What FEATURES says.

  Raises:
    ConfigError: it is nothing of the kind.
  """
  if given is None:
    return ()
  if not isinstance(given, Mapping):
    raise ConfigError(
      f"FEATURES={given!r} must be {{'passages': {{'template': '{{passages}}', 'rank': 2}}}} or None."
    )
  return tuple(_feature(name, value) for name, value in given.items())


def record(found: tuple[FileFeature, ...], cells: Mapping[str, Any], *, where: str) -> str:
  """The field of the task's record that `FileFeature.of_task` reads.

  Raises:
    DataError: see `FileFeature.value`.
  """
  # As JSON, since a record of a task is made of tensors of one text each.
  return json.dumps({each.name: each.value(cells, where=where) for each in found})


def _feature(name: Any, value: Any) -> FileFeature:
  if not isinstance(name, str):
    raise ConfigError(f"FEATURES has the name {name!r}; a name is a text in quotes.")
  features.require_name(name, owner="FEATURES")
  # The short form is a template alone.
  said = {"template": value} if isinstance(value, str) else value
  if not isinstance(said, Mapping) or "template" not in said or set(said) - set(_FIELDS):
    raise ConfigError(
      f"FEATURES[{name!r}]={value!r} must be a template, such as '{{passage}}', or"
      f" {{'template': ..., 'form': ..., 'rank': ...}}."
    )
  form = said.get("form", "plain")
  if form not in _FORMS:
    raise ConfigError(f"FEATURES[{name!r}] has the form {form!r}; there are: {', '.join(_FORMS)}.")
  template = TextTemplate(text=said["template"], name=f"FEATURES[{name!r}]")
  ranks = (0, 1, 2) if form in _NUMBERS else (1, 2)
  rank = said.get("rank", ranks[0])
  # True is 1 in Python, and no rank.
  if rank not in ranks or isinstance(rank, bool):
    raise ConfigError(f"FEATURES[{name!r}] has rank {rank!r}; {form} may have {ranks}.")
  # Text around a number would make it text.
  if not template.columns or (form in _NUMBERS and template.only_column is None):
    raise ConfigError(
      f"{template} {'is no column alone' if template.columns else 'names no column'}, such as"
      " {passage}."
    )
  return FileFeature(name=name, template=template, form=form, rank=int(rank))


def _of_record(name: str, found: Mapping[str, Any]) -> Any:
  return json.loads(found[RECORD])[name]
