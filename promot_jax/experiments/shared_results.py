"""A store of results that all processes of a run use.

Process 0 reads and writes; the others learn what it found, so that all of them run the same
evaluations and none writes over another.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from promot_jax import hosts
from promot_jax.evaluation.journal import Journal
from promot_jax.evaluation.records import Prediction, RunRecord, TaskResult
from promot_jax.evaluation.results import ResultStore


class SharedJournal(Journal):
  """The raw outputs of an unfinished evaluation, kept by process 0."""

  def read(self) -> Iterator[dict[str, Any]]:
    """The entries that process 0 finds."""
    yield from hosts.first(lambda: list(super(SharedJournal, self).read()))

  def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
    """Adds entries, from process 0."""
    hosts.only_first(functools.partial(super().append, entries))

  def remove(self, fingerprints: Collection[str]) -> None:
    """Drops what is finished."""
    hosts.only_first(functools.partial(super().remove, fingerprints))


class SharedResults(ResultStore):
  """The results below one folder, kept by process 0; every method is called by all processes."""

  def write_run(self, record: RunRecord) -> None:
    """Writes `run.json`."""
    hosts.only_first(functools.partial(super().write_run, record))

  def write(
    self, checkpoint: str, result: TaskResult, predictions: Sequence[Prediction] = ()
  ) -> None:
    """Stores a finished evaluation."""
    hosts.only_first(functools.partial(super().write, checkpoint, result, predictions))

  def find(self, checkpoint: str, wanted: TaskResult) -> TaskResult | None:
    """The stored result of this evaluation that process 0 finds, or None."""

    def look() -> dict[str, Any] | None:
      # As JSON, which is what processes can tell each other.
      found = super(SharedResults, self).find(checkpoint, wanted)
      return None if found is None else dataclasses.asdict(found)

    found = hosts.first(look)
    return None if found is None else TaskResult(**found)

  def journal(self, checkpoint: str) -> Journal:
    """The raw outputs of an evaluation that was stopped on its way."""
    return SharedJournal(super().journal(checkpoint).path)


def open_results(
  directory: str | pathlib.Path, report: Callable[[str], None] | None = None
) -> ResultStore:
  """The results of a folder for as many processes as there are; `report` as of `ResultStore`."""
  kind = SharedResults if hosts.several() else ResultStore
  return kind(directory, report=report) if report else kind(directory)
