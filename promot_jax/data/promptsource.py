"""promptsource's files of templates: YAML that holds several templates of one data set.

    dataset: super_glue
    subset: rte
    templates:
      2b52a83c-0021-41fe-b44c-5aaa076d71a2: !Template
        name: GPT-3 style
        jinja: '{{premise}} Question: {{hypothesis}} True or False? ||| {{ answer_choices[label] }}'
        answer_choices: True ||| False
        metadata: !TemplateMetadata
          metrics: [Accuracy]
          original_task: true

A template writes what is read and, after `|||`, what shall be answered; a record for which it writes nothing
takes no part.  `answer_choices`, a template too, are the answers among which a model chooses.  The format is
Bach et al.'s ("PromptSource: An Integrated Development Environment and Repository for Natural Language
Prompts", 2022).  Files come from strangers: YAML is read by its safe loader, which here makes plain values
alone, and Jinja by `sandbox`.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from promot_jax.data import text_lines
from promot_jax.data.sandbox import SEPARATOR, Template
from promot_jax.data.templates import NoText, Rendered
from promot_jax.errors import ConfigError, DataError

CHOICES = "answer_choices"
"""Name of the answers in a template."""

# Files come from strangers, and the parser takes its time for a large one.
_LARGEST = 2**18  # bytes of a file; fifteen templates of P3 take 8,000
_TAGS = ("!Template", "!TemplateMetadata")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptTemplate:
  """One template of a file.

  name: as the file has it.
  where: file and name, for messages.
  jinja, choices: its texts; None: it has no answers to choose among.
  metrics: names as the file has them: 'Accuracy', 'ROUGE', ...
  original: whether it asks for what the data set asks for (of others, a question may be the target).
  """

  name: str
  where: str
  jinja: Template
  choices: Template | None
  metrics: tuple[str, ...] = ()
  original: bool = True

  @property
  def columns(self) -> tuple[str, ...]:
    """What it reads of a record."""
    names = {*self.jinja.names, *(self.choices.names if self.choices else ())}
    # `answer_choices` is given to a template, it is no column.
    return tuple(sorted(names - {CHOICES}))

  @functools.cached_property
  def labels(self) -> tuple[str, ...]:
    """The answers where they are the same for every record; else empty."""
    if self.choices is None or self.choices.names:
      return ()
    found = self._choices({}, 0)
    # Answers that depend on the record are no labels of the task: drawn ones are its own, too.
    return () if self.choices.draws else found

  @property
  def ranked(self) -> bool:
    """Whether a model chooses among the answers instead of writing one."""
    # A file without metrics says nothing against it; one of ROUGE alone wants a text written.
    return self.choices is not None and (not self.metrics or "Accuracy" in self.metrics)

  @property
  def text(self) -> str:
    """All that decides over what it writes."""
    choices = self.choices.text if self.choices else None
    return json.dumps([self.name, self.jinja.text, choices, self.ranked])

  def render(self, record: Mapping[str, Any]) -> Rendered:
    """The text of a record, its answers beside it where a model chooses.

    Raises:
      NoText: it writes nothing for this record.
      DataError: a column is missing, or what is written has no target, or one that is no answer.
    """
    for column in self.columns:
      if column not in record:
        found = ", ".join(map(repr, record)) or "nothing"
        raise DataError(f"{self.where} needs column {column!r}; the record has: {found}.")
    # Only the columns that are named: the draw must not change with what else a table has.
    values = {column: record[column] for column in self.columns}
    # Of the values: all templates of a record draw alike, in every process.
    seed = _seed(values)
    choices = self._choices(values, seed)
    parts = self.jinja.parts({**values, **({CHOICES: list(choices)} if choices else {})}, seed=seed)
    # Jinja's way to leave a record out: a condition around the whole template.
    if parts == ("",):
      raise NoText(f"{self.where} writes nothing for this record.")
    if len(parts) != 2 or not parts[0]:
      what = f"{len(parts)} parts" if parts[0] else "no input"
      raise DataError(
        f"{self.where} writes {what} for this record; expected: input {SEPARATOR} target."
      )
    text, target = parts
    # A target that is none of the answers could never be ranked first.
    if self.ranked and target and target not in choices:
      raise DataError(
        f"{self.where} has the target {text_lines.shown(target)}, which is none of its answer choices"
        f" {', '.join(map(repr, choices))}."
      )
    return Rendered(
      input=text,
      target=target,
      answers=(target,) if target else (),
      choices=choices if self.ranked else (),
    )

  def _choices(self, values: Mapping[str, Any], seed: int) -> tuple[str, ...]:
    if self.choices is None:
      return ()
    found = self.choices.parts({name: values[name] for name in self.choices.names}, seed=seed)
    if "" in found:
      raise DataError(
        f"{self.where} has an empty answer among its {len(found)} answer choices; expected texts, with"
        f" {SEPARATOR} between them."
      )
    return found


def read(path: str) -> tuple[PromptTemplate, ...]:
  """The templates of a file, in its order.

  Raises:
    ConfigError: it is not there or must not be read.
    DataError: it is no such file, or a template cannot be used.
  """
  place = pathlib.Path(path).expanduser()
  try:
    # Size before content.
    if place.exists() and (not place.is_file() or place.stat().st_size > _LARGEST):
      raise DataError(
        f"{path} is no file of templates: expected a text file of at most {_LARGEST:,} bytes."
      )
  except OSError as error:
    raise ConfigError(f"{path} cannot be read: {error.strerror}. Name another file.") from None
  content = _loaded(text_lines.read_text(place), path)
  every = content.get("templates") if isinstance(content, Mapping) else None
  if not isinstance(every, Mapping) or not every:
    raise DataError(
      f"{path} has no templates: expected 'templates:' with an entry for each, as promptsource writes it."
    )
  found = [_template(path, str(key), value) for key, value in every.items()]
  names = [each.name for each in found]
  if twice := next((name for name in names if names.count(name) > 1), None):
    raise DataError(f"{path} has two templates of the name {twice!r}; expected different names.")
  return tuple(found)


def _template(path: str, key: str, entry: Any) -> PromptTemplate:
  if not isinstance(entry, Mapping):
    raise DataError(
      f"{path}: the entry {key!r} of 'templates' is no !Template with name and jinja."
    )
  # Entries have a key that says nothing; people know templates by their names.
  name = entry.get("name") or key
  where = f"{path}, template {name!r}"
  metadata = entry.get("metadata") or {}
  if not isinstance(metadata, Mapping):
    raise DataError(f"{where}: 'metadata' is no !TemplateMetadata.")
  metrics = metadata.get("metrics") or []
  for field, value in (("name", name), ("jinja", entry.get("jinja"))):
    if not isinstance(value, str) or not value.strip():
      raise DataError(f"{where}: '{field}' is {value!r}; expected a text.")
  if isinstance(metrics, str) or not isinstance(metrics, Sequence):
    raise DataError(f"{where}: 'metrics' is {metrics!r}; expected a list such as [Accuracy].")
  made = PromptTemplate(
    name=name,
    where=where,
    jinja=Template(text=entry["jinja"], where=where),
    choices=_choices(entry.get(CHOICES), where),
    metrics=tuple(map(str, metrics)),
    original=metadata.get("original_task") is not False,
  )
  if not made.jinja.divides:
    raise DataError(
      f"{where} has no '{SEPARATOR}': expected what the model reads {SEPARATOR} what it shall answer."
    )
  if not made.columns:
    raise DataError(f"{where} names no column: expected one in braces, such as {{{{premise}}}}.")
  if CHOICES in made.jinja.names and made.choices is None:
    raise DataError(
      f"{where} names {CHOICES} and has none: expected {CHOICES}: Yes {SEPARATOR} No."
    )
  # Constant answers are rendered here, so that an empty one is found before any record.
  made.labels  # noqa: B018  (refuses an empty one)
  return made


def _choices(text: Any, where: str) -> Template | None:
  if text is None:
    return None
  if not isinstance(text, str) or not text.strip():
    raise DataError(
      f"{where}: '{CHOICES}' is {text!r}; expected texts with {SEPARATOR} between them, or null."
    )
  return Template(text=text, where=f"{where}, {CHOICES}")


def _seed(values: Mapping[str, Any]) -> int:
  """Of what a template draws for a record: the same for all templates, in every process."""
  # Values that JSON lacks, such as dates, by their text.
  told = json.dumps(values, sort_keys=True, default=str)
  return int.from_bytes(hashlib.blake2b(told.encode(), digest_size=8).digest())


class _Loader(yaml.SafeLoader):
  """Plain values, and the tags of promptsource as dictionaries; no aliases, no name twice."""

  def compose_node(self, parent, index):
    # A few aliases of aliases fill all memory.
    if self.check_event(yaml.AliasEvent):
      raise yaml.constructor.ConstructorError(
        None, None, "it has an alias (*name); write the value out", self.peek_event().start_mark
      )
    return super().compose_node(parent, index)

  def construct_mapping(self, node, deep=False):
    names: set[str] = set()
    for key, _ in node.value:
      # PyYAML keeps the last of two silently.
      if key.value in names:
        raise yaml.constructor.ConstructorError(
          None, None, f"{key.value!r} stands twice in it", key.start_mark
        )
      if isinstance(key.value, str):
        names.add(key.value)
    return super().construct_mapping(node, deep=deep)


for _tag in _TAGS:
  _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


def _loaded(text: str, path: str) -> Any:
  try:
    return yaml.load(text, Loader=_Loader)  # a safe loader: see above
  except yaml.MarkedYAMLError as error:
    # Where the problem is, or else where the part with the problem began.
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    problem = " ".join(filter(None, (error.context, error.problem)))
    hint = f"; the tags are {' and '.join(_TAGS)}" if "tag" in problem else ""
    raise DataError(f"{path}{line} is no YAML of templates: {problem}{hint}.") from None
  except yaml.YAMLError as error:
    raise DataError(f"{path} is no YAML of templates: {str(error).splitlines()[0]}.") from None
  except RecursionError:
    raise DataError(f"{path} is no YAML of templates: it is nested too deeply.") from None
  except (
    ValueError,
    TypeError,
    AttributeError,
  ) as error:  # dates, numbers and mappings that are none
    raise DataError(f"{path} is no YAML of templates: {error}.") from None
