"""A task in files of a user's own: a table, a template, and what a model shall answer.

    OwnFiles(train_file="train.tsv", template="{premise} question: {hypothesis} answer:", target="{label}",
             labels={"0": "no", "1": "yes"})

The rows become texts here, each with the file and line it came from; what is wrong with a single row is
kept as its `problem`, which `malformed` of an experiment refuses or counts, as with any task.  Of a task
with labels the target is one of a few words, told by an output's first word where each is one.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax import identity
from promot_jax.data import file_features, file_split, tables
from promot_jax.data.templates import Rendered
from promot_jax.data.text_template import TextTemplate
from promot_jax.errors import ConfigError, DataError

RECIPE_VALUES = ("OwnFiles",)

VALUES = "values"
"""`labels` that are the different targets of the training file."""
_MOST_LABELS = 100  # different targets; more are no labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileRow:
  """One row as texts.

  where: file and line.
  problem: why it cannot be used; empty where it can, and `text` is empty where it cannot.
  features: what it holds beside the texts (`file_features.record`).
  """

  where: str
  text: Rendered
  problem: str = ""
  features: str = "{}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OwnFiles:
  """Tables and how their rows become inputs and targets.

  train_file: path of a table (`data.tables`).
  template: the input of a row, columns in braces (`data.text_template`).
  target: the same of its answer; a column alone that holds a list of texts gives all accepted ones.
  labels: target in the file -> word that the model answers; or the words, where they are the targets; or
    'values', the targets that the training file has; None: answers are free text.
  validation_file: a table; None: a share of `train_file`.
  validation_share: of the training file, of each label alike, where there is no `validation_file`.
  test_file: a table that is reported; None: validation is.
  split_seed: chooses the share; not that of training, so that runs of several seeds share their data.
  quotes: whether cells of TSV and CSV may stand in double quotes.
  metric: what is reported, a name of `metrics.registry`.
  name: of the task.
  features: what a row holds beside input and target, by name (`data.file_features`); None: nothing.

  Raises:
    ConfigError: a setting is none of these.
  """

  train_file: str
  template: str
  target: str
  labels: Any = None
  validation_file: str | None = None
  validation_share: float = 0.2
  test_file: str | None = None
  split_seed: int = 0
  quotes: bool = True
  metric: str = "accuracy"
  name: str = "files"
  features: Any = None

  def __post_init__(self):
    for field in ("train_file", "validation_file", "test_file"):
      path = getattr(self, field)
      if path is not None or field == "train_file":
        if not isinstance(path, str) or not path:
          raise ConfigError(f"{field.upper()}={path!r} is no path of a table, such as 'train.tsv'.")
        tables.kind(path)
    self._templates  # noqa: B018  (refuses what is no template)
    # Every row would have the same input.
    if self._templates[0].columns == ():
      raise ConfigError(f"TEMPLATE={self.template!r} names no column, such as {{premise}}.")
    file_split.check_share(self.validation_share)
    # '_1shot' at the end means demonstrations, as of any task.
    if not re.fullmatch(r"[A-Za-z]\w*", self.name) or re.search(r"_\d+shot$", self.name):
      raise ConfigError(
        f"TASK_NAME={self.name!r} must be letters, digits and '_', and not end as 'NAME_1shot' does."
      )
    _check_labels(self.labels)
    self.declared  # noqa: B018  (refuses what is no declaration)

  @functools.cached_property
  def declared(self) -> tuple[file_features.FileFeature, ...]:
    """What `features` says."""
    return file_features.parsed(self.features)

  @functools.cached_property
  def _templates(self) -> tuple[TextTemplate, TextTemplate]:
    return TextTemplate(text=self.template), TextTemplate(text=self.target, name="TARGET")

  @property
  def splits(self) -> tuple[str, ...]:
    """'train', 'validation', and 'test' where there is a file for it."""
    return ("train", "validation") + ("test",) * (self.test_file is not None)

  @property
  def columns(self) -> tuple[str, ...]:
    """What the template of inputs names."""
    return self._templates[0].columns

  @functools.cached_property
  def words(self) -> tuple[str, ...]:
    """The words that a model may answer with; empty where answers are free text.

    Raises:
      ConfigError, DataError: they are those of the training file, and it cannot be read, or has too many.
    """
    if self.labels is None:
      return ()
    if self.labels != VALUES:
      # Each once: several values of the file may have one word.
      given = self.labels.values() if isinstance(self.labels, Mapping) else self.labels
      return tuple(dict.fromkeys(given))
    # Before labels are known, as the file has them.
    found = dict.fromkeys(row.text.target for row in self._read("train_file") if not row.problem)
    # Sorted, since their order must not depend on that of the rows.
    words = tuple(sorted(filter(None, found)))
    if len(words) > _MOST_LABELS:
      raise DataError(
        f"{self.train_file} has {len(words)} different targets ({self._templates[1]}), too many for"
        f" LABELS='{VALUES}'. Set LABELS=None: answers are free text."
      )
    return words

  def input_of(self, cells: Mapping[str, Any], *, where: str) -> str:
    """The input of one row, which needs no target.

    Raises:
      DataError: a column is missing or holds no text.
    """
    template = self._templates[0]
    for column in template.columns:
      if column not in cells:
        found = ", ".join(map(repr, cells)) or "nothing"
        raise DataError(f"{where} has no {column!r}, which {template} needs; it has: {found}.")
    return template.fill(_texts(template, cells, where))

  def record_of(self, cells: Mapping[str, Any], *, where: str) -> dict[str, str]:
    """What the task's features are made of, of one row, which needs no target.

    Raises:
      DataError: a column is missing or holds something else.
    """
    return {file_features.RECORD: file_features.record(self.declared, cells, where=where)}

  def rows(self, split: str) -> Sequence[FileRow]:
    """The rows of a split in their order; read once.

    Raises:
      ConfigError, DataError: a file cannot be read, or has no such column, or too few rows for a share.
    """
    if split == "test":
      return self._labelled("test_file")
    if self.validation_file is not None:
      return self._labelled("train_file" if split == "train" else "validation_file")
    # By place, for equal rows stay on one side.
    held_out = set(self._held_out)
    rows = self._labelled("train_file")
    return [row for n, row in enumerate(rows) if (n in held_out) == (split == "validation")]

  def digest(self) -> str:
    """Of everything that the texts come from, the content of the files included.

    Raises:
      ConfigError: a file cannot be read.
    """
    # Of everything but the paths: the same content elsewhere is the same data.
    settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    if not settings["features"]:
      del settings["features"]  # which nobody's tables had at first
    paths = {field: settings.pop(field) for field in ("train_file", "validation_file", "test_file")}
    content = {field: self._content(field) for field, path in paths.items() if path is not None}
    return identity.digest([settings, content])

  def _content(self, field: str) -> str:
    """Digest of a file: once its rows are read, of what they were read from."""
    # Of what was read, and not of what somebody has written there since.
    if field in self._digests:
      return self._digests[field]
    return tables.digest(getattr(self, field))

  @functools.cached_property
  def _held_out(self) -> list[int]:
    rows = self._labelled("train_file")
    usable = [n for n, row in enumerate(rows) if not row.problem]
    # Of the rows that can be used: what is left out takes nothing of the share.
    inputs = [rows[n].text.input for n in usable]
    # Without labels all rows are one group.
    labels = [rows[n].text.target if self.labels is not None else "" for n in usable]
    found = file_split.validation(inputs, labels, share=self.validation_share, seed=self.split_seed)
    if not found:
      raise DataError(
        f"{self.train_file} has {len(set(inputs))} usable rows of different inputs, too few of a"
        f" label to take a share of {self.validation_share} for validation. Name a VALIDATION_FILE."
      )
    return [usable[place] for place in found]

  @functools.cached_property
  def _kept(self) -> dict[str, list[FileRow]]:
    return {}

  @functools.cached_property
  def _digests(self) -> dict[str, str]:
    return {}

  def _labelled(self, field: str) -> list[FileRow]:
    """Rows with their targets as the model shall write them."""
    words = self.words  # those of the training file are found before any row is refused
    rows = self._read(field)
    if self.labels is None:
      return rows
    # Where labels are words themselves each stands for itself.
    mapping = self.labels if isinstance(self.labels, Mapping) else {word: word for word in words}
    return [_with_label(row, mapping) for row in rows]

  def _read(self, field: str) -> list[FileRow]:
    """Rows with their targets as the file has them."""
    if field not in self._kept:
      table = tables.read(getattr(self, field), quotes=self.quotes)
      # Right behind the reading, so that the digest is of these rows.
      self._digests[field] = self._content(field)
      for template in (*self._templates, *(each.template for each in self.declared)):
        table.require(template.columns, what=str(template))
      self._kept[field] = [self._rendered(table, row) for row in table.rows]
    return self._kept[field]

  def _rendered(self, table: tables.Table, row: tables.Row) -> FileRow:
    where = table.where(row)
    template, target = self._templates
    try:
      text = template.fill(_texts(template, row.cells, where))
      answers = _answers(target, row.cells, where)
      features = file_features.record(self.declared, row.cells, where=where)
    except DataError as error:
      return FileRow(where=where, text=_NO_TEXT, problem=str(error))
    first = answers[0] if answers else ""
    rendered = Rendered(input=text, target=first, answers=answers)
    return FileRow(where=where, text=rendered, features=features)


_NO_TEXT = Rendered(input="", target="", answers=())


def _texts(template: TextTemplate, cells: Mapping[str, Any], where: str) -> dict[str, str]:
  return {
    column: tables.text_of(cells.get(column), where=where, column=column)
    for column in template.columns
  }


def _answers(target: TextTemplate, cells: Mapping[str, Any], where: str) -> tuple[str, ...]:
  """The accepted answers, none of them empty or twice; the first is what is trained."""
  # Only a column by itself may hold several answers.
  column = target.only_column
  if column is not None and isinstance(cells.get(column), list):
    found = [tables.text_of(item, where=where, column=column) for item in cells[column]]
  else:
    found = [target.fill(_texts(target, cells, where))]
  # Blanks around an answer are not what was meant.
  return tuple(dict.fromkeys(text.strip() for text in found if text.strip()))


def _with_label(row: FileRow, words: Mapping[str, str]) -> FileRow:
  unknown = [answer for answer in row.text.answers if answer not in words]
  if row.problem:
    return row
  if unknown:
    known = ", ".join(map(repr, words))
    problem = f"{row.where}: target {unknown[0]!r} is no label; LABELS has: {known}."
    return FileRow(where=row.where, text=_NO_TEXT, problem=problem)
  # Two answers may have one word.
  answers = tuple(dict.fromkeys(words[answer] for answer in row.text.answers))
  first = answers[0] if answers else ""
  text = dataclasses.replace(row.text, target=first, answers=answers)
  return dataclasses.replace(row, text=text)


def _check_labels(labels: Any) -> None:
  if labels is None or labels == VALUES:
    return
  if isinstance(labels, str) or not isinstance(labels, Mapping | Sequence) or not labels:
    raise ConfigError(
      f"LABELS={labels!r} must be {{'0': 'no', '1': 'yes'}}, ['no', 'yes'], '{VALUES}' (those of the"
      " training file) or None."
    )
  # Words given as a list stand for themselves.
  pairs = labels.items() if isinstance(labels, Mapping) else [(word, word) for word in labels]
  for value, word in pairs:
    # A number in a recipe would never equal the text of a cell.
    if not isinstance(value, str) or not isinstance(word, str) or not word.strip():
      raise ConfigError(
        f"LABELS={labels!r} has {value!r}: {word!r}; values of the file and words are texts in"
        " quotes, also where they are numbers."
      )
