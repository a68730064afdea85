"""Fills a model with the arrays of a checkpoint, one parameter after the other, straight into shards.

Of each stored array only the parts that this host's devices hold are read, converted and copied, so
that beyond the shards no more than about one parameter is in memory at a time.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from promot_jax import errors, paths
from promot_jax.checkpoints import matching, recognition, t5x_names
from promot_jax.checkpoints.stored import Layers, StoredArray, derive, in_stored_order, is_float


def restore_into(
  model: Any,
  leaves: Mapping[str, Any],
  *,
  keep: paths.Patterns | None = None,
  ignore: paths.Patterns | None = None,
  finite: bool = False,
) -> Any:
  """The model with its parameters replaced by named arrays, converted to its types and shardings.

  Leaves may be of unrolled or scanned layers, whatever the model is.

  Args:
    model: nnx.Module or state; abstract leaves are filled.
    leaves: arrays, or StoredArrays, which are read one after the other.
    keep: patterns of parameters of the model that stay as they are.
    ignore: patterns of leaves that are not used.
    finite: whether NaN and infinite values are refused.

  Raises:
    ConfigError: names or shapes differ; the message is a table of name, expected and found.
    DamagedCheckpoint: a value is not finite.
  """
  expected = paths.named_leaves(model)
  # Before the first array is read: a wrong checkpoint is refused at once.
  wanted, found = _matched(expected, leaves, keep=keep, ignore=ignore)
  # In stored order, so that what is cut from one stored array is cut while it is in memory.
  filled = {
    name: _converted(name, found[name], wanted[name], finite) for name in in_stored_order(found)
  }
  return paths.replace_leaves(model, {**expected, **filled})


def check_restorable(model: Any, leaves: Mapping[str, Any]) -> None:
  """Raises the ConfigError that `restore_into` would raise, without reading any array."""
  _matched(paths.named_leaves(model), leaves, keep=None, ignore=None)


def check_fit(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
  """Raises ConfigError with a table of name, expected and found shapes where two sets differ."""
  rows = []
  # Of both sides: a parameter that is nowhere stored is as wrong as one that has no place.
  for name in sorted({*expected, *found}):
    sides = [
      str(list(side[name].shape)) if name in side else "nothing" for side in (expected, found)
    ]
    if sides[0] != sides[1]:
      rows.append((name, sides[0], sides[1]))
  if not rows:
    return
  # Figures of the stored parameters, since the user mostly named the wrong size.
  guess = recognition.looks_like(found)
  raise errors.ConfigError(
    f"The stored parameters do not fit the model ({len(rows)} differ){'; ' + guess if guess else ''}"
    f". Choose the configuration that they were made with:\n{matching.table(rows)}"
  )


def check_finite(leaves: Mapping[str, Any]) -> None:
  """Reads everything once, one array after the other, and refuses NaN and infinite values.

  Raises:
    DamagedCheckpoint: names the first such array.
  """
  for name, leaf in leaves.items():
    _require_finite(name, np.asarray(leaf))


def _matched(
  expected: Mapping[str, Any],
  leaves: Mapping[str, Any],
  *,
  keep: paths.Patterns | None,
  ignore: paths.Patterns | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """(leaves of the model to fill, stored arrays of the same names and shapes)."""
  kept = set(paths.match(keep, expected)) if keep is not None else set()
  wanted = {name: leaf for name, leaf in expected.items() if name not in kept}
  unused = set(paths.match(ignore, leaves)) if ignore is not None else set()
  # Stacked or unrolled as the model is, while they are still promises to read.
  found = t5x_names.to_layout_of(
    {name: leaf for name, leaf in leaves.items() if name not in unused}, wanted, derive
  )
  check_fit(wanted, found)
  for name, leaf in found.items():
    # Whole numbers would be converted without a word, and a quantized kernel would become nonsense.
    if is_float(wanted[name].dtype) and not is_float(leaf.dtype):
      raise errors.ConfigError(
        f"'{name}' is of type {leaf.dtype} in the checkpoint, and parameters have a floating-point type"
        " (quantized weights?); save the checkpoint in float32, float16 or bfloat16."
      )
  return wanted, found


def _converted(name: str, found: Any, like: Any, finite: bool) -> jax.Array:
  """The array in the type and the sharding of `like`."""
  sharding = getattr(like, "sharding", None)
  stored = found if isinstance(found, StoredArray) else np.asarray(found)
  pieces = _Pieces(stored, np.dtype(like.dtype), name if finite else None)
  if sharding is None:
    # No sharding, as of a plain array: the whole goes to the default device.
    return jax.device_put(pieces((slice(None),) * len(stored.shape)))
  # Called for each shard of this host's devices, so that no other part of the array is converted.
  return jax.make_array_from_callback(tuple(stored.shape), sharding, pieces)


class _Pieces:
  """Parts of an array, each a copy in the wanted type: views of a file must not reach a device."""

  def __init__(self, stored: Any, dtype: np.dtype, checked_as: str | None) -> None:
    self.stored, self.dtype, self.checked_as = stored, dtype, checked_as
    self.whole: np.ndarray | None = None

  def __call__(self, index: Any) -> np.ndarray:
    """`index`: a tuple of slices."""
    layers = getattr(self.stored, "layers", None)
    if layers is not None:
      piece = _stacked(layers, index, self.dtype)
    else:
      # Read once for all shards, and freed with this object.
      if self.whole is None:
        self.whole = np.asarray(self.stored)
      # Always a copy, in C order: JAX may go on using the memory that it is given.
      piece = np.array(self.whole[index], dtype=self.dtype, order="C")
    if self.checked_as is not None:
      _require_finite(self.checked_as, piece)
    return piece


def _stacked(layers: Layers, index: tuple[slice, ...], dtype: np.dtype) -> np.ndarray:
  """A part of stacked layers, read layer by layer."""
  chosen = layers[index[0]]
  # Layer by layer into one array: stacking them would hold all layers twice.
  first = np.asarray(chosen[0])[index[1:]]
  result = np.empty((len(chosen), *first.shape), dtype)
  result[0] = first
  for row, layer in enumerate(chosen[1:], 1):
    result[row] = np.asarray(layer)[index[1:]]
  return result


def _require_finite(name: str, array: np.ndarray) -> None:
  # Whole numbers are always finite, and an empty array has no extremes.
  if array.dtype.kind in "iub" or not array.size:
    return
  # Extremes instead of a mask of all values: no memory is needed, and a NaN is passed on by both.
  with np.errstate(invalid="ignore"):
    extremes = np.asarray([array.min(), array.max()], np.float32)
  if not np.isfinite(extremes).all():
    raise errors.DamagedCheckpoint(
      f"Parameter '{name}' has NaN or infinite values in the checkpoint; use another copy of it, or"
      " allow them with Network.allow_nan=True (promot convert: --allow_nan)."
    )
