"""Opens one of our own steps without reading its arrays.

For import and conversion.  A run that goes on uses `Store.restore`, which checks types too.
"""

import os
import pathlib
import re

from promot_jax import errors, guarded_json
from promot_jax.checkpoints import manifest, remote_folder, step_files
from promot_jax.checkpoints.stored import StoredArray, open_zarr

MARKER = "stage_complete.json"
"""File beside the steps of a stage that is complete; its `step` is the chosen one."""
PARAMETERS = "trainable/"
"""Prefix of the parameters among the arrays that training saves."""


def is_step(path: str | os.PathLike) -> bool:
  """Whether a path is a folder that `Store.save` wrote."""
  return (pathlib.Path(path) / manifest.FILE).is_file()


def find_step(path: str | os.PathLike) -> pathlib.Path | None:
  """The step at `path`, or of the folder `path` the one that its finished stage chose, or else the last.

  Returns:
    None where there is none.

  Raises:
    DamagedRecord: the marker that says which step was chosen is not as it was written.
  """
  path = pathlib.Path(path)
  if is_step(path):
    return path
  # What a stage chose at its end is seldom its last step.
  marker = guarded_json.read(
    path / MARKER, shape={"step": int}, advice="Name the folder of the step instead."
  )
  if marker is not None and is_step(chosen := path / f"checkpoint_{marker.content['step']}"):
    return chosen
  # A stage that is not finished, or whose chosen step lies elsewhere.
  steps = {
    int(entry.name.removeprefix("checkpoint_")): entry
    for entry in path.glob("checkpoint_*")
    if re.fullmatch(r"checkpoint_\d+", entry.name) and is_step(entry)
  }
  return steps[max(steps)] if steps else None


def open_step(path: str | os.PathLike) -> dict[str, StoredArray]:
  """The parameters of a step by our names: those that its stage trained.

  Raises:
    DamagedCheckpoint: a file is not as it was written.
  """
  path = pathlib.Path(path)
  # All files are hashed first: Orbax would load a flipped bit in silence.
  problems = manifest.problems(path)
  if problems:
    raise errors.DamagedCheckpoint(
      f"'{path}' is damaged ({'; '.join(problems[:3])}); name another step."
    )
  _, table = step_files.describe(path)
  store = {"driver": "ocdbt", "base": remote_folder.kvstore(path / step_files.ARRAYS)}
  return {
    name.removeprefix(PARAMETERS): open_zarr(name, "zarr3", {**store, "path": f"{name}/"})
    # The optimizer's state and counters lie beside the parameters and are not for import.
    for name in table
    if name.startswith(PARAMETERS)
  }
