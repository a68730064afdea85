"""Exclusive use of what is written by parts: two runs on one directory delete each other's checkpoints.

The lease is an advisory lock (flock) on a file in the directory, or beside the file that is held, which the system drops when its
holder dies, whatever the way.  The text in the file only tells people who holds it.
"""

import fcntl
import json
import logging
import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable

from promot_jax import errors
from promot_jax.checkpoints import links
from promot_jax.printable import without_secrets

FILE = ".lease"
_log = logging.getLogger(__name__)


class Lease:
  """Holds a model directory from construction until `release`, or as a context manager.

  Args:
    directory: what is held, or where it lies.
    report: receives a line if the former holder ended without giving it back.
    file: name of the locked file; one of several things in a directory has its own.
    what: what is held, for messages; by default the directory.
    whole: the directory around it that the user named, if he did not name this one.

  Raises:
    ModelDirInUse: another live process holds it.
    CannotWrite: the directory cannot be made or written, or the locked file is a link.
    ConfigError: a model directory is to be held, and a part of it lies elsewhere (`links`).
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    report: Callable[[str], None] | None = None,
    file: str = FILE,
    what: str = "",
    whole: str | os.PathLike | None = None,
  ) -> None:
    self.directory = pathlib.Path(directory)
    what = what or f"Model directory {self.directory}"
    # A model directory alone is looked through; a lease beside a file writes nothing but itself.
    if file == FILE:
      links.require_inside(self.directory, whole=whole)
    self._file: int | None = _open(self.directory, file, what)
    try:
      # Not waiting: the holder may train for days, and the user wants to know it at once.
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = _describe(_holder(self._file))
      os.close(self._file)
      raise errors.ModelDirInUse(
        f"{what} is in use by {holder}. Wait for it, stop it, or give this command another one."
      ) from None
    # The text of a process that was killed stays; the lock itself went with it.
    former = _holder(self._file)
    if former and not former.get("released"):
      (report or _log.warning)(
        f"lease of {what.removeprefix('Model directory ')} taken over: {_describe(former)} ended without giving it back"
      )
    self._info = {
      "pid": os.getpid(),
      "host": socket.gethostname(),
      "since": time.time(),
      # A command may carry a token in a URL, and whoever finds the directory reads this file.
      "command": without_secrets(" ".join(sys.argv))[:500],
    }
    self._write(self._file, self._info)

  def release(self) -> None:
    """Gives the directory back; doing it twice is harmless."""
    if self._file is not None:
      # The file stays: removing it would let two processes lock two files of one name.
      self._write(self._file, {**self._info, "released": time.time()})
      os.close(self._file)  # closing drops the lock
      self._file = None

  def __enter__(self) -> "Lease":
    return self

  def __exit__(self, *_: object) -> None:
    self.release()

  def _write(self, file: int, info: dict) -> None:
    try:
      os.ftruncate(file, 0)
      # From the beginning of the emptied file: the descriptor's own position may be anywhere.
      os.pwrite(file, (json.dumps(info) + "\n").encode(), 0)
    except OSError:  # a full disk must not stop a run here; the lock itself is held
      _log.warning("could not write who holds %s", self.directory)


def _open(directory: pathlib.Path, file: str, what: str) -> int:
  try:
    directory.mkdir(parents=True, exist_ok=True)
    # Never through a link: what it leads to would be emptied.
    return os.open(directory / file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
  except OSError as error:
    raise errors.CannotWrite(
      f"{what} cannot be used: {error.strerror} ({error.filename}). Give a directory that can be"
      " created and written."
    ) from None


def _holder(file: int) -> dict:
  try:
    info = json.loads(os.pread(file, 4096, 0) or b"{}")
    return info if isinstance(info, dict) else {}
  # JSON of many brackets ends at Python's own limit.
  except (OSError, ValueError, RecursionError):
    # The text is for people; a file that somebody damaged must not keep anybody from the directory.
    return {}


def _describe(info: dict) -> str:
  if not info:
    return "another process"
  found = f"process {info.get('pid')} on host {info.get('host')}"
  try:
    since = time.localtime(info.get("since", 0))
  # What is no number, or no time: the rest of the text still tells who it is.
  except (TypeError, ValueError, OverflowError, OSError):
    return found
  return f"{found} since {time.strftime('%Y-%m-%d %H:%M:%S', since)}"
