"""The tasks that templates make of a data set's records: one for each template, found as any other task.

Which of a record's fields are read is told by our own task, where it is one's records, and by the templates.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from promot_jax import errors, identity
from promot_jax.data import task as task_lib
from promot_jax.data import templates, tfds
from promot_jax.data.promptsource import PromptTemplate
from promot_jax.data.task import Mixture, Record, Source, Task
from promot_jax.data.templated import TemplatedData, TemplatedTasks
from promot_jax.data.templates import Rendered
from promot_jax.metrics import registry
from tasks import catalog

_SHOWN = 3  # records in a message
_METRICS = {
  "Accuracy": "exact_match",
  "Squad": "f1",
  "Trivia QA": "exact_match",
  "ROUGE": "rouge2",
  "BLEU": "bleu",
}
"""What promptsource calls a metric -> ours, of answers that a model writes; the first that a file has."""


def add(tasks: TemplatedTasks) -> None:
  """Makes every template's task findable, and the data sets as mixtures.

  Raises:
    ConfigError, DataError: as `TemplatedTasks.tuned` and `TemplatedData.prompts`; or a metric or task is not
      known, or a name is taken.
  """
  for data in tasks.data_sets:
    # Tasks before mixtures, whose members must be known.
    for task in tasks_of(data):
      catalog.add(task)
  for name, members in tasks.units.items():
    catalog.add_mixture(Mixture(name=name, members=members))
  # Of data sets that are tuned on: held-out ones have mixtures of their own, to be measured.
  every = tuple(task for members in tasks.tuned.values() for task in members)
  catalog.add_mixture(Mixture(name=tasks.name, members=every))


@functools.cache
def tasks_of(data: TemplatedData) -> tuple[Task, ...]:
  """A data set's tasks, in the order of its templates."""
  # A task of ours brings its own sources, and says which of its fields a template may read.
  base = None if data.task is None else _base(data)
  # Of all templates: a data set is read once for each, with the same columns.
  columns = {column for prompt in data.prompts.values() for column in prompt.columns}
  return tuple(
    _task(name, prompt, data, base, frozenset(columns)) for name, prompt in data.prompts.items()
  )


def refuse_problems(data: TemplatedData) -> None:
  """Renders every row of every template, so that a run that would stop at a row does not start.

  Raises:
    ConfigError, DataError: as `TemplatedData.rows`; or a row cannot be used, with the first ones' lines.
  """
  # Other origins are read by seqio, and their records are refused or counted there.
  if data.train_file is None:
    return
  for task in tasks_of(data):
    for split in data.splits:
      problems = []
      # All splits of all templates: a row may suit one template and not another.
      for where, cells in data.rows(split):
        try:
          task.render(_row(where, cells))
        except templates.NoText:
          continue
        except errors.DataError as problem:
          problems.append(str(problem))
      if problems:
        raise errors.DataError(
          f"{len(problems)} rows for {split} cannot be used: {' | '.join(problems[:_SHOWN])} Correct them,"
          " or leave them out and have them counted: --gin.MALFORMED=\"'skip'\"."
        )


def _base(data: TemplatedData) -> Task:
  # Not a registered one: nothing is known of its records.
  found = catalog.find(str(data.task))
  if not catalog.is_ours(found.name):
    raise errors.ConfigError(
      f"TEMPLATES_TASK={data.task!r} is no task of ours, whose records templates could turn into texts."
    )
  return found


def _task(
  name: str,
  prompt: PromptTemplate,
  data: TemplatedData,
  base: Task | None,
  columns: frozenset[str],
) -> Task:
  # The first metric that has a counterpart here; the file's first choice counts.
  metric = data.metric or next(
    (_METRICS[m] for m in prompt.metrics if m in _METRICS), "exact_match"
  )
  # A model that chooses among answers is right or wrong.
  metric = "accuracy" if prompt.ranked else metric
  try:
    metric_fns = (registry.find(metric, labels=prompt.labels),)
  except errors.ConfigError as error:
    raise errors.ConfigError(f"the metric of '{name}': {error}") from None
  shared: dict[str, Any] = {
    "name": name,
    "labels": prompt.labels if prompt.ranked else (),
    "ranked": prompt.ranked,
    "metric": metric,
    "metric_fns": metric_fns,
  }
  made = base.columns if base is not None else {}
  written = functools.partial(_rendered, prompt, data, made)
  if base is not None:
    # The field and what is nested in it.
    known = {path[0] for path in base.fields}
    fields = (
      *base.fields,
      *((column,) for column in sorted(prompt.columns - made.keys()) if column not in known),
    )
    # The task's own records, whose places stay as they are.
    return Task(
      **shared,
      sources={
        place: dataclasses.replace(
          source,
          origin=Origin(of=source.origin, written=_written(prompt, data)),
          # The source's own is of the outputs that the task itself asks for.
          format_metric=None,
        )
        for place, source in base.sources.items()
      },
      fields=fields,
      optional=base.optional,
      usable=base.usable,
      template=written,
      # The same key for all templates, so that a record is on one side of a divided split for each
      # of them.
      key=functools.partial(_key, tuple(sorted(known))),
    )
  if data.tfds_name is not None:
    origin: task_lib.Origin = tfds.DataSet(task=data.name, published=data.tfds_name)
    # Any of the user's data sets, of which no size is known.
    source = Source(origin=Origin(of=origin, written=_written(prompt, data)), report=data.report)
    return Task(
      **shared,
      sources=dict.fromkeys(catalog.SOURCES, source),
      fields=tuple((column,) for column in sorted(columns)),
      template=written,
      key=functools.partial(_key, tuple(sorted(columns))),
    )
  source = Source(
    origin=Origin(of=Rows(data=data), written=_written(prompt, data)),
    report="test" if data.test_file is not None else "validation",
  )
  return Task(
    **shared,
    # The experiment's source chooses the words a model reads; the rows are the same.
    sources=dict.fromkeys(catalog.SOURCES, source),
    # A row is one text: its cells are JSON, whose types tensors do not have.
    fields=(("row",), ("where",)),
    template=functools.partial(_rendered_row, written),
    # By the row and not by the written text, so that all templates agree.
    key=lambda record: record["row"],
  )


