"""What a disk can do to a checkpoint: atomic files and folders, sizes, why a write was refused."""

import contextlib
import functools
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from promot_jax import errors, guarded_json, signals
from promot_jax.checkpoints import manifest

AROUND = 128 * 1024
"""Bytes on the disk of a step's small files, whole blocks each, beside its values."""
_REASONS = (
  "No space left on device",
  "File too large",
  "Read-only file system",
  "Disk quota exceeded",
  "Permission denied",
  "Input/output error",
)


def write_record(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes a small record with a digest of its content, whole or not at all.

  Raises:
    OSError: the disk refused.
  """
  with whole_file(path) as stream:
    stream.write(guarded_json.text(content).encode())


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[BinaryIO]:
  """A new file under a temporary name, which takes the place of `path` when the block ends.

  On an error nothing is left behind and `path` is as it was.

  Raises:
    OSError: the disk refused.
  """
  # Hidden while it is written, and in the same folder, where a rename is one step.
  temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
  remove = functools.partial(temporary.unlink, missing_ok=True)
  try:
    with signals.undone_at_end(remove):
      remove()  # of a killed process; or a link that somebody put there, which is not followed
      # 'x': nothing that is there already is written into.
      with temporary.open("xb") as stream:
        yield stream
        stream.flush()
        # Before the rename: after a loss of power the name must not stand for an empty file.
        os.fsync(stream.fileno())
      with signals.undivided():
        temporary.rename(path)
  finally:
    temporary.unlink(missing_ok=True)
  manifest.flush_directory(path.parent)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A new folder under a temporary name, which becomes `path` when the block ends without an error.

  So nobody ever finds a part of what is exported.  On an error nothing is left behind.

  Raises:
    ConfigError: there is something at `path` already.
    CannotWrite: the disk refused.
  """
  path = pathlib.Path(path)
  if path.is_file() or (path.is_dir() and any(path.iterdir())):
    raise errors.ConfigError(
      f"'{path}' exists and is not overwritten; name a new folder, or move this one away."
    )
  # Beside the folder and not in it: the rename needs one file system.
  temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
  try:
    with signals.undone_at_end(functools.partial(shutil.rmtree, temporary, ignore_errors=True)):
      remove_leftover(temporary)
      temporary.mkdir(parents=True)
      yield temporary
      # All of it is on the disk before the name says that it is there.
      for entry in [*temporary.rglob("*"), temporary]:
        if entry.is_dir():
          manifest.flush_directory(entry)
        else:
          with entry.open("rb") as stream:
            os.fsync(stream.fileno())
      with signals.undivided():
        if path.is_dir():  # empty
          path.rmdir()
        temporary.rename(path)
    manifest.flush_directory(path.parent)
  except BaseException as error:
    shutil.rmtree(temporary, ignore_errors=True)
    # An interruption is no refusal, and goes on as it is.
    cause = refusal(error) if isinstance(error, Exception) else None
    if cause is None or isinstance(error, errors.PromotError):
      raise
    reason = getattr(cause, "strerror", None) or known_reason(str(cause)) or str(cause)
    raise errors.CannotWrite(
      f"'{path}' could not be written: {reason}. Free some space or name another folder, then"
      " repeat the command."
    ) from error


def write_texts(folder: pathlib.Path, texts: Mapping[str, str]) -> None:
  """Writes small files by name into a folder that is being made.

  Raises:
    OSError: the disk refused.
  """
  for name, text in texts.items():
    (folder / name).write_text(text, encoding="utf-8")


def remove_leftover(path: pathlib.Path) -> None:
  """Removes what a killed process of our number left under a temporary name; a link is not followed.

  Raises:
    OSError: the disk refused.
  """
  # Numbers of processes come again, in a container at every start.
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def known_reason(text: str) -> str | None:
  """The refusal named in a message of the array library, which hides the error number."""
  return next((reason for reason in _REASONS if reason.lower() in text.lower()), None)


def refusal(error: BaseException) -> BaseException | None:
  """The link of an exception chain that says the disk refused, if one does."""
  link: BaseException | None = error
  # An error of the array library has no number; its text tells, in any link of the chain.
  while link is not None:
    if isinstance(link, OSError) or known_reason(str(link)) or "RESOURCE_EXHAUSTED" in str(link):
      return link
    link = link.__cause__ or link.__context__
  return None


def tree_size(directory: pathlib.Path) -> int:
  """Bytes of all files below a directory."""
  return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def step_size(values: int) -> int:
  """Bytes of free space that a step needs whose values have `values` bytes."""
  return values + AROUND


def needed_text(nbytes: int) -> str:
  """'147 kB (values 16.4 kB, the files around them 131 kB)', or the size alone where it is the same."""
  whole, values = size_text(step_size(nbytes)), size_text(nbytes)
  if whole == values:
    return values
  return f"{whole} (values {values}, the files around them {size_text(AROUND)})"


def size_text(nbytes: float) -> str:
  """Three digits and a decimal unit: 1234567 -> '1.23 MB'."""
  for unit in ("B", "kB", "MB", "GB"):
    if nbytes < 1000:
      return f"{nbytes:.3g} {unit}"
    nbytes /= 1000
  return f"{nbytes:.4g} TB"
