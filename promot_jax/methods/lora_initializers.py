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
from promot_jax.checkpoints import lora_files
from promot_jax.methods.linears import Place
from promot_jax.types import Array

RECIPE_VALUES = ("UniformDown", "FromFile")

Updates = dict[str, tuple[Array, Array]]


class LoRAInitializer(Protocol):
  """Gives (A, B) by the name of the place.

  Raises:
    ConfigError: the values it stands for do not fit.
  """

  def __call__(
    self,
    key: jax.Array,
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromFile:
  """Updates that another run or PEFT trained.

  Attributes:
    path: a method file, a step of a run, or an adapter of PEFT of type LORA.  Of a file of several
      tasks, each task takes its own.
  """

  path: str | os.PathLike

  def __call__(self, key, model, places, *, rank, scale, task=0):
    found = lora_files.read_lora(self.path, model.config)
    if found.rank != rank or (found.scale is not None and not math.isclose(found.scale, scale)):
      factor = scale if found.scale is None else found.scale
      raise errors.ConfigError(
        f"'{self.path}' holds updates of rank {found.rank} and factor alpha/rank {factor:g}, and the"
        f" method has rank {rank} and factor {scale:g}; set LoRA.rank={found.rank} and"
        f" LoRA.alpha={factor * found.rank:g}."
      )
    wanted = {layer for place in places.values() for layer in place.layer_names}
    if wanted != set(found.arrays):
      raise errors.ConfigError(
        f"'{self.path}' has updates of {len(found.arrays)} linear layers, {min(found.arrays)} and so"
        f" on, and LoRA.targets selects {len(wanted)}, {min(wanted)} and so on; select the same."
      )
    return {
      name: tuple(
        jnp.asarray(_given(found.arrays, place, part, task, where=os.fspath(self.path)))
        for part in (0, 1)
      )
      for name, place in places.items()
    }


def _given(arrays, place: Place, part: int, task: int, *, where: str) -> np.ndarray:
  """A (0) or B (1) of one place, with a leading axis of layers if they are scanned."""
  leaves = []
  for name in place.layer_names:
    leaf = np.asarray(arrays[name][part], np.float32)
    if leaf.ndim == 3:
      if task >= leaf.shape[0]:
        raise errors.ConfigError(
          f"'{where}' holds updates of {leaf.shape[0]} tasks and none for task number {task}; set"
          f" LoRA.tasks={leaf.shape[0]}."
        )
      leaf = leaf[task]
    if leaf.shape[part] != place.shape[part]:  # A [in, R], B [R, out]
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
