"""Checkpoints of one run: complete or absent, checked byte by byte, kept by a stated policy.

A step is a directory `checkpoint_<N>/` with `arrays/` (Orbax), `metadata.json` (names and shapes,
and whatever the caller adds), `manifest.json` (SHA-256 of every file) and, once the step has been
evaluated, `score.json`.  It is written under a temporary name and renamed when all of it is on the
disk, so that a kill at any moment leaves either the whole step or none of it.

Assumes one writing process (see `lease.py`) on a local or mounted file system.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from promot_jax import errors, guarded_json
from promot_jax.checkpoints import arrays, disk, manifest, matching, policy, step_files
from promot_jax.checkpoints.policy import Keep

_log = logging.getLogger(__name__)
_SCORE = "score.json"  # written after the step, so it is not in the manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """What was restored: `leaves` by name, and the metadata given to `save`."""

  step: int
  leaves: dict[str, Any]
  metadata: dict[str, Any]


class Store:
  """Saves and restores the steps of one directory."""

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    keep: Keep | None = None,
    report: Callable[[str], None] | None = None,
    background_bytes: int = 64 * 2**20,
  ) -> None:
    """Opens a store; nothing is created until something is written.

    Args:
      directory: the run's directory, one per stage.
      keep: which steps survive.
      report: receives one line for whatever a user should know (damage, a commit, leftovers); by
        default the log, at warning level.
      background_bytes: larger steps are written by a background thread.
    """
    if "://" in str(directory):
      raise errors.ConfigError(
        f"Checkpoint directory '{directory}' is a URL; give a local or mounted directory."
      )
    self.directory = pathlib.Path(directory)
    self.keep = keep or Keep()
    self.report = report or _log.warning
    self._background_bytes = background_bytes
    self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
    self._pending: concurrent.futures.Future | None = None
    self._verified: set[int] = set()

  # What is there.

  def steps(self) -> list[int]:
    """Complete steps, ascending.  Unfinished and damaged directories are not steps."""
    return sorted(
      step for step, path in self._directories().items() if (path / manifest.FILE).is_file()
    )

  def latest(self) -> int | None:
    """The newest complete step, or None."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """The step with the best score, the earliest on ties; None where no step has a score."""
    scores = {step: self.score(step) for step in self.steps()}
    values = {step: entry["score"] for step, entry in scores.items() if entry is not None}
    return policy.best(values, self.keep.mode)

  def score(self, step: int) -> dict[str, Any] | None:
    """{'score': float, 'metrics': dict} recorded for a step, or None."""
    try:
      record = self._score_record(step)
    except errors.DamagedRecord as error:
      self.report(str(error))
      return None
    return record.content if record and np.isfinite(record.content["score"]) else None

  def metadata(self, step: int) -> dict[str, Any]:
    """What was given to `save` with a step (not checked against the manifest)."""
    return step_files.describe(self.path(step))[0]

  def unfinished(self) -> list[str]:
    """Names of directories that a killed process left behind."""
    if not self.directory.is_dir():
      return []
    pattern = re.compile(r"checkpoint_\d+\.(tmp|deleted)-\d+")
    found = [path.name for path in self.directory.iterdir() if pattern.fullmatch(path.name)]
    return sorted(found)

  def path(self, step: int) -> pathlib.Path:
    """Directory of a step, present or not."""
    return self.directory / f"checkpoint_{step}"

  # Writing.

  def check_writable(self, nbytes: int = 0) -> None:
    """Fails now, before data and compilation, if a step of `nbytes` could not be saved later.

    Raises:
      CannotWrite: the directory cannot be made or written, or has too little free space.
    """
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryFile(dir=self.directory) as probe:
        probe.write(b"0")
    except OSError as error:
      raise errors.CannotWrite(
        f"Nothing can be written to {self.directory}: {error.strerror}. Give a directory that can"
        " be created and written."
      ) from None
    free = shutil.disk_usage(self.directory).free
    if nbytes and free < disk.step_size(nbytes):
      raise errors.CannotWrite(
        f"One checkpoint needs {disk.needed_text(nbytes)} but {self.directory} has {disk.size_text(free)} free."
        f"{self._last_good()} Free some space or give another directory."
      )

  def save(self, step: int, leaves: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Writes a step; when large, in the background: `poll`, `wait` or the next call raises errors.

    The arrays are copied to the host before this returns, so the caller may donate them.

    Args:
      step: its number; a step is written once.
      leaves: arrays by name.
      metadata: anything that JSON can hold.

    Raises:
      CannotWrite: this or the former step could not be written; steps on disk are untouched.
    """
    self.wait()
    if (self.path(step) / manifest.FILE).exists():
      raise ValueError(f"checkpoint_{step} exists already in {self.directory}")
    # Copies: a view would pin, or lose, a buffer that is donated later.
    host = {name: np.array(value, copy=True) for name, value in leaves.items()}
    self._pending = self._pool.submit(self._write, step, host, dict(metadata))
    if sum(value.nbytes for value in host.values()) <= self._background_bytes:
      self.wait()

  def poll(self) -> None:
    """Raises the error of a background write that has failed; never waits."""
    if self._pending is not None and self._pending.done():
      self.wait()

  def wait(self) -> None:
    """Returns when nothing is being written.

    Raises:
      CannotWrite: the write failed.
    """
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def record_score(self, step: int, score: float, metrics: Mapping[str, float]) -> None:
    """Attaches an evaluation to a saved step, and applies the keep policy again."""
    self.wait()
    path = self.path(step) / _SCORE
    content = {"score": float(score), "metrics": {k: float(v) for k, v in metrics.items()}}
    try:
      disk.write_record(path, content)
    except OSError as error:
      raise self._cannot_write(f"the score of step {step}", 1000, error) from None
    self._collect()

  @property
  def writing(self) -> bool:
    """Whether a step is being written in the background."""
    return self._pending is not None and not self._pending.done()

  def write_json(self, name: str, content: Mapping[str, Any]) -> None:
    """Writes a small file beside the steps, whole or not at all, with a digest of its content.

    Raises:
      CannotWrite: it could not be written.
    """
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
      disk.write_record(self.directory / name, content)
    except OSError as error:
      raise self._cannot_write(name, 1000, error) from None

  def read_json(self, name: str, *, shape: guarded_json.Shape, advice: str) -> Any:
    """Content of a file of `write_json`; None where it does not exist.

    Args:
      name: the file's.
      shape: fields that it must have.
      advice: what is safe and what to do if it is damaged, a sentence.

    Raises:
      DamagedRecord: it is not as it was written.
    """
    record = guarded_json.read(self.directory / name, shape=shape, advice=advice)
    return record.content if record else None

  def set_aside_json(self, name: str, why: str) -> None:
    """Renames a damaged file of `write_json` out of the way, and says so.

    Raises:
      CannotWrite: it cannot be renamed.
    """
    try:
      kept = guarded_json.set_aside(self.directory / name)
    except OSError as error:
      raise self._cannot_write(name, 0, error) from None
    self.report(f"{why} It is kept as {kept.name}.")

  def close(self) -> None:
    """Waits for the background write and ends its thread."""
    try:
      self.wait()
    finally:
      self._pool.shutdown()

  # Reading.

  def verify(self, step: int) -> list[str]:
    """What is wrong with a step's files, one phrase each; empty means every byte is as written."""
    if step in self._verified:
      return []
    if not self.path(step).is_dir():
      return ["it does not exist"]
    found = manifest.problems(self.path(step))
    if not found:
      self._verified.add(step)
    return found

  def restore(
    self, step: int, abstract: Mapping[str, Any] | None = None, *, prefix: str = ""
  ) -> Checkpoint:
    """Reads one step after checking its files and comparing names, shapes and types.

    Args:
      step: which one.
      abstract: for each name a value with shape and dtype, and a sharding for values that should
        come back as jax.Arrays laid out so; None reads everything as numpy.
      prefix: only names with this prefix are compared and read.

    Raises:
      DamagedCheckpoint: the step is not there, incomplete, or not as it was written.
      ConfigError: the step holds other names, shapes or types than `abstract`.
    """
    self.wait()
    self.require_sound(step)
    return self.read(step, abstract, prefix)

  def restore_latest(
    self, abstract: Mapping[str, Any] | None = None, *, prefix: str = ""
  ) -> Checkpoint | None:
    """Reads the newest undamaged step; None only where nothing was ever saved.

    A damaged newer step is renamed `checkpoint_<N>.damaged` and reported.

    Raises:
      DamagedCheckpoint: there are checkpoints, and none of them is sound.
      ConfigError: as `restore`.
    """
    self.wait()
    step, damaged = self.newest_sound()
    if step is None:
      return None
    checkpoint = self.read(step, abstract, prefix)
    self.set_aside(damaged, instead=step)
    return checkpoint

  # Parts of saving and restoring, for `shared.py`.

  def require_sound(self, step: int) -> None:
    """Raises DamagedCheckpoint if a step is not there as it was written."""
    found = self.verify(step)
    if found:
      others = [str(other) for other in self.steps() if other != step]
      raise errors.DamagedCheckpoint(
        f"{self.path(step)} is damaged ({_some(found)})."
        f" Other steps there: {', '.join(others) or 'none'}."
      )

  def newest_sound(self) -> tuple[int | None, dict[int, list[str]]]:
    """The step that `restore_latest` reads, and what is wrong with the newer ones.

    Raises:
      DamagedCheckpoint, ConfigError: as `restore_latest`.
    """
    for name in self.unfinished():
      self.report(f"{self.directory / name} is unfinished and ignored")
    directories = self._directories()
    damaged: dict[int, list[str]] = {}
    for step in sorted(directories, reverse=True):
      found = self.verify(step)
      if step_files.is_foreign(directories[step]):
        raise errors.ConfigError(
          f"{directories[step]} was written by another library. Name it as the initial checkpoint"
          " and give the run a directory of its own."
        )
      if not found:
        return step, damaged
      damaged[step] = found
    aside = sorted(path.name for path in self.directory.glob("checkpoint_*.damaged*"))
    if damaged or aside:
      listed = [f"checkpoint_{step}: {_some(found, 1)}" for step, found in damaged.items()]
      raise errors.DamagedCheckpoint(
        f"No sound checkpoint is left in {self.directory} ({'; '.join([*listed, *aside])})."
        " Restore one from a copy, or move these away to start from the beginning."
      )
    return None, {}

  def read(self, step: int, abstract: Mapping[str, Any] | None, prefix: str = "") -> Checkpoint:
    """As `restore`, without looking at the checksums."""
    metadata, stored = step_files.describe(self.path(step))
    stored = {name: value for name, value in stored.items() if name.startswith(prefix)}
    if abstract is None:
      abstract = stored
    else:
      abstract = {name: value for name, value in abstract.items() if name.startswith(prefix)}
      matching.require_equal(abstract, stored, where=str(self.path(step)))
    try:
      leaves = arrays.read(self.path(step) / step_files.ARRAYS, abstract) if abstract else {}
    except Exception as error:
      raise errors.DamagedCheckpoint(
        f"{self.path(step)} has correct checksums but cannot be read:"
        f" {arrays.root_cause(error)}. Was it written by a newer version?"
      ) from error
    return Checkpoint(step=step, leaves=leaves, metadata=metadata)

  def set_aside(self, damaged: Mapping[int, list[str]], *, instead: int) -> None:
    """Renames damaged steps out of the way and says so."""
    for step, reasons in damaged.items():
      try:
        kept = f"kept as {guarded_json.set_aside(self.path(step)).name}"
      except OSError as error:
        kept = f"could not be renamed: {error.strerror}"
      self.report(
        f"{self.path(step)} is damaged ({_some(reasons)}); using step {instead} instead; {kept}"
      )

  def begin(self, step: int) -> pathlib.Path:
    """The temporary directory of a new step, in which its arrays are to be written."""
    if (self.path(step) / manifest.FILE).exists():
      raise ValueError(f"checkpoint_{step} exists already in {self.directory}")
    self._remove_leftovers()
    return step_files.begin(self.path(step))

  def saved(self, step: int, nbytes: int, start: float) -> None:
    """Notes a step that was written since `start` (monotonic) and applies the keep policy."""
    self._verified.add(step)
    self.report(f"saved step {step} ({disk.size_text(nbytes)} in {time.monotonic() - start:.1f} s)")
    self._collect()

  def refused(self, step: int, nbytes: int, error: Exception) -> errors.CannotWrite | None:
    """What to say about an error while saving a step, if the disk was its reason."""
    cause = disk.refusal(error)
    return None if cause is None else self._cannot_write(f"checkpoint {step}", nbytes, cause)

  # Parts.

  def _directories(self) -> dict[int, pathlib.Path]:
    """Every `checkpoint_<N>` directory, complete or not."""
    if not self.directory.is_dir():
      return {}
    matches = [
      (re.fullmatch(r"checkpoint_(\d+)", path.name), path) for path in self.directory.iterdir()
    ]
    return {int(match[1]): path for match, path in matches if match and path.is_dir()}

  def _score_record(self, step: int) -> guarded_json.Record | None:
    return guarded_json.read(
      self.path(step) / _SCORE,
      shape={"score": (int, float), "metrics": dict},
      advice="The step is safe and counts as not evaluated; promot train evaluates the newest step again.",
    )

  def _write(self, step: int, leaves: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    start = time.monotonic()
    size = sum(value.nbytes for value in leaves.values())
    try:
      self._remove_leftovers()
      step_files.write(self.path(step), leaves, metadata)
    except Exception as error:
      refused = self.refused(step, size, error)
      if refused is None:
        raise
      raise refused from error
    self.saved(step, size, start)

  def _collect(self) -> None:
    """Deletes what the policy gives up."""
    try:
      for step in self.steps():
        self._score_record(step)
    except errors.DamagedRecord:
      return  # the best one may be the one whose score cannot be read
    given_up = policy.doomed(
      self.keep,
      self.steps(),
      best=self.best(),
      size=lambda step: disk.tree_size(self.path(step)),
    )
    for step in given_up:
      try:
        step_files.delete(self.path(step))
      except OSError as error:
        self.report(f"could not delete the old {self.path(step)}: {error.strerror}")

  def _remove_leftovers(self) -> None:
    for name in self.unfinished():
      shutil.rmtree(self.directory / name, ignore_errors=True)

  def _cannot_write(self, what: str, nbytes: int, cause: BaseException) -> errors.CannotWrite:
    room = f"{disk.needed_text(nbytes)} needed"
    with contextlib.suppress(OSError):
      room += f", {disk.size_text(shutil.disk_usage(self.directory).free)} free"
    reason = getattr(cause, "strerror", None) or disk.known_reason(str(cause)) or str(cause)
    return errors.CannotWrite(
      f"Could not save {what} to {self.directory}: {reason} ({room}).{self._last_good()}"
      " Free some space or repair the directory, then repeat the command."
    )

  def _last_good(self) -> str:
    latest = self.latest()
    return f" Last good step: {latest}." if latest is not None else " No step was saved yet."


def _some(items: list[str], limit: int = 3) -> str:
  rest = len(items) - limit
  return "; ".join(items[:limit]) + (f"; and {rest} more" if rest > 0 else "")
