"""Between their tensors and our parameters, by the table of a family, in both directions.

Nothing is read here: the results are promises to read (`StoredArray`), made of views of the stored
arrays, so that a model is imported and exported tensor by tensor.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import matching, recognition
from promot_jax.checkpoints.huggingface.families import Family, Pair
from promot_jax.checkpoints.stored import StoredArray, derive, is_float

_BUFFERS = (r"(.*\.)?position_ids", r"(.*\.)?rotary_emb\.inv_freq", r"(.*\.)?num_batches_tracked")
"""Tensors that a network computes again by itself, in files of old versions of any family."""
VOCABULARY_MULTIPLE = 128
"""Vocabularies are padded to a multiple of this; a shorter table is filled up to it on import."""


def to_ours(
  tensors: Mapping[str, StoredArray], family: Family, pairs: Sequence[Pair], *, vocabulary: int
) -> dict[str, StoredArray]:
  """Our parameters, layers unrolled, of their tensors.

  Args:
    tensors: as in the file.
    family: tells the names' prefix, and what carries nothing.
    pairs: the table of the model's configuration.
    vocabulary: rows that the model has; a stored table that ends less than VOCABULARY_MULTIPLE rows
      before is filled up, any other length stays as it is (and will not fit).

  Raises:
    ConfigError: tensors are missing or left over, and the message has a table of them; or one holds
      whole numbers.
  """
  # Each pair takes its tensors out; what is left at the end has no place, which is an error, too.
  left = _without_ignored(tensors, family)
  # Before the table is gone through, so that aliases are found under either form of the name.
  left = _with_prefix(left, family, pairs)
  result: dict[str, StoredArray] = {}
  missing = []
  for pair in pairs:
    stored = _take(left, pair)
    # BART's bias of the logits, which files of the bare network leave out.
    if stored is None and pair.zeros is not None:
      result[pair.our_names[0]] = _zeros(pair.our_names[0], pair.zeros)
      continue
    if stored is None:
      missing.append(pair.theirs)
      continue
    if not is_float(stored.dtype):
      raise errors.ConfigError(
        f"Tensor '{stored.name}' of this {family.name} is of type {stored.dtype}, and weights have a"
        " floating-point type: quantized ones are not read, so save the model in float32, float16 or"
        " bfloat16 (in transformers model.dequantize(), then save_pretrained)."
      )
    result.update(_import(pair, stored, vocabulary))
  if missing or left:
    rows = [(name, "a tensor", "nothing") for name in missing]
    rows += [(name, "nothing", matching.text(array)) for name, array in sorted(left.items())]
    # Of those that were found: a model of another size has the right names and wrong shapes.
    guess = recognition.looks_like(result)
    raise errors.ConfigError(
      f"The stored tensors are not those of this {family.name}: {len(missing)} are missing and"
      f" {len(left)} have no place{'; ' + guess if guess else ''}. Take weights and config.json from"
      f" the same place, and all files of it:\n{matching.table(rows)}"
    )
  return result


def to_theirs(
  leaves: Mapping[str, StoredArray], pairs: Sequence[Pair], *, vocabulary: int | None = None
) -> dict[str, StoredArray]:
  """Their tensors of our parameters (unrolled), in the order of the table.

  Args:
    leaves: every name in the table, and no other.
    pairs: the table.
    vocabulary: rows that are written of tables with one row for each token; None: all.

  Raises:
    ConfigError: names are missing or left over; the message has a table of them.
  """
  # Both ways, before anything is written: a parameter that is left out would be lost without a
  # word.
  wanted = {name for pair in pairs for name in pair.our_names}
  rows = [(name, "an array", "nothing") for name in sorted(wanted - set(leaves))]
  rows += [(name, "nothing", matching.text(leaves[name])) for name in sorted(set(leaves) - wanted)]
  if rows:
    raise errors.ConfigError(
      f"The parameters are not those of the backbone's configuration ({len(rows)} differ); give the"
      f" configuration that they were made with, and leave a method's parameters out.\n"
      f"{matching.table(rows)}"
    )
  return {
    name: _export(pair, [leaves[ours] for ours in pair.our_names], vocabulary)
    for pair in pairs
    # Copies too: transformers 4 draws a head at random that is tied, unscaled and not stored.
    for name in (pair.theirs, *pair.copies)
  }


def _without_ignored(tensors: Mapping[str, StoredArray], family: Family) -> dict[str, StoredArray]:
  patterns = [re.compile(pattern) for pattern in (*family.ignored, *_BUFFERS)]
  return {
    name: array
    for name, array in tensors.items()
    if not any(pattern.fullmatch(name) for pattern in patterns)
  }


def _with_prefix(
  tensors: dict[str, StoredArray], family: Family, pairs: Sequence[Pair]
) -> dict[str, StoredArray]:
  """Names of a bare network's file as they are inside of the model with a head."""
  prefix = family.base_prefix
  # Any name with the prefix settles it: the file is of the model with a head.
  if not prefix or any(name.startswith(prefix) for name in tensors):
    return tensors
  # A head's own tensors stand outside of the bare network and have no prefix.
  known = {name for pair in pairs for name in (pair.theirs, *pair.aliases)}
  return {name if name in known else prefix + name: array for name, array in tensors.items()}


