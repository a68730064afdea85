"""Examples of our tasks by their registered names; seqio is imported when one has to be read.

A split that is in the cache is read without seqio, and thus without TensorFlow.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from promot_jax.data import examples, low_data, record_files, vocabularies
from promot_jax.data.examples import Examples
from promot_jax.data.stream import Stream
from promot_jax.data.task import DERIVED
from promot_jax.errors import ConfigError
from tasks import catalog, registered


def load_examples(
  name: str, split: str, feature_lengths: Any, *, vocabulary: str = "t5", **options: Any
) -> Examples:
  """One split of a task as arrays in memory.

  Args:
    name: what `catalog.resolve` gave: 'rte_1shot.micro'.
    vocabulary: the one that it was given.
    feature_lengths, options: see `promot_jax.data.examples.load_examples`.
  """
  if catalog.is_open(name):
    # Nobody knows what its preprocessors read, so nothing of it is kept for later processes.
    options.pop("cache_dir", None)
    base, shots = catalog.split_shots(name)
    if shots:
      options["make"] = _with_demonstrations(base, shots, options)
    return examples.load_examples(name, split, feature_lengths, whole_records=True, **options)
  # A name of ours has its source and vocabulary behind dots.
  base, _ = catalog.split_shots(name.partition(".")[0])
  return examples.load_examples(
    name,
    split,
    feature_lengths,
    # The package and the task's file: their sources decide over its texts.
    modules=("tasks", f"tasks.{base}") if catalog.is_ours(base) else ("tasks",),
    # Ours are told by the name; a user's own may change under its name.
    vocabulary=vocabulary if vocabularies.reference(vocabulary) else None,
    register=functools.partial(register, name, vocabulary),
    source=functools.partial(digest, name),
    **options,
  )


def stream(
  name: str,
  split: str,
  limits: Mapping[str, int],
  *,
  vocabulary: str,
  words: vocabularies.Vocabulary,
  cache_dir: pathlib.Path | None,
  report: Callable[[str], None],
  **policies: Any,
) -> Stream | None:
  """A split that is too large to be kept, with its examples read as they are needed; None of any other.

  That is a split of more than `record_files.LARGE` bytes of files whose records can be read by number, as it
  is stored: with demonstrations, divided or with further features it is read whole.

  Args:
    name: what `catalog.resolve` gave.
    limits: most tokens of inputs and of targets.
    vocabulary: the one that `name` was made with.
    words: the same, opened.
    cache_dir: keeps where the records of a file begin.
    report: told how far a file has been looked through, and what is left out.
    policies: what to do about records that cannot be used; see `Stream`.
  """
  if catalog.is_open(name) or catalog.split_shots(name.partition(".")[0])[1]:
    return None
  task = catalog.find(name)
  numbered = getattr(task.source(catalog.place_of(name.split(".")[1])).origin, "numbered", None)
  if numbered is None or task.features or split in DERIVED or low_data.of(split) is not None:
    return None
  folder = None if cache_dir is None else cache_dir / "record_files"
  records = numbered(split, record_files.RecordFiles(folder=folder, report=report))
  if records is None:
    return None
  return Stream(
    name=name,
    split=split,
    records=records,
    task=task,
    vocabulary=words,
    limits={side: limits[side] for side in ("inputs", "targets")},
    cut=examples.cut_at(name, vocabulary if vocabularies.reference(vocabulary) else None),
    target_form="sentinel" if name.endswith(".sentinel") else "raw",
    report=report,
    **policies,
  )


def _with_demonstrations(base: str, shots: int, options: Mapping[str, Any]) -> Callable[[], Any]:
  """Makes the version of a registered task that has demonstrations.

  Raises:
    ConfigError: its cached examples are asked for.
  """
  if options.get("use_cached"):
    raise ConfigError(
      f"'{catalog.with_shots(base, shots)}': what seqio cached of '{base}' has no demonstrations; leave"
      " USE_CACHED_TASKS out, or the demonstrations."
    )
  from tasks import open_few_shot  # imports seqio

  return functools.partial(
    open_few_shot.with_demonstrations,
    base,
    shots=shots,
    # The seed of the run, as demonstrations of our tasks have it.
    seed=options.get("seed", 0),
    joining=registered.vocabulary(base).joining,
  )


def digest(name: str) -> str:
  """Of the data that a registered name reads; empty where they cannot change."""
  return catalog.find(name).source(catalog.place_of(name.split(".")[1])).origin.digest()


def register(name: str | None = None, vocabulary: str = "t5") -> None:
  """Puts names into seqio's registry, where they are not there.

  Args:
    name: what `catalog.resolve` gave; None: every task and mixture of ours, with our own vocabularies.
    vocabulary: the one that the name was made for, which may be a user's own.
  """
  from tasks import registration  # imports seqio, and with it TensorFlow

  if name is None:
    registration.add_all()
  else:
    registration.add(name, vocabulary)
