"""Opens one of our own steps, or an .npz file, without reading its arrays.

For import and conversion.  A run that goes on uses `Store.restore`, which checks types too.
"""

import os
import pathlib
import zipfile

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import manifest, step_files
from promot_jax.checkpoints.stored import StoredArray, open_zarr

PARAMETERS = "trainable/"
"""Prefix of the parameters among the arrays that training saves."""


def is_step(path: str | os.PathLike) -> bool:
  """Whether a path is a folder that `Store.save` wrote."""
  return (pathlib.Path(path) / manifest.FILE).is_file()


def open_step(path: str | os.PathLike) -> dict[str, StoredArray]:
  """The parameters of a step by our names: those that its stage trained.

  Raises:
    DamagedCheckpoint: a file is not as it was written.
  """
  path = pathlib.Path(path)
  problems = manifest.problems(path)
  if problems:
    raise errors.DamagedCheckpoint(
      f"'{path}' is damaged ({'; '.join(problems[:3])}); name another step."
    )
  _, table = step_files.describe(path)
  store = {"driver": "ocdbt", "base": f"file://{(path / step_files.ARRAYS).absolute()}/"}
  return {
    name.removeprefix(PARAMETERS): open_zarr(name, "zarr3", {**store, "path": f"{name}/"})
    for name in table
    if name.startswith(PARAMETERS)
  }


def open_npz(path: str | os.PathLike) -> dict[str, StoredArray]:
  """The arrays of an .npz file; nothing is ever unpickled.

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


def _member(path: str | os.PathLike, archive: zipfile.ZipFile, name: str) -> StoredArray:
  with archive.open(name) as stream:
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0
    if version != (1, 0):
      reader = np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(stream)
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