def _take(left: dict[str, StoredArray], pair: Pair) -> StoredArray | None:
  """Removes a tensor and its aliases from `left`; None where none is there."""
  # All names are taken out, or the second one would be left over without a place.
  found = [left.pop(name) for name in (pair.theirs, *pair.aliases) if name in left]
  if len(found) < 2:
    return found[0] if found else None
  first, *others = found

  # When they are read, for nothing is read here.
  def compared(*arrays: np.ndarray) -> np.ndarray:
    for other, array in zip(others, arrays[1:]):
      if not np.array_equal(arrays[0], array):
        raise errors.ConfigError(
          f"Tensors '{first.name}' and '{other.name}' must be equal, since the network has one table"
          " for both, and they differ: this checkpoint is of another architecture."
        )
    return arrays[0]

  different = [other for other in others if other.shape != first.shape]
  if different:
    raise errors.ConfigError(
      f"Tensors '{first.name}' {list(first.shape)} and '{different[0].name}'"
      f" {list(different[0].shape)} must be equal, since the network has one table for both."
    )
  return derive(found, first.shape, compared)


def _zeros(name: str, shape: tuple[int, ...]) -> StoredArray:
  dtype = np.dtype(np.float32)
  return StoredArray(name=name, shape=shape, dtype=dtype, read=lambda: np.zeros(shape, dtype))


def _import(pair: Pair, stored: StoredArray, vocabulary: int) -> dict[str, StoredArray]:
  shape = stored.shape
  if pair.squeeze:
    # Only where it is there: files of either form exist.
    shape = shape[1:] if shape[:1] == (1,) else shape
  if pair.transpose:
    shape = shape[::-1]
  squeezed = shape

  def turned(array: np.ndarray) -> np.ndarray:
    # The stored array may have the leading axis; its values are the same without it.
    array = array.reshape(squeezed[::-1] if pair.transpose else squeezed)
    return array.T if pair.transpose else array

  if len(pair.our_names) > 1:
    return _cut(pair, stored, shape, turned)
  # Padding is always less than the multiple; a longer gap is another vocabulary.
  if pair.vocab_axis is not None and 0 < vocabulary - shape[pair.vocab_axis] < VOCABULARY_MULTIPLE:
    axis, extra = pair.vocab_axis, vocabulary - shape[pair.vocab_axis]
    longer = tuple(size + extra * (i == axis) for i, size in enumerate(shape))
    return {
      pair.our_names[0]: derive(
        [stored], longer, lambda array: _filled(turned(array), axis, extra, pair.vocab_fill)
      )
    }
  return {pair.our_names[0]: derive([stored], shape, turned)}


def _cut(pair: Pair, stored: StoredArray, shape: tuple[int, ...], turned) -> dict[str, StoredArray]:
  """The parts of a fused tensor; an equal share each where their lengths do not add up."""
  # Nothing to cut: the shapes in the table of differences will say so.
  if not shape:
    return {name: derive([stored], shape, turned) for name in pair.our_names}
  axis = pair.axis % len(shape)
  count, length = len(pair.our_names), shape[axis]
  sizes = list(pair.sizes) if pair.sizes is not None else [length // count] * count
  if sum(sizes) != length:  # of another model: give what shows the stored length in a table
    sizes = [length // count] * (count - 1) + [length - length // count * (count - 1)]
  result, start = {}, 0
  for name, size in zip(pair.our_names, sizes):
    # Views: nothing is copied until a part reaches its device.
    index = (slice(None),) * axis + (slice(start, start + size),)
    part = (*shape[:axis], size, *shape[axis + 1 :])
    result[name] = derive([stored], part, lambda array, index=index: turned(array)[index])
    start += size
  return result


def _filled(array: np.ndarray, axis: int, extra: int, fill: float | None) -> np.ndarray:
  shape = tuple(extra if i == axis else size for i, size in enumerate(array.shape))
  if fill is None:
    # In float32: a mean of thousands of bfloat16 rows would lose most of its digits.
    rows = np.mean(array, axis=axis, keepdims=True, dtype=np.float32).astype(array.dtype)
  else:
    rows = np.asarray(fill, array.dtype)
  return np.concatenate([array, np.broadcast_to(rows, shape)], axis=axis)


def _export(pair: Pair, leaves: Sequence[StoredArray], vocabulary: int | None) -> StoredArray:
  shape = tuple(leaves[0].shape)
  if len(leaves) > 1:
    axis = pair.axis % len(shape)
    total = sum(leaf.shape[axis] for leaf in leaves)
    shape = (*shape[:axis], total, *shape[axis + 1 :])
  if pair.vocab_axis is not None and vocabulary is not None:
    # A table may be shorter than what is to be written of it.
    shape = tuple(
      min(vocabulary, size) if i == pair.vocab_axis else size for i, size in enumerate(shape)
    )
  kept = tuple(slice(0, size) for size in shape)
  if pair.transpose:
    shape = shape[::-1]
  if pair.squeeze:
    shape = (1, *shape)

  def convert(*arrays: np.ndarray) -> np.ndarray:
    array = np.concatenate(arrays, axis=pair.axis) if len(arrays) > 1 else arrays[0]
    # Cut before it is turned: the kept part is counted in our axes.
    array = array[kept]
    return (array.T if pair.transpose else array).reshape(shape)

  return derive(leaves, shape, convert)
