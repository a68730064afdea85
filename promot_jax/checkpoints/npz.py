"""Parameters in one .npz file: opened array by array, written array by array, never unpickled."""

import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import disk
from promot_jax.checkpoints.stored import StoredArray

_AXES = 32  # more than any network has, and less than NumPy holds
_MOST_COMPRESSED = 1100  # times; deflate reaches 1032


def open_npz(path: str | os.PathLike) -> dict[str, StoredArray]:
  """The arrays of a file by their names; only their headers are read.

  Raises:
    ConfigError: it has an array of Python objects.
    DamagedCheckpoint: it is no whole .npz file.
  """
  try:
    # A .npz is a zip of .npy files, whose headers tell shape and type before the values.
    with zipfile.ZipFile(path) as archive:
      return {
        info.filename.removesuffix(".npy"): _member(path, archive, info)
        for info in archive.infolist()
      }
  except errors.PromotError:
    raise
  except Exception as error:  # whatever zipfile and NumPy raise at bytes that are no header
    raise errors.DamagedCheckpoint(
      f"'{path}' is no whole .npz file: {_why(error)}. Copy it again."
    ) from None


def read_npy(path: str | os.PathLike) -> np.ndarray:
  """The array of one .npy file, which must hold the bytes that it declares.

  Raises:
    ConfigError: it is of Python objects, or needs more memory than there is.
    DamagedCheckpoint: it is no whole .npy file.
    OSError: it cannot be opened.
  """
  with pathlib.Path(path).open("rb") as stream:
    try:
      shape, dtype = _header(stream)
      begin = stream.tell()
    except Exception as error:  # whatever NumPy raises at bytes that are no header
      raise errors.DamagedCheckpoint(
        f"'{path}' is no whole .npy file: {_why(error)}. Copy it again."
      ) from None
    # Before NumPy takes the memory: a header of a hundred bytes may declare terabytes.
    _check(f"'{path}'", shape, dtype, os.fstat(stream.fileno()).st_size - begin)
    stream.seek(0)
    try:
      return np.load(stream, allow_pickle=False)
    except MemoryError:
      raise _too_large(f"'{path}'", shape, dtype) from None
    except Exception as error:
      raise errors.DamagedCheckpoint(f"'{path}' cannot be read: {_why(error)}.") from None


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
  # All types first: the file shall not break off in its middle.
  for name, array in arrays.items():
    # Such as bfloat16, of which a .npy header would say two bytes without a meaning.
    if np.dtype(array.dtype).kind == "V":
      raise errors.ConfigError(
        f"'{name}' is {array.dtype}, which .npz files cannot hold; write them with --dtype=float32."
      )
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk.whole_file(path) as stream, zipfile.ZipFile(stream, "w") as archive:
      for name, array in arrays.items():
        # A stream does not say its size beforehand, and a table may have more than 2 GiB.
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
          np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
  except OSError as error:
    raise errors.CannotWrite(
      f"'{path}' could not be written: {error.strerror or error}. Free some space or name another"
      " file, then repeat the command."
    ) from error
  return path


def _member(
  path: str | os.PathLike, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> StoredArray:
  name = info.filename
  with archive.open(info) as stream:
    shape, dtype = _header(stream)
    begin = stream.tell()
  _check(f"'{path}': '{name}'", shape, dtype, info.file_size - begin)
  most = 1 if info.compress_type == zipfile.ZIP_STORED else _MOST_COMPRESSED
  if info.file_size > info.compress_size * most:
    raise errors.DamagedCheckpoint(
      f"'{path}' says that '{name}' has {info.file_size} bytes, which {info.compress_size} compressed"
      " ones cannot hold. Copy it again."
    )
  key = name.removesuffix(".npy")

  def read() -> np.ndarray:
    # Opened anew for each array, so that no handle is kept for what may never be read.
    try:
      with zipfile.ZipFile(path) as again, again.open(name) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
    except MemoryError:
      raise _too_large(f"'{path}': '{key}'", shape, dtype) from None
    except Exception as error:
      raise errors.DamagedCheckpoint(f"'{path}': '{key}' cannot be read: {_why(error)}.") from None

  return StoredArray(name=key, shape=shape, dtype=dtype, read=read)


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype]:
  """Shape and type, from the beginning of a .npy file."""
  version = np.lib.format.read_magic(stream)
  # The two versions of a header differ in the width of its length.
  read_header = np.lib.format.read_array_header_1_0
  if version != (1, 0):
    read_header = np.lib.format.read_array_header_2_0
  shape, _, dtype = read_header(stream)
  return shape, dtype


def _check(what: str, shape: tuple[int, ...], dtype: np.dtype, present: int) -> None:
  """Compares what a header declares with the bytes that are there, before memory is taken for it."""
  if dtype.hasobject:
    raise errors.ConfigError(
      f"{what} holds Python objects, which are never read because reading them runs code; save the"
      " numbers themselves, as an array of float32."
    )
  needed = math.prod(shape) * dtype.itemsize
  if min(shape, default=0) < 0 or len(shape) > _AXES or needed != present:
    raise errors.DamagedCheckpoint(
      f"{what} declares an array of type {dtype} and shape {list(shape)[:_AXES]}, which needs {needed}"
      f" bytes, and it has {present}. Copy it again."
    )


def _too_large(what: str, shape: tuple[int, ...], dtype: np.dtype) -> errors.PromotError:
  return errors.ConfigError(
    f"{what} is an array of type {dtype} and shape {list(shape)}, for which there is not enough memory;"
    " use a machine with more."
  )


def _why(error: Exception) -> str:
  lines = str(error).splitlines()
  return lines[0] if lines else type(error).__name__
