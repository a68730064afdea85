"""Records of the world's tasks: how many, and in which split.

A record has the field names of TensorFlow Datasets.  The splits of a task share no record.  Besides
train, validation and test there is a split `pretraining`, from which the model's pretraining text
takes its episodes; RTE and SNLI have none, because the model must not have met them.  Facts and
words are the same everywhere: knowing them is what pretraining is for.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from promot_jax import errors
from promot_jax.data.task import Source, Task
from promot_jax.metrics.metric import Metric
from promot_jax.micro.dice import Dice

SEED = 0  # of the world that the shipped model knows

# Small splits first: they must be there where a task has few records.
SPLIT_SIZES = {"validation": 512, "test": 512, "train": 4000, "pretraining": 12000}
_SHORT_SIZES = {"validation": 512, "test": 512, "train": 1200}  # the rest is for pretraining

Draw = Callable[[Dice], dict]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twin:
  """A task in the micro world: an origin of records (`data.task.Origin`).

  name: of the task; it seeds the choices.  Tasks of one name and `draw` train and choose on the same records.
  draw: one record of the evaluated splits.
  draw_for_test: one record of the split `test` where that is of another kind, such as of topics that are not
    trained on; None: as `draw`.
  listed: all records there are for a seed, already in random order; in place of `draw`.
  pretrained: whether the shipped model's pretraining has met the task.
  draw_for_pretraining: one record where pretraining sees an easier kind; None: as `draw`.
  """

  name: str
  draw: Draw | None = None
  draw_for_test: Draw | None = None
  listed: Callable[[int], Iterator[dict]] | None = None
  pretrained: bool = True
  draw_for_pretraining: Draw | None = None

  def __post_init__(self) -> None:
    if (self.draw is None) == (self.listed is None):
      raise errors.ConfigError(
        f"the micro world's '{self.name}' needs either records to draw or a list of them."
      )

  @property
  def description(self) -> str:
    return "the micro world"

  @property
  def sizes(self) -> Mapping[str, int]:
    """Records in each split; one that takes its records from a list may have fewer."""
    return SPLIT_SIZES if self.listed is None else _SHORT_SIZES

  def data_source(self) -> Any:
    """See `data.task.Origin`."""
    return _data_source(self)

  def digest(self) -> str:
    """Its records are code, which is looked at anyway."""
    return ""

  def state(self) -> str:
    return "the micro world, part of the package"

  def explained(self, task: str, error: Exception) -> None:
    """Nothing can be missing."""
    del task, error


def source(
  name: str, draw: Draw | None = None, *, format_metric: Metric | None = None, **twin: Any
) -> Source:
  """The micro world as a source of a task; every split has labels, so `validation` chooses.

  Args:
    name, draw, twin: see `Twin`.
    format_metric: see `data.task.Source`.
  """
  origin = Twin(name=name, draw=draw, **twin)
  return Source(origin=origin, sizes=origin.sizes, format_metric=format_metric)


def twin_of(task: Task) -> Twin:
  """A task in the micro world.

  Raises:
    ConfigError: it has none there.
  """
  found = task.source("micro").origin
  assert isinstance(found, Twin)
  return found


def splits(twin: Twin) -> tuple[str, ...]:
  """Names of the task's splits."""
  names = ("train", "validation", "test")
  return (*names, "pretraining") if twin.pretrained else names


def records(twin: Twin, split: str, seed: int = SEED) -> tuple[dict, ...]:
  """All records of one split, always the same for the same seed.  Do not change them.

  Raises:
    ConfigError: there is no such split.
  """
  if split not in splits(twin):
    raise errors.ConfigError(
      f"{twin.name} has no split {split!r} in the micro world; there are: {', '.join(splits(twin))}."
    )
  return _evaluated(twin, seed)[split] if split != "pretraining" else _pretraining(twin, seed)


def key(record: dict) -> tuple[str, ...]:
  """What makes a record the same as another: its text fields, without ids and labels."""
  # OpenbookQA's texts are nested in its question.
  nested = record.get("question")
  texts = nested if isinstance(nested, dict) else record
  # Records that differ in these only are the same to a model.
  skipped = ("question_id", "url", "references")
  return tuple(
    # A table is a list of texts.
    " ".join(text) if isinstance(text, list) else text
    for name, text in texts.items()
    if isinstance(text, (str, list)) and name not in skipped
  )


@functools.cache
def _data_source(twin: Twin) -> Any:
  # Not at the top: the world itself is read without TensorFlow.
  from promot_jax.micro import sources  # imports seqio, and with it TensorFlow

  return sources.source(
    # Pretraining's records are not for tasks.
    {split: records(twin, split) for split in splits(twin) if split != "pretraining"}
  )


@functools.cache
def _evaluated(twin: Twin, seed: int) -> dict[str, tuple[dict, ...]]:
  wanted = {name: size for name, size in twin.sizes.items() if name != "pretraining"}
  known: set[tuple[str, ...]] = set()
  # One stream for all splits, cut one after the other, so that they share no record.
  stream = twin.listed(seed) if twin.listed else _unique(_drawn(twin.draw, twin.name, seed), known)
  found = {}
  if twin.draw_for_test is not None:
    # The other splits first: what they are does not depend on what is tested.
    size = wanted.pop("test")
    found = _cut(stream, wanted)
    tested = _drawn(twin.draw_for_test, twin.name, "test", seed)
    stream, wanted = _unique(tested, known), {"test": size}
  return {**found, **_cut(stream, wanted)}


def _cut(stream: Iterator[dict], sizes: Mapping[str, int]) -> dict[str, tuple[dict, ...]]:
  return {name: tuple(itertools.islice(stream, size)) for name, size in sizes.items()}


@functools.cache
def _pretraining(twin: Twin, seed: int) -> tuple[dict, ...]:
  if twin.listed:
    # Behind the records of the other splits, all that there are.
    return tuple(itertools.islice(twin.listed(seed), sum(_SHORT_SIZES.values()), None))
  # What is evaluated must not have been in pretraining's text.
  known = {key(record) for split in _evaluated(twin, seed).values() for record in split}
  draw = twin.draw_for_pretraining or twin.draw
  stream = _unique(_drawn(draw, twin.name, "pretraining", seed), known)
  return tuple(itertools.islice(stream, SPLIT_SIZES["pretraining"]))


def _drawn(draw: Draw | None, *seeds: str | int) -> Iterator[dict]:
  """Records without end, from dice of these seed words."""
  assert draw is not None
  dice = Dice(*seeds)
  return (draw(dice) for _ in itertools.repeat(None))


def _unique(drawn: Iterator[dict], known: set[tuple[str, ...]]) -> Iterator[dict]:
  """The drawn records without those already in `known`, which it fills."""
  for record in drawn:
    name = key(record)
    if name not in known:
      known.add(name)
      yield record
