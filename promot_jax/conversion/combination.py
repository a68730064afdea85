"""The weights that an operation makes of several checkpoints, computed array by array while they are written."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from promot_jax.checkpoints import restore
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.conversion.formats import Weights
from promot_jax.errors import ConfigError
from promot_jax.networks import combined_weights
from promot_jax.networks.operations import Combination, Parameters


def combined(
  members: Sequence[Weights], operation: Any, *, base: Weights | None = None, finite: bool = True
) -> Weights:
  """The result as weights that are read, and computed, one array after the other.

  Of each network no more than one array is in memory at a time.

  Args:
    operation: of `networks.operations`.
    base: what the members began with, for operations that need it.
    finite: refuse NaN and infinite values of the result when it is read.

  Raises:
    ConfigError: the weights are not of one architecture, or the operation is not for so many.
  """
  networks = [*([] if base is None else [base]), *members]
  combined_weights.check_base(operation, base is not None)
  operation.require(len(members))
  check_alike(networks)
  arrays = [network.backbone for network in networks]
  parameters = [_parameters(each) for each in arrays]
  on_base = parameters[0] if base is not None else None
  combination = operation.on(on_base, parameters[len(networks) - len(members) :])
  return Weights(
    leaves={name: _computed(name, array, combination, finite) for name, array in arrays[0].items()},
    config=networks[0].config,
    where=" and ".join(network.where for network in networks),
  )


def check_alike(networks: Sequence[Weights]) -> None:
  """Whether all have one architecture; no array is read.

  Raises:
    ConfigError: they have not.
  """
  first, *others = networks
  for other in others:
    kinds = [type(each.config).__name__ for each in (first, other)]
    if kinds[0] != kinds[1]:
      raise ConfigError(
        f"'{first.where}' is a {kinds[0]}, and '{other.where}' a {kinds[1]}; weights of different models"
        " cannot be combined."
      )
    restore.check_fit(first.backbone, other.backbone)


def _parameters(arrays: dict[str, StoredArray]) -> Parameters:
  return Parameters(
    shapes={name: tuple(array.shape) for name, array in arrays.items()},
    read=lambda name: jnp.asarray(np.asarray(arrays[name]), jnp.float32),
  )


def _computed(name: str, like: StoredArray, combination: Combination, finite: bool) -> StoredArray:
  def read() -> np.ndarray:
    array = np.asarray(combination(name).astype(like.dtype))
    if finite:
      restore.check_finite({name: array})
    return array

  return StoredArray(name=name, shape=tuple(like.shape), dtype=np.dtype(like.dtype), read=read)
