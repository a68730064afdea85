"""Reads the examples of an experiment's tasks, in its vocabulary, once in a process."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

from promot_jax import hosts
from promot_jax.data import cache
from promot_jax.data.examples import Examples
from promot_jax.data.quiet import quiet
from promot_jax.data.stream import Stream
from promot_jax.data.vocabularies import Vocabulary, open_vocabulary, reference
from promot_jax.errors import ConfigError
from promot_jax.experiments import demonstrations
from promot_jax.experiments.experiment import Experiment
from promot_jax.micro.vocabulary import vocabulary as micro_vocabulary
from promot_jax.networks import vocabulary_fit
from promot_jax.token_ids import TokenIds
from promot_jax.training.teacher_input import Demonstrated
from tasks import catalog, reading, registered


class Reader:
  """Reads each split once in a process; later processes find it in the user's cache."""

  def __init__(self, report: Callable[[str], None], cache_dir: pathlib.Path | None = None):
    self._report = report
    self._cache_dir = cache_dir or cache.default_dir()
    self._read: dict[tuple, Examples] = {}
    self._streams: dict[tuple, Stream | None] = {}
    self._demonstrated: dict[tuple, Examples] = {}

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
    # Rows of a comparison and their stages ask for the same splits.
    if key not in self._read:
      text_vocabulary(experiment)  # refuses one that does not fit before any data is read
      # TensorFlow comes with seqio and writes pages of notes to stderr, also from C++.
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
          use_cached=experiment.use_cached and catalog.is_open(name),
        )
        found = hosts.in_turn(read)  # what the first process prepares, the others find
      # The vocabulary was looked at before; a registered task may be made with another one.
      vocabulary_fit.check_examples(found, experiment.backbone.vocab_size)
      self._report(f"data      {name} {split}: {found.lengths}")
      self._read[key] = found
    return self._read[key]

  def training(
    self, experiment: Experiment, task: str, lengths: Mapping[str, int]
  ) -> Examples | Stream:
    """The training split of a task: as `examples`, or read as it is needed where it is large.

    Files of more than `record_files.LARGE` bytes of which no `train_limit` takes the first examples.
    """
    split = experiment.splits_of(task).train
    found = None
    if experiment.train_limit is None:
      found = self._stream(experiment, task, split, lengths)
    if found is not None:
      return found
    return self.examples(experiment, task, split, lengths, experiment.train_limit)

  def demonstrated(
    self,
    experiment: Experiment,
    task: str,
    split: str,
    lengths: Mapping[str, int],
    limit: int | None,
    shown: Demonstrated,
  ) -> Examples:
    """As `examples`, with the inputs behind demonstrations that a teacher reads beside."""
    train = experiment.splits_of(task).train
    found = self.examples(experiment, task, split, lengths, limit)
    key = (found.name, split, lengths["inputs"], lengths["targets"], limit, shown)
    if key not in self._demonstrated:
      self._demonstrated[key] = demonstrations.beside(
        found,
        shown,
        pool=self.examples(experiment, task, train, lengths, experiment.train_limit),
        vocabulary=text_vocabulary(experiment),
        pad=TokenIds.of(experiment.backbone).pad,
        report=self._report,
      )
    return self._demonstrated[key]

  def _stream(
    self, experiment: Experiment, task: str, split: str, lengths: Mapping[str, int]
  ) -> Stream | None:
    name = experiment.seqio_name(task)
    policies = {"malformed": experiment.malformed, "empty_targets": experiment.empty_targets}
    key = (name, split, lengths["inputs"], lengths["targets"], *policies.values())
    if key not in self._streams:
      opened = functools.partial(
        reading.stream,
        name,
        split,
        lengths,
        vocabulary=experiment.vocabulary,
        words=text_vocabulary(experiment),
        cache_dir=self._cache_dir,
        report=self._report,
        **policies,
      )
      found = hosts.in_turn(opened)  # as in `examples`
      if found is not None:
        self._report(f"data      {name} {split}: {found}")
      self._streams[key] = found
    return self._streams[key]


def decoder(experiment: Experiment) -> Callable[[Sequence[int]], str]:
  """Token ids -> text."""
  return text_vocabulary(experiment).decode


def text_vocabulary(experiment: Experiment) -> Vocabulary:
  """The vocabulary of the experiment's data, which fits its backbone.

  Raises:
    ConfigError: it cannot be opened, or the backbone has too few embedding rows for it, other
      special tokens or another kind of input; or there are no sentinels and targets need them.
  """
  tuned = experiment.tasks[0]
  # A task that others registered brings its vocabulary; VOCABULARY is then only for tasks of ours.
  if catalog.is_open(tuned):
    found: Vocabulary = registered.vocabulary(catalog.split_shots(tuned)[0])
    name = f"of task '{tuned}'"
    _require_one(experiment, tuned, found)
  # The micro world has words of its own, unless the user's tokenizer was named.
  elif experiment.source == "micro" and reference(experiment.vocabulary) is None:
    found = micro_vocabulary()
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


# Texts that tell vocabularies apart.
_PROBES = ("Is it true or false? answer:", "Translate English to German: the house.", "42 é ß ă")


def _require_one(experiment: Experiment, tuned: str, own: Vocabulary) -> None:
  """The tasks of one experiment have the ids of one vocabulary.

  Raises:
    ConfigError: another tuned task, or the unseen tasks, have others.
  """
  for task in experiment.tasks[1:]:
    base, _ = catalog.split_shots(task)
    if not catalog.is_open(task) or not _agree(registered.vocabulary(base), own):
      raise ConfigError(f"tasks '{tuned}' and '{task}' have different vocabularies.")
  others = [task for task in experiment.evaluation.unseen if not catalog.is_open(task)]
  if others:
    theirs = _named_vocabulary(experiment)
    if not _agree(theirs, own):
      raise ConfigError(
        f"task '{tuned}' gives other token ids than VOCABULARY='{experiment.vocabulary}', in which"
        f" {', '.join(others)} are written; set VOCABULARY to the task's, or measure no other task:"
        " UNSEEN_TASKS=[]."
      )


def _agree(one: Vocabulary, other: Vocabulary) -> bool:
  # By what they do: two objects of one vocabulary are not equal, and their names may differ.
  return all(one.encode(text) == other.encode(text) for text in _PROBES) and one.eos == other.eos


def _named_vocabulary(experiment: Experiment) -> Vocabulary:
  if experiment.source == "micro" and reference(experiment.vocabulary) is None:
    return micro_vocabulary()
  return open_vocabulary(experiment.vocabulary)
