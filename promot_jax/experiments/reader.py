"""Reads the examples of an experiment's tasks, in its vocabulary, once in a process."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

from promot_jax import hosts
from promot_jax.data import cache
from promot_jax.data.examples import Examples
from promot_jax.data.quiet import quiet
from promot_jax.data.vocabularies import Vocabulary, open_vocabulary, reference
from promot_jax.errors import ConfigError
from promot_jax.experiments.experiment import Experiment
from promot_jax.micro.vocabulary import vocabulary as micro_vocabulary
from promot_jax.networks import vocabulary_fit
from tasks import reading


class Reader:
  """Reads each split once in a process; later processes find it in the user's cache."""

  def __init__(self, report: Callable[[str], None], cache_dir: pathlib.Path | None = None):
    self._report = report
    self._cache_dir = cache_dir or cache.default_dir()
    self._read: dict[tuple, Examples] = {}

  def examples(
    self,
    experiment: Experiment,
    task: str,
    split: str,
    lengths: Mapping[str, int],
    limit: int | None,
  ) -> Examples:
    """One split of one task; the first reading says what was cut."""
    name = experiment.seqio_name(task)
    malformed, empty_targets = experiment.malformed, experiment.empty_targets
    key = (name, split, lengths["inputs"], lengths["targets"], limit, malformed, empty_targets)
    if key not in self._read:
      text_vocabulary(experiment)  # refuses one that does not fit before any data is read
      with quiet():
        read = functools.partial(
          reading.load_examples,
          name,
          split,
          lengths,
          limit=limit,
          malformed=malformed,
          empty_targets=empty_targets,
          vocabulary=experiment.vocabulary,
          cache_dir=self._cache_dir,
        )
        found = hosts.in_turn(read)  # what the first process prepares, the others find
      vocabulary_fit.check_examples(found, experiment.backbone.vocab_size)
      self._report(f"data      {name} {split}: {found.lengths}")
      self._read[key] = found
    return self._read[key]


def decoder(experiment: Experiment) -> Callable[[Sequence[int]], str]:
  """Token ids -> text."""
  return text_vocabulary(experiment).decode


def text_vocabulary(experiment: Experiment) -> Vocabulary:
  """The vocabulary of the experiment's data, which fits its backbone.

  Raises:
    ConfigError: it cannot be opened, or the backbone has too few embedding rows for it, other
      special tokens or another kind of input; or there are no sentinels and targets need them.
  """
  if experiment.source == "micro" and reference(experiment.vocabulary) is None:
    found: Vocabulary = micro_vocabulary()
    name = "of the micro world"
  else:
    found, name = open_vocabulary(experiment.vocabulary), f"'{experiment.vocabulary}'"
  vocabulary_fit.check(found, name, experiment.backbone)
  if experiment.targets == "sentinel" and None in (found.sentinel(0), found.sentinel(1)):
    raise ConfigError(
      f"TARGETS='sentinel' puts answers between <extra_id_0> and <extra_id_1>, and vocabulary {name} "
      "has no such tokens; use TARGETS='raw'."
    )
  return found
