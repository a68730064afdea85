"""What an example holds beside its input and target, by name: kinds of features, their arrays and rows.

A task declares each feature's kind once: how many dimensions an example's array has, its type, what fills
the ends of shorter ones, and to which lengths.  Ids, further targets or answers, passages [n L], the two
answers of a preference, a teacher's distributions [T k] then go the same way from task to device, and no
file between knows their names.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from promot_jax import errors

OWN = ("inputs", "targets", "prompt_ids")
"""Features of every example; they have rules of their own (`batches`)."""

_TAKEN = (*OWN, "answers", "problem", "demonstrations")
"""Names that a declared feature cannot have: those of what else is read of an example."""
# No id, no class and no count is as small.
_ABSENT = np.iinfo(np.int32).min
"""In an example's array: no entry, behind the end of a row that is shorter than another one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
  """The kind of a feature.

  rank: dimensions of one example's array: 0 a number, 1 a list, 2 lists in rows.
  dtype: of the array.
  pad: fills up shorter ones.
  buckets: padded lengths of the last dimension, ascending; a batch takes the first that holds it.
    Empty: one length, that of the longest example, so that there is one shape to compile.
  """

  rank: Literal[0, 1, 2] = 1
  dtype: str = "int32"
  pad: float = 0
  buckets: tuple[int, ...] = ()

  def array(self, name: str, value: Any) -> np.ndarray:
    """One example's array; rows of whole numbers may have different lengths.

    Raises:
      DataError: it has another number of dimensions, or does not fit the type.
    """
    try:
      # Rows of ids have different lengths, which NumPy would refuse.
      found = _rectangle(value) if self.rank == 2 else np.asarray(value)
    except ValueError:  # numpy's, of lists that are no array
      raise errors.DataError(
        f"feature '{name}' of an example has rows of different lengths; it was declared with"
        f" {self.rank} dimensions of {self.dtype}."
      ) from None
    if found.ndim != self.rank:
      raise errors.DataError(
        f"feature '{name}' of an example has {found.ndim} dimensions; it was declared with {self.rank}."
      )
    if found.dtype.kind not in "biuf":
      raise errors.DataError(f"feature '{name}' of an example holds no numbers ({found.dtype}).")
    # After the look at its kind: a text would become a number here, if it can.
    made = found.astype(self.dtype)
    # A fraction or a number beyond int32 would be changed without a word.
    if self.dtype.startswith("int") and not np.array_equal(made, found):
      raise errors.DataError(f"feature '{name}' of an example does not fit {self.dtype}.")
    return made

  def entries(self, array: np.ndarray) -> Any:
    """An example's array as it was made: rows of different lengths are a list again."""
    if self.rank == 2 and (array == _ABSENT).any():
      return [row[row != _ABSENT] for row in array]
    return array

  def extents(self, arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
    """The largest of each dimension, at least 1."""
    if not self.rank:
      return ()
    # 1: an axis of length 0 has no shape that could be compiled for.
    return tuple(max(1, *(array.shape[axis] for array in arrays)) for axis in range(self.rank))

  def padded(
    self, name: str, arrays: Sequence[np.ndarray], largest: tuple[int, ...]
  ) -> dict[str, np.ndarray]:
    """The rows of a batch: NAME [B ...], and NAME_mask, True where an example has a value.

    Args:
      arrays: of the batch's examples.
      largest: `extents` of all examples.

    Raises:
      ConfigError: the last bucket is too short.
    """
    if not self.rank:
      return {name: np.asarray(arrays, self.dtype)}
    shape = largest
    # The last dimension alone has buckets, since each further one would multiply the compilations.
    if self.buckets:
      longest = max(array.shape[-1] for array in arrays)
      room = next((length for length in self.buckets if length >= longest), None)
      if room is None:
        raise errors.ConfigError(
          f"an example's feature '{name}' has {longest} entries, and its longest bucket is"
          f" {self.buckets[-1]}; declare a longer one."
        )
      shape = (*largest[:-1], room)
    rows = np.full((len(arrays), *shape), self.pad, self.dtype)
    mask = np.zeros((len(arrays), *shape), bool)
    for row, array in enumerate(arrays):
      place = (row, *(slice(0, size) for size in array.shape))
      mask[place] = array != _ABSENT
      # Absent entries become padding here, and not before, so that nothing is trained on the mark.
      rows[place] = np.where(mask[place], array, self.pad)
    return {name: rows, f"{name}_mask": mask}


def require_name(name: str, *, owner: str) -> None:
  """Raises ConfigError if a feature has the name of something else in an example or a batch."""
  # A batch has arrays of its own under such names, and an example further fields.
  if name in _TAKEN or name.startswith(("encoder_", "decoder_")) or not name.isidentifier():
    raise errors.ConfigError(
      f"{owner} declares a feature {name!r}; its name is letters, digits and '_', does not begin with"
      f" encoder_ or decoder_, and is none of {', '.join(_TAKEN)}."
    )


def declared(task: Any) -> dict[str, Feature]:
  """The kinds of what a seqio task's output features declare beside inputs and targets.

  Those of our own tasks say their `kind` themselves.

  Raises:
    ConfigError: a feature has more than two dimensions, or the name of one of a batch's arrays.
  """
  found = {}
  for name, feature in task.output_features.items():
    if name in OWN:
      continue
    if (kind := getattr(feature, "kind", None)) is not None:
      found[name] = kind
      continue
    rank = int(getattr(feature, "rank", 1))
    if rank > 2 or name.startswith(("encoder_", "decoder_")):
      raise errors.ConfigError(
        f"task '{task.name}' declares feature '{name}' with {rank} dimensions; there may be two at most,"
        " and names that begin with encoder_ or decoder_ are those of a batch."
      )
    dtype = np.dtype(feature.dtype.as_numpy_dtype)
    whole = dtype.kind in "biu"
    found[name] = Feature(
      rank=rank,  # type: ignore[arg-type]
      dtype="int32" if whole else "float32",
      pad=feature.vocabulary.pad_id if whole else 0,
    )
  return found


def _rectangle(value: Any) -> np.ndarray:
  """Lists in rows as an array; shorter rows of whole numbers are filled up with `_ABSENT`."""
  if not isinstance(value, Sequence):
    return np.asarray(value)
  rows = [np.asarray(row) for row in value]
  # Only lists of whole numbers have an absent entry; anything else is NumPy's to judge.
  if any(row.ndim != 1 or (row.size and row.dtype.kind not in "bi") for row in rows):
    return np.asarray(value)
  made = np.full((len(rows), max((row.size for row in rows), default=0)), _ABSENT, np.int64)
  for place, row in enumerate(rows):
    made[place, : row.size] = row
  return made


def pack(arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of one kind as two: all values in a row, and the shape of each [N rank]."""
  # Two arrays in place of thousands, for a file with few members.
  shapes = np.array([array.shape for array in arrays], np.int64).reshape(len(arrays), -1)
  return {"values": np.concatenate([array.ravel() for array in arrays]), "shapes": shapes}


def unpack(values: np.ndarray, shapes: np.ndarray) -> list[np.ndarray]:
  """The inverse of `pack`."""
  # Of an empty shape the product is 1: a number.
  sizes = np.prod(shapes, axis=1, dtype=np.int64)
  parts = np.split(values, np.cumsum(sizes)[:-1])
  return [part.reshape(tuple(shape)) for part, shape in zip(parts, shapes, strict=True)]


def to_json(kinds: Mapping[str, Feature]) -> dict[str, Any]:
  """Kinds as a cached split records them."""
  return {name: dataclasses.asdict(kind) for name, kind in kinds.items()}


def of_json(found: Mapping[str, Any]) -> dict[str, Feature]:
  """The inverse of `to_json`."""
  return {
    name: Feature(**{**kind, "buckets": tuple(kind["buckets"])}) for name, kind in found.items()
  }
