"""Files that appear whole or not at all, and values as the JSON in them.

Imports neither JAX nor TensorFlow: reports are written with it.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from promot_jax import errors, signals


def fingerprint(value: Any) -> str:
  """SHA-256 of a JSON value, written in hexadecimal; equal values give equal fingerprints."""
  # Sorted, as equal mappings may have been filled in another order.
  text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes indented JSON in one rename; NaN is refused because other readers reject it."""
  write_text(path, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file so that readers see the old or the new content, never a part.

  Raises:
    CannotWrite: the folder cannot be made or written, or the disk is full.
  """
  write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, data: bytes) -> None:
  """As `write_text`, for binary content."""
  ensure_folder(path.parent)
  with writing(path):
    # In the same folder: a rename between file systems is a copy, which can be cut off.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    remove = functools.partial(pathlib.Path(temporary).unlink, missing_ok=True)
    try:
      # A signal may end the process at any line, past every `finally`.
      with signals.undone_at_end(remove):
        with os.fdopen(descriptor, "wb") as file:
          file.write(data)
          file.flush()
          # Before the rename: after a power cut the name must not stand for an empty file.
          os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, which a report's readers cannot open
        with signals.undivided():
          os.replace(temporary, path)
    # KeyboardInterrupt too: nothing half-written stays.
    except BaseException:
      remove()
      raise


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Turns the operating system's write errors into the one a user can act on."""
  try:
    yield
  except OSError as error:
    raise errors.CannotWrite(
      f"Cannot write {path}: {error.strerror or error}; check the path, its permissions and the "
      "free space, then run the same command again."
    ) from error


def ensure_folder(folder: pathlib.Path) -> None:
  with writing(folder):
    folder.mkdir(parents=True, exist_ok=True)


def line(value: Mapping[str, Any]) -> str:
  return json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
  """`value` as JSON types: numpy scalars become numbers, non-finite numbers become null."""
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy for them
    return plain(value.tolist())
  if isinstance(value, bytes):
    return value.decode("utf-8", "replace")
  if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
    return None
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  return str(value)
