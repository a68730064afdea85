"""Soft prompts in NumPy's files, those of prompt-tuning on T5X, and checkpoints.

What is read is told from what lies at the path:

    prompt.npy, prompt.npz         NumPy; the extension may be missing, as in the files
                                   numpy_checkpoints/checkpoint_<step>/encoder.prompt.prompt.prompt
                                   that google-research/prompt-tuning writes
    a folder of such files         the prompt in it
    a T5X checkpoint               its leaf target/encoder/prompt/prompt/prompt
    a folder of one zarr array     such a leaf by itself
    a step of one of our runs      the prompt that was trained
"""

import os
import pathlib
import re
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import disk, npz, step_reader, t5x
from promot_jax.checkpoints.stored import is_float, open_zarr

T5X_LEAF = "encoder.prompt.prompt.prompt"
"""File name of the prompt among those that google-research/prompt-tuning writes."""
_OURS = re.compile(r"(encoder|decoder)/prompt/prompt")


def read_prompt(path: str | os.PathLike, *, name: str | None = None) -> np.ndarray:
  """The prompt [P D], or a bank of them [tasks P D], in its stored type.

  Args:
    path: see the head of this file.
    name: which array of an .npz file; not needed when it holds only one.

  Raises:
    ConfigError: there is no prompt, or none that can be read.
    DamagedCheckpoint: a checkpoint is cut off or contradicts itself.
  """
  place = pathlib.Path(path)
  if not place.is_dir():
    return _read_numpy(place, name)
  # T5X's prompt-tuning writes the prompt beside other arrays, under the name of its leaf.
  if (place / T5X_LEAF).is_file():
    return _read_numpy(place / T5X_LEAF, None)
  # Such a leaf, copied out of a T5X checkpoint by itself.
  if (place / ".zarray").is_file():
    store = {"driver": "file", "path": f"{place.absolute()}/"}
    return np.asarray(open_zarr(place.name, "zarr", store))
  # Both formats are folders; ours has a manifest.
  leaves = step_reader.open_step(place) if step_reader.is_step(place) else t5x.open_t5x(place)
  return np.asarray(prompt_of(leaves, where=str(path)))


def prompt_of(leaves: Any, *, where: str) -> Any:
  """The one prompt among parameters by our names: an array or StoredArray.

  Raises:
    ConfigError: there is none, or one in each stack.
  """
  # Of either stack, and with several prompts nobody knows which one is meant.
  found = [name for name in leaves if _OURS.fullmatch(name)]
  if len(found) != 1:
    raise errors.ConfigError(
      f"'{where}' holds {len(found)} soft prompts among its {len(leaves)} parameters; name a"
      " checkpoint of prompt tuning."
    )
  return leaves[found[0]]


def write_numpy(path: str | os.PathLike, prompt: Any) -> pathlib.Path:
  """Writes a prompt as a .npy file, whole or not at all.

  Args:
    path: of a new file, whose name is taken as it is: NumPy's own `save` would add an extension.
    prompt: array or StoredArray.

  Raises:
    ConfigError: there is something at `path` already.
    CannotWrite: the disk refused.
  """
  path = pathlib.Path(path)
  if path.exists():
    raise errors.ConfigError(
      f"'{path}' exists and is not overwritten; name a new file, or move this one away."
    )
  values = np.asarray(prompt)
  if values.dtype.kind == "V":  # bfloat16 is no type of NumPy's own
    values = values.astype(np.float32)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk.whole_file(path) as stream:
      np.save(stream, values, allow_pickle=False)
  except OSError as error:
    raise errors.CannotWrite(
      f"'{path}' could not be written: {error.strerror or error}. Free some space or name another"
      " file, then repeat the command."
    ) from error
  return path


def _read_numpy(path: pathlib.Path, name: str | None) -> np.ndarray:
  values = _read_any(path, name)
  if values.dtype.kind not in "fiu" and not is_float(values.dtype):
    raise errors.ConfigError(
      f"Prompt file '{path}' is of type {values.dtype}, and a prompt is of numbers; save it in float32."
    )
  return values


def _read_any(path: pathlib.Path, name: str | None) -> np.ndarray:
  # By its first bytes, because T5X's prompt-tuning gives its files no extension.
  try:
    with path.open("rb") as file:
      start = file.read(6)
  except OSError as error:
    raise errors.ConfigError(
      f"Prompt file '{path}' cannot be read: {error.strerror or error}."
    ) from None
  if start == b"\x93NUMPY":
    return npz.read_npy(path)
  # The first letters of every zip, and a .npz is one.
  if not start.startswith(b"PK"):
    raise errors.ConfigError(f"Prompt file '{path}' is not a .npy or .npz file of numbers.")
  loaded = npz.open_npz(path)
  names = list(loaded)
  if name is None and len(names) == 1:
    return np.asarray(loaded[names[0]])
  if name not in names:
    raise errors.ConfigError(
      f"Prompt file '{path}' has no array '{name}'; set FromFile.name to one of:"
      f" {', '.join(names)}."
    )
  return np.asarray(loaded[name])
