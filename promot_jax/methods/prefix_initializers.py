"""Where the first keys and values of a prefix come from.

An initializer is a value; called with a key, the backbone and the sites, it gives the keys and values
[N G P K] (float32) of each site.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax import errors
from promot_jax.methods import prefix_formats, settings
from promot_jax.methods import sites as sites_lib
from promot_jax.methods.initializers import FromFile, of_task
from promot_jax.methods.sites import Site
from promot_jax.models.kv_cache import KVCache
from promot_jax.types import Array, Float, Key

RECIPE_VALUES = ("NormalPrefix", "UniformPrefix", "FromWords", "FromArrays", "FromFile")


class PrefixInitializer(Protocol):
  """Gives keys and values [N G P K] by site.

  Raises:
    ConfigError: the values it stands for do not fit.
  """

  def __call__(
    self,
    key: Key,
    model: nnx.Module,
    sites: Mapping[str, Site],
    *,
    length: int,
    task: int = 0,
  ) -> dict[str, KVCache]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormalPrefix:
  """Independent normal values; std=0 is a prefix of zeros, which only takes weight from the rest.

  The code of Li & Liang and PEFT draw with std=1, far larger than what most networks compute.
  """

  std: float = 0.02

  def __post_init__(self):
    settings.require_numbers(self, "std", least=0)

  def __call__(self, key, model, sites, *, length, task=0):
    return _drawn(key, sites, length, lambda k, shape: self.std * jax.random.normal(k, shape))


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformPrefix:
  """Every value uniform in [lowest, highest): [0, 1) is the random start in Li & Liang, 2021."""

  lowest: float = 0.0
  highest: float = 1.0

  def __post_init__(self):
    settings.require_numbers(self, "lowest", "highest")
    if self.lowest >= self.highest:
      raise errors.ConfigError(
        f"UniformPrefix: lowest={self.lowest!r} must be below highest={self.highest!r}."
      )

  def __call__(self, key, model, sites, *, length, task=0):
    def draw(k, shape):
      return jax.random.uniform(k, shape, jnp.float32, self.lowest, self.highest)

    return _drawn(key, sites, length, draw)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromWords:
  """What the backbone itself computes when it reads a text: the low-data start of Li & Liang, 2021.

  Attributes:
    ids: token ids of the text ("summarization", or unrelated words), without end of sequence.  A
      text shorter than the prefix is read again and again until the prefix is full; the paper makes
      the prefix as long as the text.
  """

  ids: Sequence[int]

  def __call__(self, key, model, sites, *, length, task=0):
    if not 0 < len(self.ids) <= length:
      raise errors.ConfigError(
        f"A prefix of length {length} cannot start from {len(self.ids)} tokens of text; set its"
        f" length to {max(1, len(self.ids))} or more."
      )
    text = [int(token) for token in self.ids]
    found = sites_lib.activations(model, (text * length)[:length])
    return {name: found[name] for name in sites}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FromArrays:
  """Given keys and values: site -> (keys, values), each [N G P K] or, of several tasks,
  [tasks N G P K]."""

  arrays: Mapping[str, Any]

  def __call__(self, key, model, sites, *, length, task=0):
    result = {}
    for name, site in sites.items():
      if name not in self.arrays:
        raise errors.ConfigError(
          f"The given prefix has no site '{name}', only {', '.join(self.arrays) or 'none'}; set"
          " PrefixTuning.sites to what it has."
        )
      keys, values = (_given(np.asarray(a), site, length, task) for a in self.arrays[name])
      result[name] = KVCache(keys=keys, values=values)
    return result


def start(
  initializer: PrefixInitializer,
  key: Key,
  model: nnx.Module,
  sites: Mapping[str, Site],
  *,
  length: int,
  task: int,
) -> dict[str, KVCache]:
  """The first keys and values of one task, of whichever initializer.

  Raises:
    ConfigError: its values do not fit.
  """
  chosen = of_task(initializer, task)
  if isinstance(chosen, FromFile):
    stored = chosen.stored(prefix_formats.FORMATS, getattr(model, "config", None))
    found = prefix_formats.prefix_of(stored.leaves, where=os.fspath(chosen.path))
    chosen = FromArrays(
      arrays={
        name: [
          # of a bank, the tasks come first here
          np.moveaxis(array, 1, 0) if array.ndim == 5 else array
          for array in found["/".join(sites_lib.PLACES[name])]
        ]
        for name in sites
        if "/".join(sites_lib.PLACES[name]) in found
      }
    )
  return chosen(key, model, sites, length=length, task=task)


def _drawn(key, sites: Mapping[str, Site], length: int, draw) -> dict[str, KVCache]:
  result = {}
  for name, site_key in zip(sites, jax.random.split(key, len(sites))):
    keys_key, values_key = jax.random.split(site_key)
    shape = sites[name].shape(length)
    result[name] = KVCache(keys=draw(keys_key, shape), values=draw(values_key, shape))
  return result


def _given(array: np.ndarray, site: Site, length: int, task: int) -> Float[Array, "N G P K"]:
  # A task beyond the last one falls through to the sentence about shapes.
  if array.ndim == 5 and task < array.shape[0]:
    array = array[task]
  if array.shape != site.shape(length):
    raise errors.ConfigError(
      f"The given prefix of site '{site.name}' has shape {list(array.shape)}, and this backbone needs"
      f" {list(site.shape(length))} ([layers, key heads, length, head width])."
    )
  array = array.astype(np.float32)
  if not np.isfinite(array).all():
    raise errors.ConfigError(f"The given prefix of site '{site.name}' has NaN or infinite values.")
  return jnp.asarray(array)
