"""Which data set a task really reads, and whether it is the published one.

A data set is taken for the published one by its name in TensorFlow Datasets and by the size of its
reported split: one of the user's own may have been prepared under a published name.
"""

import dataclasses
import os

from promot_jax import errors
from promot_jax.data import original_files, tfds
from promot_jax.data.task import Source
from tasks import catalog, sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
  """What is read: name and version; examples of the reported split, None where that is unknown."""

  name: str
  split: str
  examples: int | None
  published: bool

  def __str__(self) -> str:
    size = f" ({self.examples:,} {self.split} examples)" if self.examples is not None else ""
    return self.name + size


def data_set(name: str, place: str = "tfds") -> DataSet:
  """The data set of a task, without its number of demonstrations, in a place (`catalog.place`)."""
  task = catalog.find(name)
  source = task.source(place)
  origin = source.origin
  # Files first: they are counted, whatever their folder is called.
  if isinstance(origin, original_files.OriginalFiles):
    return _of_files(source, origin)
  # Neither prepared nor downloaded data: the micro world, or tables of the user's.
  if not isinstance(origin, tfds.DataSet):
    return DataSet(
      name=origin.description,
      split=source.report,
      examples=source.size(source.report),
      published=False,
    )
  try:
    # The source without demonstrations, of which a size needs no pool.
    examples = sources.task_source(task, "tfds", 0).num_input_examples(source.report)
  except (errors.PromotError, OSError, ValueError, KeyError, AttributeError):
    examples = None  # nothing was read from here
  # Of any version: the published one may be gone, and the data are the same.
  unversioned = {known.partition(":")[0] for known in (origin.published, origin.available or "")}
  # Sets of which no size is known were published in several, and are told by their names alone.
  expected = source.sizes.get(source.report)
  return DataSet(
    name=origin.name,
    split=source.report,
    examples=examples,
    published=origin.name.partition(":")[0] in unversioned
    and (examples is None or expected in (None, examples)),
  )


def _of_files(source: Source, origin: original_files.OriginalFiles) -> DataSet:
  """Original files are the published data set where the reported split has the published size."""
  split, examples = source.report, None
  names = list(origin.files(split)) if origin.is_there(split) else []
  if names:
    examples = origin.count(split)
  more = f" and {len(names) - 1} more" if len(names) > 1 else ""
  return DataSet(
    name=f"{os.path.relpath(names[0], origin.folder)}{more}" if names else origin.description,
    split=split,
    examples=examples,
    # A count that is not known is no proof.
    published=examples is not None and source.sizes.get(split) == examples,
  )
