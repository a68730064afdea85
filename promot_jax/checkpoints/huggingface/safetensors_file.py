"""One safetensors file: 8 bytes with the length of a JSON header, the header, the arrays' bytes.

Read without the safetensors package so that nothing is copied: each array is a read-only view of the
memory-mapped file.  Written array by array, so that a model never exists a second time in memory.
Format: https://github.com/huggingface/safetensors (README, "Format").
"""

import json
import math
import mmap
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from promot_jax import errors
from promot_jax.checkpoints.stored import StoredArray

_TYPES: dict[str, np.dtype] = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}
_AXES = 32  # more than any network has, and less than NumPy holds
_LARGEST = 2**60  # elements or bytes: beyond any file, and below what overflows
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


def open_file(path: pathlib.Path) -> dict[str, StoredArray]:
  """The arrays of a file by their names; only the header is read.

  Raises:
    ConfigError: an array has a type that jax cannot hold.
    DamagedCheckpoint: the file is cut off, or its header and its size contradict each other.
  """
  try:
    # Before anything is read: the header's length is eight bytes that anybody can have written.
    size = path.stat().st_size
    with path.open("rb") as stream:
      length = int.from_bytes(stream.read(8), "little")
      if size < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise errors.DamagedCheckpoint(
          f"'{path}' ({size} bytes) is no whole safetensors file: its header should have {length}"
          " bytes. Copy it again; a file of some hundred bytes is a pointer of git-lfs (git lfs"
          " pull)."
        )
      # Names that occur twice would be lost without a word by `json`.
      header = json.loads(stream.read(length), object_pairs_hook=_unique)
    entries = {name: _entry(entry) for name, entry in header.items() if name != "__metadata__"}
  except OSError as error:
    raise errors.DamagedCheckpoint(f"'{path}' cannot be read: {error.strerror}.") from None
  # Whatever a header of other JSON leads to in `_entry`.
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.DamagedCheckpoint(
      f"'{path}' has a header that is not of the safetensors format: {error!r}. Copy it again."
    ) from None
  except (RecursionError, MemoryError):
    raise errors.DamagedCheckpoint(
      f"'{path}' has a header that is nested too deeply, or too large, to be of the safetensors format."
      " Copy it again."
    ) from None
  start = 8 + length
  # Checked as a whole, so that no two arrays share bytes and none lies behind the end.
  _check_extent(path, entries, size - start)
  # One mapping for all arrays, which lives as long as one of them.
  bytes_of_file = _Mapping(path)
  return {name: _stored(path, name, entry, start, bytes_of_file) for name, entry in entries.items()}


def write_file(path: pathlib.Path, arrays: Mapping[str, StoredArray]) -> None:
  """Writes the arrays in their own types, reading one after the other, and forces them to the disk.

  Raises:
    ConfigError: an array has a type that the format lacks.
    OSError: the disk refuses.
  """
  codes = {dtype: code for code, dtype in _TYPES.items()}
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers insists on it
  end = 0
  for name, array in arrays.items():
    if np.dtype(array.dtype) not in codes:
      raise errors.ConfigError(
        f"Array '{name}' of type {array.dtype} cannot be written as safetensors; convert it to"
        " float32."
      )
    # Offsets are known from shapes alone, so that the header is written before any array is read.
    begin, end = end, end + math.prod(array.shape) * array.dtype.itemsize
    header[name] = {
      "dtype": codes[np.dtype(array.dtype)],
      "shape": list(array.shape),
      "data_offsets": [begin, end],
    }
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # arrays begin at a multiple of 8
  with path.open("wb") as stream:
    stream.write(len(text).to_bytes(8, "little"))
    stream.write(text)
    for array in arrays.values():
      # Read here, one after the other, and dropped before the next one.
      values = np.ascontiguousarray(array.read()).astype(array.dtype, copy=False)
      # As bytes, since a bfloat16 array gives no buffer of its own type.
      stream.write(values.reshape(-1).view(np.uint8).data)
    stream.flush()
    os.fsync(stream.fileno())


class _Mapping:
  """The bytes of a file, mapped into memory when the first array of it is read."""

  def __init__(self, path: pathlib.Path) -> None:
    self.path = path
    self._map: mmap.mmap | None = None

  def get(self) -> mmap.mmap:
    if self._map is None:
      with self.path.open("rb") as stream:
        self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return self._map


def _entry(entry: Any) -> tuple[str, tuple[int, ...], int, int]:
  """(type, shape, begin, end) of an entry of the header.  Raises ValueError and its like."""
  begin, end = entry["data_offsets"]
  shape = tuple(entry["shape"])
  # `type` instead of `isinstance`: true is an int in Python and no number of bytes here.
  if not all(type(number) is int and 0 <= number <= _LARGEST for number in (begin, end, *shape)):
    raise ValueError("a size or an offset that is no number of bytes")
  # Empty axes left out, for their zero would hide the size of the others.
  if begin > end or len(shape) > _AXES or math.prod(size or 1 for size in shape) > _LARGEST:
    raise ValueError(f"offsets {begin} to {end} of {len(shape)} axes")
  return str(entry["dtype"]), shape, begin, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """An object of the header, whose names must differ.  Raises ValueError."""
  found = dict(pairs)
  if len(found) != len(pairs):
    raise ValueError("a name that occurs twice")
  return found


def _check_extent(path: pathlib.Path, entries: Mapping[str, tuple], present: int) -> None:
  """Raises DamagedCheckpoint unless the arrays' bytes are exactly what the file has, once each."""
  needed = max((end for *_, end in entries.values()), default=0)
  if needed != present:
    raise errors.DamagedCheckpoint(
      f"'{path}' is {'cut off' if present < needed else 'too long'}: its arrays need {needed} bytes"
      f" and it has {present}. Copy it again."
    )
  reached, last = 0, "the header"
  # In the order of the bytes, in which neighbours must touch.
  for begin, end, name in sorted((begin, end, name) for name, (*_, begin, end) in entries.items()):
    if begin != reached:
      what = "overlap" if begin < reached else "have a gap between them"
      raise errors.DamagedCheckpoint(
        f"'{path}' says that the bytes of {last} and '{name}' {what}, which the safetensors format does"
        " not allow. Copy it again."
      )
    reached, last = end, f"'{name}'"


def _stored(
  path: pathlib.Path,
  name: str,
  entry: tuple[str, tuple[int, ...], int, int],
  start: int,
  bytes_of_file: _Mapping,
) -> StoredArray:
  code, shape, begin, end = entry
  dtype = _TYPES.get(code)
  if dtype is None:
    raise errors.ConfigError(
      f"Array '{name}' in '{path}' has type {code}, which is not read (quantized weights?); save the"
      " model in float32, float16 or bfloat16."
    )
  count = math.prod(shape)
  # Checked here and not when it is read: another shape would be read from the next array.
  if count * dtype.itemsize != end - begin:
    raise errors.DamagedCheckpoint(
      f"'{path}': array '{name}' of type {code} and shape {list(shape)} cannot have"
      f" {end - begin} bytes."
    )

  def read() -> np.ndarray:
    # A mapping has no part of length 0.
    if not count:
      return np.empty(shape, dtype)
    try:
      return np.frombuffer(bytes_of_file.get(), dtype, count, start + begin).reshape(shape)
    except (OSError, ValueError) as error:  # it was whole when it was opened
      raise errors.DamagedCheckpoint(
        f"'{path}' was changed while it was read: '{name}' cannot be read ({error}). Copy it again."
      ) from None

  return StoredArray(name=name, shape=shape, dtype=dtype, read=read)
