"""Parameters in one .npz file: opened array by array, written array by array, never unpickled."""

import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import disk
from promot_jax.checkpoints.stored import StoredArray


def open_npz(path: str | os.PathLike) -> dict[str, StoredArray]:
  """The arrays of a file by their names; only their headers are read.

  Raises:
    ConfigError: it has an array of Python objects.
    DamagedCheckpoint: it is no whole .npz file.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      return {
        name.removesuffix(".npy"): _member(path, archive, name) for name in archive.namelist()
      }
  except (OSError, ValueError, zipfile.BadZipFile) as error:
    raise errors.DamagedCheckpoint(f"'{path}' is no whole .npz file: {error}.") from None


def write_npz(path: str | os.PathLike, arrays: Mapping[str, StoredArray]) -> pathlib.Path:
  """Writes a new file, whole or not at all, with one array in memory at a time.

  Raises:
    ConfigError: there is something at `path`, or an array has a type that NumPy lacks.
    CannotWrite: the disk refused.
  """
  path = pathlib.Path(path)
  if path.exists():
    raise errors.ConfigError(
      f"'{path}' exists and is not overwritten; name a new file, or move this one away."
    )
  for name, array in arrays.items():
    if np.dtype(array.dtype).kind == "V":
      raise errors.ConfigError(
        f"'{name}' is {array.dtype}, which .npz files cannot hold; write them with --dtype=float32."
      )
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk.whole_file(path) as stream, zipfile.ZipFile(stream, "w") as archive:
      for name, array in arrays.items():
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
          np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
  except OSError as error:
    raise errors.CannotWrite(
      f"'{path}' could not be written: {error.strerror or error}. Free some space or name another"
      " file, then repeat the command."
    ) from error
  return path


def _member(path: str | os.PathLike, archive: zipfile.ZipFile, name: str) -> StoredArray:
  with archive.open(name) as stream:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0
    if version != (1, 0):
      read_header = np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
  if dtype.hasobject:
    raise errors.ConfigError(f"'{path}' has Python objects in '{name}', which are not read.")
  key = name.removesuffix(".npy")

  def read() -> np.ndarray:
    try:
      with np.load(path, allow_pickle=False) as arrays:
        return arrays[key]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
      raise errors.DamagedCheckpoint(f"'{path}': '{key}' cannot be read: {error}.") from None

  return StoredArray(name=key, shape=shape, dtype=dtype, read=read)
