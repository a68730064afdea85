"""Data sets whose records several templates turn into texts, each template a task of its own.

    TemplatedTasks(data_sets=[TemplatedData(name="rte", templates_file="rte.yaml", train_file="rte.tsv")],
                   held_out_templates=["GPT-3 style"])

The templates are those of promptsource files (`promptsource`); the records are a task's of ours, those of a
name of TensorFlow Datasets, or the rows of tables.  Values only: `tasks.template_tasks` makes the tasks.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax import identity
from promot_jax.data import file_split, promptsource, tables
from promot_jax.data.promptsource import PromptTemplate
from promot_jax.errors import ConfigError, DataError

RECIPE_VALUES = ("TemplatedData", "TemplatedTasks")

_FILES = ("train_file", "validation_file", "test_file")
_SOURCES = ("task", "tfds_name", "train_file")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TemplatedData:
  """A data set and its templates.

  name: of the data set; its tasks are called NAME_TEMPLATE.
  templates_file: path of a promptsource file.
  promptsource_folder: folder of promptsource's layout that templates_file is in; None: the path is whole.
  templates: names of those of the file that are used; None: all.
  task: a task of ours whose records are taken, 'rte'; or
  tfds_name: a data set, configuration and version of TensorFlow Datasets, 'super_glue/rte:1.0.2'; or
  train_file: path of a table (`tables`); with validation_file, a table, or validation_share of the
    training rows, chosen by split_seed; and test_file, a table that is reported, or validation is.
  quotes: whether cells of TSV and CSV may stand in double quotes.
  report: the split of `tfds_name` that is reported.
  classes: column -> its texts in the order of their numbers: templates choose answers by number, and a
    table has words.
  metric: of templates without answer choices, a name of `metrics.registry`; None: the one that the file says.

  Raises:
    ConfigError: a setting is none of these.
  """

  name: str
  templates_file: str
  promptsource_folder: str | None = None
  templates: Sequence[str] | None = None
  task: str | None = None
  tfds_name: str | None = None
  train_file: str | None = None
  validation_file: str | None = None
  validation_share: float = 0.2
  test_file: str | None = None
  split_seed: int = 0
  quotes: bool = True
  report: str = "validation"
  classes: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  metric: str | None = None

  def __post_init__(self):
    # One place of records: of two nobody would know which was read.
    given = [name for name in _SOURCES if getattr(self, name) is not None]
    if len(given) != 1:
      raise ConfigError(
        f"the templates of '{self.name}' have records from {' and '.join(given) or 'nowhere'}; set one of"
        " TEMPLATES_TASK, TEMPLATES_TFDS_NAME and TRAIN_FILE."
      )
    for field in ("templates_file", "promptsource_folder", *_FILES):
      path = getattr(self, field)
      if path is not None and (not isinstance(path, str) or not path):
        kind = "folder" if field == "promptsource_folder" else "file"
        raise ConfigError(f"{field.upper()}={path!r} is no path of a {kind}.")
      if path is not None and field in _FILES:
        tables.kind(path)
    # The name is the beginning of the tasks' names, which gin files and folders hold.
    if not isinstance(self.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
      raise ConfigError(
        f"the data set's name {self.name!r} must be lower-case letters, digits and '_', as in 'rte'."
      )
    file_split.check_share(self.validation_share)
    _check_classes(self.classes)

  @property
  def templates_path(self) -> str:
    """Of the promptsource file."""
    return os.path.join(os.path.expanduser(self.promptsource_folder or ""), self.templates_file)

  @functools.cached_property
  def prompts(self) -> Mapping[str, PromptTemplate]:
    """Name of its task -> each template that is used, in the file's order.

    Raises:
      ConfigError: the file is not there, or has no template of a name that is asked for.
      DataError: it is no file of templates.
    """
    path = self.templates_path
    if self.promptsource_folder is not None and not os.path.exists(path):
      raise ConfigError(
        f"{path} was not found. promptsource's files are in the folder promptsource/templates/ of"
        " https://github.com/bigscience-workshop/promptsource: name yours with --gin.PROMPTSOURCE_FOLDER,"
        " or take the built-in world's (micro.gin)."
      )
    found = promptsource.read(path)
    for name in self.templates or ():
      if name not in [each.name for each in found]:
        raise ConfigError(
          f"{path} has no template {name!r}; it has: "
          f"{', '.join(repr(each.name) for each in found)}."
        )
    used = [each for each in found if self.templates is None or each.name in self.templates]
    # In the file's order, in which tables of results are read.
    return dict(zip(_task_names(self.name, [each.name for each in used]), used, strict=True))

  def numbered(self, record: Mapping[str, Any], *, where: str = "") -> dict[str, Any]:
    """The record with numbers in place of the words of `classes`.

    Args:
      where: file and line, for messages.

    Raises:
      DataError: a word is none of them.
    """
    # A copy: one record is rendered by several templates.
    found = dict(record)
    for column, words in self.classes.items():
      value = found.get(column)
      if isinstance(value, str):
        if value not in words:
          raise DataError(
            f"{where or self.name}: {column} {value!r} is no class; CLASSES has: {', '.join(map(repr, words))}."
          )
        found[column] = list(words).index(value)
    return found

  # Of tables.

  @property
  def splits(self) -> tuple[str, ...]:
    """'train', 'validation', and 'test' where there is a file for it."""
    return ("train", "validation") + ("test",) * (self.test_file is not None)

  def rows(self, split: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """(file and line, cells) of the rows of a split in their order; every file is read once.

    Raises:
      ConfigError, DataError: a file cannot be read, or has too few rows for a share.
    """
    if split == "test":
      return self._read("test_file")
    if self.validation_file is not None:
      return self._read("train_file" if split == "train" else "validation_file")
    rows, held_out = self._read("train_file"), self._held_out
    return [row for n, row in enumerate(rows) if (n in held_out) == (split == "validation")]

  def digest(self) -> str:
    """Of everything that the records come from, the content of the tables included.

    Raises:
      ConfigError: a table cannot be read.
    """
    # The words of `classes` are in each task's own digest; here, only which columns the split
    # leaves out.
    settings = [self.validation_share, self.split_seed, self.quotes, sorted(self.classes)]
    paths = {field: getattr(self, field) for field in _FILES}
    content = {field: self._content(field) for field, path in paths.items() if path is not None}
    return identity.digest([settings, content])

  @functools.cached_property
  def _held_out(self) -> frozenset[int]:
    """Of rows that validate; by what is in them, so that all templates agree."""
    # Without the labels: two rows of one text belong on one side.
    rows = [cells for _, cells in self._read("train_file")]
    # As text, since cells may be lists.
    texts = [
      json.dumps({name: value for name, value in cells.items() if name not in self.classes})
      for cells in rows
    ]
    # Of several columns with classes the combination is the label.
    labels = [json.dumps([cells.get(name) for name in self.classes]) for cells in rows]
    found = file_split.validation(texts, labels, share=self.validation_share, seed=self.split_seed)
    if not found:
      raise DataError(
        f"{self.train_file} has {len(set(texts))} different rows, too few to take a share of"
        f" {self.validation_share} for validation. Name a VALIDATION_FILE."
      )
    return frozenset(found)

  @functools.cached_property
  def _kept(self) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    return {}

  def _read(self, field: str) -> list[tuple[str, Mapping[str, Any]]]:
    if field not in self._kept:
      table = tables.read(getattr(self, field), quotes=self.quotes)
      # Right behind the reading, so that the digest is of these rows.
      self._digests[field] = self._content(field)
      # Before the rows are kept, so that a column that is missing is named with its template.
      for prompt in self.prompts.values():
        table.require(prompt.columns, what=prompt.where)
      self._kept[field] = [(table.where(row), row.cells) for row in table.rows]
    return self._kept[field]

  @functools.cached_property
  def _digests(self) -> dict[str, str]:
    return {}

  def _content(self, field: str) -> str:
    """Digest of a file: once its rows are read, of what they were read from."""
    # Of what was read, and not of what somebody has written there since.
    if field in self._digests:
      return self._digests[field]
    return tables.digest(getattr(self, field))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TemplatedTasks:
  """Data sets with their templates, and which of both a model is not tuned on.

  data_sets: each of another name.
  held_out_templates: names of tasks, or of templates as the files have them; tuned on are the others of
    their data set, and they are measured as the data set NAME_held_out.
  held_out_data_sets: names of data sets that are measured only, by the templates that ask what the data
    set asks.
  shots: numbers of demonstrations at which held-out templates are measured.
  name: of the mixture of all that is tuned on, for MIXTURE_OR_TASK_NAME.

  Raises:
    ConfigError: a name is not there, or stands twice, or nothing is left to tune on.
  """

  data_sets: Sequence[TemplatedData]
  held_out_templates: Sequence[str] = ()
  held_out_data_sets: Sequence[str] = ()
  shots: Sequence[int] = (0,)
  name: str = "templates"

  def __post_init__(self):
    for field in ("data_sets", "held_out_templates", "held_out_data_sets", "shots"):
      value = getattr(self, field)
      # A text is a sequence of letters, and one name would be taken for many.
      if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"TemplatedTasks.{field}={value!r} must be a list: write [{value!r}].")
    names = [data.name for data in self.data_sets]
    # The mixture of all stands beside them, so that it needs a name of its own.
    if len({*names, self.name}) <= len(names):
      raise ConfigError(
        f"data sets with templates need different names, and none is '{self.name}'; they have: "
        f"{', '.join(names) or 'none'}."
      )
    for name in self.held_out_data_sets:
      if name not in names:
        raise ConfigError(
          f"HELD_OUT_DATA_SETS has {name!r}, which is no data set with templates; there are: "
          f"{', '.join(names)}."
        )

  @functools.cached_property
  def tuned(self) -> Mapping[str, tuple[str, ...]]:
    """Data set -> its tasks that a model is tuned on.

    Raises:
      ConfigError: there is none, or a held-out template is not there.
      ConfigError, DataError: as `TemplatedData.prompts`.
    """
    # Both names: that of the task, and the one that people know.
    known = {name: prompt.name for data in self.data_sets for name, prompt in data.prompts.items()}
    for each in self.held_out_templates:
      if each not in known and each not in known.values():
        raise ConfigError(
          f"HELD_OUT_TEMPLATES has {each!r}, which is no template; there are: "
          f"{', '.join(map(repr, known.values()))}."
        )
    found = {
      data.name: tuple(name for name in data.prompts if not self._is_held_out(data, name))
      for data in self.data_sets
      if data.name not in self.held_out_data_sets
    }
    if not any(found.values()):
      raise ConfigError("every template is held out: there is nothing to tune on.")
    # A data set of which all templates are held out is measured only.
    return {name: tasks for name, tasks in found.items() if tasks}

  @functools.cached_property
  def held_out(self) -> Mapping[str, tuple[str, ...]]:
    """Data set -> its tasks that a model is not tuned on; NAME_held_out of one that it is tuned on, too."""
    found: dict[str, tuple[str, ...]] = {}
    for data in self.data_sets:
      if data.name in self.held_out_data_sets:
        # Of the templates that ask what the data set asks, unless none does.
        own = tuple(name for name, prompt in data.prompts.items() if prompt.original)
        found[data.name] = own or tuple(data.prompts)
      elif rest := tuple(name for name in data.prompts if self._is_held_out(data, name)):
        # A name of its own where the data set has a score from training, too.
        found[f"{data.name}_held_out" if data.name in self.tuned else data.name] = rest
    return found

  @property
  def units(self) -> dict[str, tuple[str, ...]]:
    """What has a score, the median over its tasks: data sets, and held-out parts of them."""
    return {**self.tuned, **self.held_out}

  def unit_of(self, task: str) -> str | None:
    """The data set, or the held-out part of one, that a task belongs to; None of any other task."""
    return next((unit for unit, tasks in self.units.items() if task in tasks), None)

  def data_of(self, task: str) -> TemplatedData | None:
    """The data set whose records a task reads; None of any other task."""
    return next((data for data in self.data_sets if task in data.prompts), None)

  def _is_held_out(self, data: TemplatedData, name: str) -> bool:
    return name in self.held_out_templates or data.prompts[name].name in self.held_out_templates


def _task_names(data_set: str, templates: Sequence[str]) -> list[str]:
  """A name for each template that gin files, folders and flags can hold, none twice."""
  found: list[str] = []
  for number, template in enumerate(templates, 1):
    # A template's name may have no letter that a name can have, and is then its number.
    words = re.findall(r"[a-z0-9]+", template.lower()) or [str(number)]
    name = "_".join([data_set, *words])
    name += "_" if re.search(r"_\d+shot$", name) else ""  # which demonstrations are called
    # Two names may become equal without their signs.
    found.append(name if name not in found else f"{name}_{number}")
  return found


def _check_classes(classes: Any) -> None:
  right = isinstance(classes, Mapping) and all(
    isinstance(words, Sequence)
    and not isinstance(words, str)
    and words
    and len(set(words)) == len(words)
    for words in classes.values()
  )
  if not right:
    raise ConfigError(
      f"CLASSES={classes!r} must be a column with its words in the order of their numbers, such as"
      " {'label': ['entailment', 'not_entailment']}."
    )
