"""The files of one step: written all or not at all, recognized, and set aside when damaged."""

import functools
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax import errors, guarded_json, signals
from promot_jax.checkpoints import arrays, manifest, matching

_FORMAT = 1
_DESCRIPTION = "metadata.json"
ARRAYS = "arrays"


def write(
  path: pathlib.Path, leaves: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
  """Makes the directory `path`: under a temporary name until all of it is on the disk.

  On an error nothing is left behind.  A directory in the way that is no complete step is set aside.
  """
  temporary = begin(path)
  try:
    # Two ways out: a signal that ends the process at once runs no `except`.
    with signals.undone_at_end(functools.partial(give_up, temporary)):
      arrays.write(temporary / ARRAYS, leaves)
      finish(path, temporary, leaves, metadata)
  # An interruption leaves half a step as well, and is no `Exception`.
  except BaseException:
    give_up(temporary)
    raise


def begin(path: pathlib.Path) -> pathlib.Path:
  """Makes the temporary directory in which `ARRAYS` is to be written."""
  # The process's number, so that of two processes neither removes what the other writes.
  temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
  temporary.mkdir(parents=True)
  return temporary


def finish(
  path: pathlib.Path,
  temporary: pathlib.Path,
  leaves: Mapping[str, Any],
  metadata: Mapping[str, Any],
) -> None:
  """Adds description and manifest to a temporary directory with arrays, and gives it its name.

  Args:
    path: the directory to be.
    temporary: from `begin`.
    leaves: anything with shape and dtype, by name.
    metadata: anything that JSON can hold.
  """
  table = {
    name: {"shape": list(value.shape), "dtype": str(value.dtype)} for name, value in leaves.items()
  }
  description = {"format": _FORMAT, "metadata": dict(metadata), "arrays": table}
  (temporary / _DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
  # Behind everything else, since it lists what is there.
  manifest.write(temporary)
  # In the way can only be what is no complete step; it may still be of use to somebody.
  if path.exists():
    guarded_json.set_aside(path)
  with signals.undivided():
    temporary.rename(path)
  # The rename is on the disk only when the folder that holds the name is.
  manifest.flush_directory(path.parent)


def give_up(temporary: pathlib.Path) -> None:
  """Removes what `begin` made."""
  shutil.rmtree(temporary, ignore_errors=True)


def describe(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, matching.Stored]]:
  """(metadata given to `write`, shapes and types of the arrays by name).

  Raises:
    DamagedCheckpoint: the description cannot be read or has another format.
  """
  try:
    content = json.loads((path / _DESCRIPTION).read_text())
    if content["format"] == _FORMAT and isinstance(content["metadata"], dict):
      table = {
        name: matching.Stored(tuple(entry["shape"]), entry["dtype"])
        for name, entry in content["arrays"].items()
      }
      return content["metadata"], table
    problem = (
      "has no metadata"
      if content["format"] == _FORMAT
      else f"has format {content['format']!r:.60}; this version reads format {_FORMAT}"
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    problem = f"cannot be read ({error})"
  raise errors.DamagedCheckpoint(f"{path / _DESCRIPTION} {problem}.")


def delete(path: pathlib.Path) -> None:
  """Deletes a step; renamed first, so that a half-deleted one is never offered."""
  shutil.rmtree(path.rename(path.with_name(f"{path.name}.deleted-{os.getpid()}")))


def is_foreign(path: pathlib.Path) -> bool:
  """Whether this is a step of T5X (legacy or Orbax) or a bare Orbax one, and none of ours."""
  if (path / manifest.FILE).exists() or (path / _DESCRIPTION).exists():
    return False
  return any((path / name).exists() for name in ("checkpoint", "state", "_METADATA"))
