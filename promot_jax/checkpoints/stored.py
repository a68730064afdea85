"""Arrays of a checkpoint that are known by shape and type, and read only when somebody needs them.

Every format (T5X, Hugging Face, our own) is opened as {name: StoredArray}.  So a checkpoint of the
wrong model is refused before anything large is read, and names and layouts can be translated by
stacking such promises instead of arrays.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from promot_jax import errors

FLOAT_TYPES = {
  "float32": np.dtype(np.float32),
  "bfloat16": np.dtype(ml_dtypes.bfloat16),
  "float16": np.dtype(np.float16),
}
"""Types that parameters are exported in."""
Layers = Sequence[Any]
"""Arrays or StoredArrays of equal shapes, one for each layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredArray:
  """An array of a checkpoint: its shape and type are known, `np.asarray` reads it.

  `read` may give a read-only view of a memory-mapped file.  `layers`: the arrays that this one stacks
  along its first axis, for readers that take them one by one.
  """

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]
  layers: Layers | None = None

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    # A view where no copy is asked for, since most arrays are parts of a mapped file.
    return np.array(self.read(), dtype=dtype, copy=copy)


def is_float(dtype: Any) -> bool:
  """Whether values of a type are numbers of a network: NumPy's own kinds do not know bfloat16."""
  dtype = np.dtype(dtype)
  return dtype.kind == "f" or dtype in FLOAT_TYPES.values()


def derive(
  sources: Sequence[Any], shape: tuple[int, ...], convert: Callable[..., np.ndarray]
) -> StoredArray:
  """An array that is computed from stored ones when it is read.

  Args:
    sources: arrays or StoredArrays; the first one's name and type are the result's.
    shape: of the result.
    convert: function of the read sources.
  """
  first = sources[0]
  return StoredArray(
    name=getattr(first, "name", ""),
    shape=shape,
    dtype=np.dtype(first.dtype),
    read=lambda: convert(*[np.asarray(source) for source in sources]),
  )


class LastRead:
  """Keeps the array that was read last, for several that are cut from it one after the other."""

  def __init__(self) -> None:
    self._source: Any = None
    self._array: np.ndarray | None = None

  def __call__(self, source: Any) -> np.ndarray:
    """`source` as an array; read again only if another one was asked for since."""
    if self._array is None or self._source is not source:
      self._array = None  # before the next one comes into memory
      self._source, self._array = source, np.asarray(source)
    return self._array


def in_stored_order(leaves: Mapping[str, Any]) -> list[str]:
  """The names in an order that takes arrays of one stored array one after the other."""
  # Names of stored arrays: what was derived of one array has its name and stands together.
  return sorted(leaves, key=lambda name: getattr(leaves[name], "name", ""))


def stacked(sources: Layers) -> StoredArray:
  """Arrays of equal shapes as one with a leading axis."""
  shape = (len(sources), *sources[0].shape)
  whole = derive(sources, shape, lambda *arrays: np.stack(arrays))
  # Kept beside the stack, for a reader that must not hold all layers twice.
  return dataclasses.replace(whole, layers=tuple(sources))


def as_stored(name: str, array: Any) -> StoredArray:
  """An array that is in memory, as one that is read later; StoredArrays stay as they are."""
  if isinstance(array, StoredArray):
    return array
  return StoredArray(
    name=name,
    shape=tuple(array.shape),
    dtype=np.dtype(array.dtype),
    read=lambda: np.asarray(array),
  )


def converted(array: StoredArray, dtype: str) -> StoredArray:
  """The array in another type.

  Args:
    array: to convert when it is read.
    dtype: a name in FLOAT_TYPES.

  Raises:
    ConfigError: unknown type; when read: a value is too large for float16.
  """
  if dtype not in FLOAT_TYPES:
    raise errors.ConfigError(
      f"dtype {dtype!r} is not written; use one of {', '.join(FLOAT_TYPES)}."
    )
  wanted = FLOAT_TYPES[dtype]

  def read() -> np.ndarray:
    values = np.asarray(array)
    # What overflows is said below, with the name of the array.
    with np.errstate(over="ignore"):
      result = values.astype(wanted)
    # An infinity that was there before is the checkpoint's own, and refused or allowed elsewhere.
    if dtype == "float16" and np.isinf(result).any() and not np.isinf(values).any():
      raise errors.ConfigError(
        f"'{array.name}' has values beyond float16's largest (65504); write bfloat16 or float32."
      )
    return result

  return StoredArray(name=array.name, shape=tuple(array.shape), dtype=wanted, read=read)


def open_zarr(name: str, driver: str, store: dict, *, complete: bool = True) -> StoredArray:
  """Opens an array of TensorStore.

  Args:
    name: for messages, and of the result.
    driver: 'zarr' or 'zarr3'.
    store: TensorStore's description of where it lies.
    complete: all chunks were written, so that a missing one is damage and not zeros.

  Raises:
    DamagedCheckpoint: it cannot be opened; later, also by `read`.
  """
  import tensorstore

  spec: dict[str, Any] = {"driver": driver, "kvstore": store}
  # Otherwise left to TensorStore, which takes a missing chunk for its fill value.
  if complete:
    spec["fill_missing_data_reads"] = False
  try:
    # Opened synchronously: its metadata are read, and that is how a wrong model is known at once.
    array = tensorstore.open(spec, read=True, open=True).result()
  except ValueError as error:
    raise errors.DamagedCheckpoint(f"Array '{name}' cannot be opened: {_first(error)}") from None

  shape, dtype = tuple(array.shape), array.dtype.numpy_dtype

  def read() -> np.ndarray:
    _require_memory(name, shape, dtype)
    try:
      return np.asarray(array.read().result())
    except ValueError as error:
      raise errors.DamagedCheckpoint(f"Array '{name}' cannot be read: {_first(error)}") from None

  return StoredArray(name=name, shape=shape, dtype=dtype, read=read)


def _require_memory(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
  """TensorStore ends the process where it gets no memory, and any size can be declared."""
  needed = math.prod(shape) * dtype.itemsize
  if needed > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
    raise errors.DamagedCheckpoint(
      f"Array '{name}' declares the shape {list(shape)}, {needed} bytes, which is more than this machine"
      " has memory. Copy the checkpoint again, or use a machine with more."
    )


def _first(error: Exception) -> str:
  # Without the place in TensorStore's source, which follows in brackets.
  return str(error).split(" [", 1)[0].splitlines()[0]
