"""Where the first values of low-rank updates come from.

An initializer is a value; called with a key and the places, it gives (A [in, R], B [R, out]) in
float32 of each place, with a leading axis of layers where these are scanned.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax import errors
from promot_jax.methods import lora_formats
from promot_jax.methods.initializers import FromFile, of_task
from promot_jax.methods.linears import Place
from promot_jax.methods.lora_formats import Update
from promot_jax.types import Array, Key

RECIPE_VALUES = ("UniformDown", "FromFile")

Updates = dict[str, tuple[Array, Array]]


class LoRAInitializer(Protocol):
  """Gives (A, B) by the name of the place.

  Raises:
    ConfigError: the values it stands for do not fit.
  """

  def __call__(
    self,
    key: Key,
    model: nnx.Module,
    places: Mapping[str, Place],
    *,
    rank: int,
    scale: float,
    task: int = 0,
  ) -> Updates: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformDown:
  """A uniform in +-1/sqrt(in), B zero: no update at the start."""

  def __call__(self, key, model, places, *, rank, scale, task=0):
    result = {}
    for name, place in places.items():
      features_in, features_out = place.shape
      bound = features_in**-0.5

      def draw(own_key, features_in=features_in, bound=bound):
        return jax.random.uniform(own_key, (features_in, rank), jnp.float32, -bound, bound)

      down = place.draw(key, draw)
      result[name] = down, jnp.zeros((*down.shape[:-2], rank, features_out), jnp.float32)
    return result


def start(
  initializer: LoRAInitializer,
  key: Key,
  model: nnx.Module,
  places: Mapping[str, Place],
  *,
  rank: int,
  scale: float,
  task: int,
  decomposed: bool,
) -> dict[str, Update]:
  """The first updates of one task, of whichever initializer; with magnitudes where a file has them.

  Raises:
    ConfigError: its values do not fit.
  """
  chosen = of_task(initializer, task)
  # A file is asked here, as only LoRA knows in which formats its updates may lie.
  if not isinstance(chosen, FromFile):
    drawn = chosen(key, model, places, rank=rank, scale=scale, task=task)
    return {name: Update(*factors) for name, factors in drawn.items()}
  found = chosen.stored(lora_formats.FORMATS, model.config)
  where = os.fspath(chosen.path)
  arrays = lora_formats.updates_of(found.leaves, where=where)
  _check_fits(arrays, found.settings, places, rank=rank, scale=scale, where=where)
  fields = [field for field in Update._fields if _has(arrays, field)]
  if "magnitude" in fields and not decomposed:
    raise errors.ConfigError(
      f"'{where}' holds magnitudes beside its updates (DoRA), which plain updates have not; set"
      " LoRA.decomposed=True."
    )

  def update_of(place: Place) -> Update:
    given = {field: _given(arrays, place, field, task, where=where) for field in fields}
    return Update(**{field: jnp.asarray(leaf) for field, leaf in given.items()})

  return {name: update_of(place) for name, place in places.items()}


def _has(arrays: Mapping[str, Update], field: str) -> bool:
  """Whether a file's updates have a part; one layer stands for all."""
  return getattr(next(iter(arrays.values())), field) is not None


def _check_fits(
  arrays: Mapping[str, Update],
  settings: Mapping[str, object],
  places: Mapping[str, Place],
  *,
  rank: int,
  scale: float,
  where: str,
) -> None:
  # One layer stands for all: a method has one rank.
  theirs, factor = next(iter(arrays.values())).down.shape[-1], lora_formats.scale_of(settings)
  # The same A and B under another factor are another update, with no sign of it but worse scores.
  if theirs != rank or (factor is not None and not math.isclose(factor, scale)):
    factor = scale if factor is None else factor
    raise errors.ConfigError(
      f"'{where}' holds updates of rank {theirs} and factor alpha/rank {factor:g}, and the"
      f" method has rank {rank} and factor {scale:g}; set LoRA.rank={theirs} and"
      f" LoRA.alpha={factor * theirs:g}."
    )
  wanted = {layer for place in places.values() for layer in place.layer_names}
  # All of them and no others: updates of layers that are left out would silently be lost.
  if wanted != set(arrays):
    raise errors.ConfigError(
      f"'{where}' has updates of {len(arrays)} linear layers, {min(arrays)} and so"
      f" on, and LoRA.targets selects {len(wanted)}, {min(wanted)} and so on; select the same."
    )


def _given(
  arrays: Mapping[str, Update], place: Place, field: str, task: int, *, where: str
) -> np.ndarray:
  """One part of the update of a place, with a leading axis of layers if they are scanned."""
  side = 0 if field == "down" else -1  # A [in, R], B [R, out], m [out]
  leaves = []
  for name in place.layer_names:
    # Of a bank the task's own; a single update starts every task.
    leaf = np.asarray(getattr(arrays[name], field), np.float32)
    if leaf.ndim == 3:
      if task >= leaf.shape[0]:
        raise errors.ConfigError(
          f"'{where}' holds updates of {leaf.shape[0]} tasks and none for task number {task}; set"
          f" LoRA.tasks={leaf.shape[0]}."
        )
      leaf = leaf[task]
    if leaf.shape[side] != place.shape[side]:
      raise errors.ConfigError(
        f"'{where}' has an update of shape {list(leaf.shape)} for '{name}', whose shape is"
        f" {list(place.shape)}; take the file that belongs to this model."
      )
    if not np.isfinite(leaf).all():
      raise errors.ConfigError(
        f"'{where}' has an update of '{name}' with values that are NaN or infinite; take an earlier"
        " checkpoint."
      )
    leaves.append(leaf)
  return np.stack(leaves) if place.layer is None else leaves[0]
