"""Which data set a task of the source 'tfds' really reads, and whether it is the published one.

A data set is taken for the published one by its name in TensorFlow Datasets and by the size of its
reported split: one of the user's own may have been prepared under a published name.
"""

import dataclasses

from promot_jax import errors
from tasks import catalog, sources

# Examples of the reported splits, as TensorFlow Datasets lists them; sets that are not here were
# published in several sizes, and are told by their names alone.
_PUBLISHED_SIZES = {
  "rte": 277,
  "cb": 56,
  "wic": 638,
  "snli": 10_000,
  "openbookqa": 500,
  "web_questions": 2032,
  "wmt14_en_fr": 3003,
  "wmt16_en_de": 2999,
  "wmt16_en_ro": 1999,
}


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


def data_set(task: str) -> DataSet:
  """The data set of a task, without its number of demonstrations."""
  information = catalog.TASKS[task]
  name = catalog.tfds_name(task)
  try:
    examples = sources.task_source(task, "tfds", 0).num_input_examples(information.report)
  except (errors.PromotError, OSError, ValueError, KeyError, AttributeError):
    examples = None  # nothing was read from here
  unversioned = {
    known.partition(":")[0] for known in (information.tfds, information.available or "")
  }
  expected = _PUBLISHED_SIZES.get(task)
  return DataSet(
    name=name,
    split=information.report,
    examples=examples,
    published=name.partition(":")[0] in unversioned
    and (examples is None or expected in (None, examples)),
  )
