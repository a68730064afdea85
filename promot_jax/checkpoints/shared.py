"""A store of checkpoints that all processes of a run use.

Process 0 looks at the directory, decides, and writes everything small; the others learn what it
found.  Arrays are written and read by all: each process handles the shards of its own devices, and
no host ever holds a whole model.  A step appears as in a run of one process, by one rename, after
the checksums of all files are known, and can be restored by any number of processes.

Assumes a file system that all hosts have mounted (`hosts.check_shared`).
"""

import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from promot_jax import guarded_json, hosts, paths
from promot_jax.checkpoints import arrays, step_files
from promot_jax.checkpoints.policy import Keep
from promot_jax.checkpoints.store import Checkpoint, Store


class SharedStore:
  """The part of a `Store` that training uses; every method is called by all processes.

  Methods raise what those of `Store` raise, in all processes.  Nothing is written in the background.
  """

  writing = False

  def __init__(self, store: Store) -> None:
    self._store = store

  @property
  def directory(self) -> pathlib.Path:
    return self._store.directory

  @property
  def keep(self) -> Keep:
    """Which steps survive."""
    return self._store.keep

  @keep.setter
  def keep(self, value: Keep) -> None:
    self._store.keep = value

  def path(self, step: int) -> pathlib.Path:
    """Directory of a step, present or not."""
    return self._store.path(step)

  # What process 0 does, and tells.

  def steps(self) -> list[int]:
    """Complete steps, ascending."""
    return hosts.first(self._store.steps)

  def latest(self) -> int | None:
    """The newest complete step, or None."""
    return hosts.first(self._store.latest)

  def score(self, step: int) -> dict[str, Any] | None:
    """{'score': float, 'metrics': dict} recorded for a step, or None."""
    return hosts.first(functools.partial(self._store.score, step))

  def check_writable(self, nbytes: int = 0) -> None:
    """Fails now if a step of `nbytes` could not be saved later."""
    hosts.first(functools.partial(self._store.check_writable, nbytes))

  def record_score(self, step: int, score: float, metrics: Mapping[str, float]) -> None:
    """Attaches an evaluation to a saved step."""
    hosts.first(functools.partial(self._store.record_score, step, score, metrics))

  def write_json(self, name: str, content: Mapping[str, Any]) -> None:
    """Writes a small file beside the steps."""
    hosts.first(functools.partial(self._store.write_json, name, content))

  def read_json(self, name: str, *, shape: guarded_json.Shape, advice: str) -> Any:
    """Content of a file of `write_json`; None where it does not exist."""
    # Bound instead of passed: `hosts.first` calls without arguments, in process 0 alone.
    read = functools.partial(self._store.read_json, name, shape=shape, advice=advice)
    return hosts.first(read)

  def set_aside_json(self, name: str, why: str) -> None:
    """Renames a damaged file of `write_json` out of the way, and says so."""
    hosts.first(functools.partial(self._store.set_aside_json, name, why))

  def verify(self, step: int) -> list[str]:
    """What is wrong with a step's files; empty means every byte is as written."""
    return hosts.first(functools.partial(self._store.verify, step))

  def set_aside(self, damaged: Mapping[int, list[str]], *, instead: int) -> None:
    """Renames damaged steps out of the way and says so."""
    hosts.first(functools.partial(self._store.set_aside, dict(damaged), instead=instead))

  def poll(self) -> None:
    """Nothing is written in the background."""

  def wait(self) -> None:
    """Nothing is written in the background."""

  def close(self) -> None:
    """Ends the store of process 0."""
    self._store.close()

  # What all do.

  def save(self, step: int, leaves: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Writes a step and returns when it is on the disk."""
    start = time.monotonic()
    size = sum(paths.nbytes([leaf]) for leaf in leaves.values())
    refused = functools.partial(self._refused, step, size)
    # Only process 0 makes the folder; as text, since what travels between processes is JSON.
    temporary = pathlib.Path(hosts.first(lambda: refused(lambda: str(self._store.begin(step)))))
    try:
      whole = {name: _on_all(leaf) for name, leaf in leaves.items()}
      # Arrays by all, each the shards of its devices; checksums and the rename by process 0 behind
      # them.
      hosts.together(lambda: refused(lambda: arrays.write(temporary / step_files.ARRAYS, whole)))
      hosts.first(
        lambda: refused(
          lambda: step_files.finish(self._store.path(step), temporary, leaves, metadata)
        )
      )
    except BaseException:
      if hosts.is_first():
        # Half a step is no step, and the disk may have been full.
        step_files.give_up(temporary)
      raise
    hosts.first(functools.partial(self._store.saved, step, size, start))

  def restore(
    self, step: int, abstract: Mapping[str, Any] | None = None, *, prefix: str = ""
  ) -> Checkpoint:
    """Reads one step after checking its files and comparing names, shapes and types."""
    # The checksums once, by process 0: each host would read the whole step for the same answer.
    hosts.first(functools.partial(self._store.require_sound, step))
    return self._read(step, abstract, prefix)

  def restore_latest(
    self, abstract: Mapping[str, Any] | None = None, *, prefix: str = ""
  ) -> Checkpoint | None:
    """Reads the newest undamaged step; None only where nothing was ever saved."""
    step, found = hosts.first(self._newest_sound)
    if step is None:
      return None
    checkpoint = self._read(step, abstract, prefix)
    # What travels between processes is JSON, whose keys are texts.
    damaged = {int(number): reasons for number, reasons in found}
    hosts.first(functools.partial(self._store.set_aside, damaged, instead=step))
    return checkpoint

  def _newest_sound(self) -> list[Any]:
    step, damaged = self._store.newest_sound()
    return [step, list(damaged.items())]

  def _read(self, step: int, abstract: Mapping[str, Any] | None, prefix: str) -> Checkpoint:
    return hosts.together(lambda: self._store.read(step, abstract, prefix))

  def _refused(self, step: int, size: int, call: Callable[[], Any]) -> Any:
    """`call`, with the sentence of a `Store` where the disk refuses."""
    try:
      return call()
    except Exception as error:
      refused = self._store.refused(step, size, error)
      if refused is None:
        raise
      raise refused from error


AnyStore = Store | SharedStore


def open_store(
  directory: str | pathlib.Path,
  *,
  keep: Keep | None = None,
  report: Callable[[str], None] | None = None,
) -> AnyStore:
  """The store for as many processes as there are; arguments as of `Store`."""
  store = Store(directory, keep=keep, report=report)
  return SharedStore(store) if hosts.several() else store


def _on_all(leaf: Any) -> Any:
  """An array of one process's devices as numpy: all have the same, and one of them writes it."""
  whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
  return np.asarray(leaf) if whole else leaf