def _rendered(
  prompt: PromptTemplate,
  data: TemplatedData,
  made: Mapping[str, Callable[[Record], Any]],
  record: Record,
  where: str = "",
) -> Rendered:
  columns = {name: make(record) for name, make in made.items() if name in prompt.columns}
  return prompt.render(data.numbered({**record, **columns}, where=where))


def _rendered_row(written: Callable[..., Rendered], record: Record) -> Rendered:
  where = record["where"]
  try:
    return written(json.loads(record["row"]), where=where)
  except templates.NoText:
    # Not an error of the row: it takes no part.
    raise
  except errors.DataError as problem:
    text = str(problem)
    # Once: what is raised deeper may name the place already.
    raise errors.DataError(text if text.startswith(where) else f"{where}: {text}") from problem


def _key(columns: tuple[str, ...], record: Record) -> str:
  # Sorted names: sources order their fields as they like.
  return json.dumps({column: record.get(column) for column in columns}, sort_keys=True)


def _row(where: str, cells: Mapping[str, Any]) -> dict[str, str]:
  # As the table has it, since the text is what people see in a message.
  return {"row": json.dumps(cells, ensure_ascii=False), "where": where}


def _written(prompt: PromptTemplate, data: TemplatedData) -> str:
  """All that decides over the texts, beside the records."""
  return json.dumps([prompt.text, {name: list(words) for name, words in data.classes.items()}])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
  """Records of another origin, written by a template: other examples where the template changes."""

  of: task_lib.Origin
  written: str

  @property
  def description(self) -> str:
    return self.of.description

  def at(self, folder: str) -> "Origin":
    """The same in a folder (`data.task.Source.at`)."""
    at = getattr(self.of, "at", None)
    return self if at is None else dataclasses.replace(self, of=at(folder))

  def data_source(self) -> Any:
    """See `data.task.Origin`."""
    return self.of.data_source()

  def digest(self) -> str:
    """Of the records and of the template."""
    # A template that was edited makes other examples of the same records.
    return identity.digest([self.of.digest(), self.written])

  def state(self) -> str:
    """See `data.task.Origin`."""
    return self.of.state()

  def explained(self, task: str, error: Exception) -> errors.PromotError | None:
    """See `data.task.Origin`."""
    return self.of.explained(task, error)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
  """The rows of tables as the origin of records: each as JSON, with its file and line."""

  data: TemplatedData

  @property
  def description(self) -> str:
    return f"the table {self.data.train_file}"

  def data_source(self) -> Any:
    """See `data.task.Origin`."""
    import seqio
    import tensorflow as tf

    def dataset(split: str, shuffle_files: bool = False, seed: int | None = None):
      del shuffle_files, seed  # the rows keep their order
      rows = [_row(where, cells) for where, cells in self.data.rows(split)]
      columns = {
        name: tf.constant([row[name] for row in rows], tf.string) for name in ("row", "where")
      }
      return tf.data.Dataset.from_tensor_slices(columns)

    sizes = {split: len(self.data.rows(split)) for split in self.data.splits}
    return seqio.FunctionDataSource(dataset, splits=self.data.splits, num_input_examples=sizes)

  def digest(self) -> str:
    """Of settings and content."""
    return self.data.digest()

  def state(self) -> str:
    """For a plan, which reads the rows: what is wrong with a file is known before anything runs."""
    sizes = ", ".join(f"{name} {len(self.data.rows(name))}" for name in self.data.splits)
    return f"rows of {self.data.train_file}: {sizes}"

  def explained(self, task: str, error: Exception) -> None:
    """Its own errors say what to do."""
    del task, error
