"""Examples of our tasks by their registered names; seqio is imported when one has to be read.

A split that is in the cache is read without seqio, and thus without TensorFlow.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from promot_jax.data import examples, vocabularies
from promot_jax.data.examples import Examples
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
