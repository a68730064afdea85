"""What a task is: one frozen value, without seqio, that answers whatever the rest asks about a task.

A task of ours is a file of the package `tasks` that holds such a value under the name TASK; tasks that
others registered with seqio, and files of a user's own, are described by the same value.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from promot_jax import errors
from promot_jax.data import low_data
from promot_jax.data.record_features import RecordFeature
from promot_jax.data.templates import NoText, Rendered
from promot_jax.metrics import format_share, postprocess
from promot_jax.metrics.metric import Metric

Path = tuple[str, ...]
"""Where a field lies in a record: ('question', 'stem')."""
Record = Mapping[str, Any]
WHERE, PROBLEM = ("where",), ("problem",)
"""Fields that a record of any task may have: its file and line; why it cannot be used, or nothing."""
Selection = Literal["paper", "strict"]

DERIVED = ("train_strict", "selection")
"""Parts of 'train' by `few_shot.is_held_out`: nine tenths, and the tenth that chooses checkpoints."""
STRICT = 0.9
"""Share of the training split that is left in the first of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
  """The splits of one run: `train`, `select` (the checkpoint) and `report` (the figures)."""

  train: str
  select: str
  report: str


class Origin(Protocol):
  """What the records of a source are read from: `tfds.DataSet`, `micro.world.Twin`, `original_files`."""

  @property
  def description(self) -> str:
    """What is read, for messages."""
    ...

  def data_source(self) -> Any:
    """The seqio.DataSource; the first call that may import seqio."""
    ...

  def digest(self) -> str:
    """Of the data as they are now, told without TensorFlow; empty where they cannot change."""
    ...

  def state(self) -> str:
    """For a plan: where the data are, and whether they are there."""
    ...

  def explained(self, task: str, error: Exception) -> errors.PromotError | None:
    """What to do about an error of `data_source`; None: the error says it by itself."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """Records of a task in one place, and which of its splits are for what.

  origin: reads them.
  report: the split that is reported.
  selection: the split on which the paper chooses a checkpoint; None where there is no such split.
  sizes: number of examples of its splits, as far as it is known without reading.
  format_metric: tells outputs in this task's format; None: its labels do, where it has any.
  divisible: whether 'train' can be divided where there is no split to choose on.
  """

  origin: Origin
  report: str = "test"
  selection: str | None = "validation"
  sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
  format_metric: Metric | None = None
  divisible: bool = True

  def splits(self, selection: Selection = "paper") -> Splits:
    """Which splits to train on, to choose a checkpoint on, and to report.

    `paper` does as Wang et al.: where the data set's test labels are not public, one validation split
    both selects and is reported.  `strict` never selects on what is reported: such a task keeps a tenth
    of its training split aside.  A data set without validation split is treated the strict way in both.
    """
    # Choosing on what is reported would count a lucky checkpoint as a better method.
    if self.selection is None or (selection == "strict" and self.selection == self.report):
      if not self.divisible:
        raise errors.ConfigError(
          f"{self.origin.description} has no split to choose a checkpoint on; name one, such as"
          " TASK_SPLITS={'select': 'train'}."
        )
      return Splits(train=DERIVED[0], select=DERIVED[1], report=self.report)
    return Splits(train="train", select=self.selection, report=self.report)

  def at(self, folder: str) -> "Source":
    """The same source in a folder, of records that are the same wherever they lie: itself."""
    # Of files alone: other records lie in one place.
    at = getattr(self.origin, "at", None)
    return self if at is None else dataclasses.replace(self, origin=at(folder))

  def size(self, split: str) -> int | None:
    """Number of examples of a split; None where only reading tells it."""
    # From the size of the whole, since only reading tells how many texts fall into the part.
    if split == DERIVED[0] and "train" in self.sizes:
      return round(self.sizes["train"] * STRICT)
    if (subsample := low_data.of(split)) is not None:
      return subsample.count
    return self.sizes.get(split)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Task:
  """A text-to-text task.

  name: without its number of demonstrations; of our own tasks also the name of the file.
  sources: where its records are, by the names that DATA_SOURCE takes.
  fields: what the template reads of a record; nothing else of it is converted.
  optional: those of `fields` that a source may lack.
  template: record -> its text; None where the records come as texts already.
  usable: whether a record takes part at all (also called with tensors); None: all do.
  metric: the headline score, a key of what one of `metric_fns` returns.
  metric_fns: called as `f(targets, predictions) -> {name: score}`.
  labels: the words a model may answer with; empty where answers are free text.
  first_token: whether a label is told by the first word of an output.
  own_postprocess: in place of ours: `f(output)`, or `f(output, record)` where it says `reads_record`.
  references: record -> what the metrics compare with; None: the record's answers.
  features: what an example holds beside its input and target, by name; what they are made of is among
    `fields`.  `references` and a postprocessor that `reads_record` find them in the record, too.
  ranked: whether a model chooses among the choices of each record (`templates.Rendered`), by their
    probability, and writes nothing.
  key: record -> text by which a training split is divided; None: its input.  Tasks that read the same
    records have the same.
  columns: what promptsource's templates find beside or in place of `fields`, made of a record by name:
    they are written for Hugging Face's data sets, some of whose columns are others.
  """

  name: str
  sources: Mapping[str, Source]
  metric: str
  metric_fns: Sequence[Callable[..., Mapping[str, float]]]
  fields: tuple[Path, ...] = ()
  optional: tuple[Path, ...] = ()
  template: Callable[[Record], Rendered] | None = None
  usable: Callable[[Record], Any] | None = None
  labels: tuple[str, ...] = ()
  first_token: bool = False
  own_postprocess: Callable[..., Any] | None = None
  references: Callable[[Record], Any] | None = None
  features: Mapping[str, RecordFeature] = dataclasses.field(default_factory=dict)
  ranked: bool = False
  key: Callable[[Record], str] | None = None
  columns: Mapping[str, Callable[[Record], Any]] = dataclasses.field(default_factory=dict)

  def source(self, name: str) -> Source:
    """One of its sources, by its name or by name and folder: 'tfds', 'files:/data'.

    Raises:
      ConfigError: it has none of that name.
    """
    # 'files:/data': a folder may have colons, so that only the first one divides.
    kind, _, folder = name.partition(":")
    if kind not in self.sources:
      raise errors.ConfigError(
        f"task '{self.name}' has no source '{kind}'; it has: {', '.join(self.sources)}. Set DATA_SOURCE."
      )
    found = self.sources[kind]
    return found.at(folder) if folder else found

  def render(self, record: Record) -> Rendered:
    """The text of a record.

    Raises:
      NoText: the template writes nothing for it.
      DataError: a field is missing, or a label is not one of the classes.
    """
    if self.template is None:
      raise errors.ConfigError(f"task '{self.name}' has no template: its records are texts.")
    # Files and tables say where a record stands; a data set of TensorFlow Datasets does not.
    where = record.get(WHERE[0]) if isinstance(record, Mapping) else None
    name = f"{self.name}: {where}" if where else self.name
    try:
      # Found where the record was read, and raised where `malformed` counts.
      if isinstance(record, Mapping) and record.get(PROBLEM[0]):
        raise errors.DataError(record[PROBLEM[0]])
      return self.template(record)
    # No fault of the record: it takes no part.
    except NoText:
      raise
    except errors.DataError as error:
      raise errors.DataError(f"{name}: {error}") from error
    # What a template meets in a record that is not built as it expects.
    except (KeyError, TypeError, IndexError, AttributeError) as cause:
      fields = ", ".join(sorted(record)) if isinstance(record, Mapping) else type(record).__name__
      raise errors.DataError(
        f"{name}: a record lacks a field or has one of another kind ({type(cause).__name__}:"
        f" {cause}); it has: {fields}."
      ) from cause

  def is_usable(self, record: Record) -> bool:
    """False for records that take no part: SNLI's items without a majority label."""
    return self.usable is None or bool(self.usable(record))

  def key_of(self, record: Record) -> str:
    """Decides to which part of a divided split a record belongs.

    Raises:
      DataError: it cannot be rendered.
    """
    return self.render(record).input if self.key is None else self.key(record)

  @property
  def postprocess(self) -> Callable[..., Any]:
    """Decoded output -> what is scored."""
    if self.own_postprocess is not None:
      return self.own_postprocess
    return postprocess.Scored(task=self.name, first_token=self.first_token)

  def format_metric(self, source: str) -> Metric | None:
    """Share of outputs in this task's format; None where it has none that can be told."""
    # By its words where there are any; texts of free form are told by the source's own rule.
    if self.labels:
      return format_share.FormatShare(labels=self.labels)
    return self.source(source).format_metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
  """Tasks that one model is tuned on; their order is that of the rows of its prompt bank.

  name: of our own mixtures also the name of the file.
  members: names of tasks without their number of demonstrations.
  """

  name: str
  members: tuple[str, ...]
