"""The only file that knows Orbax: a flat dict of named arrays to and from one directory.

Orbax 0.12.8 through its long-lived interface (`Checkpointer` with a pytree handler).  It gives the
array format, sharded reads and parallel input and output; what it lacks (checksums, a sure sign of
completeness, comparison of whole trees, short errors) is added by `store.py` and `manifest.py`.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from promot_jax import partitioning


def write(directory: pathlib.Path, leaves: Mapping[str, Any]) -> None:
  """Writes arrays (numpy or jax, any sharding) to a directory that does not exist yet."""
  # Not at the top: importing it takes most of a second, and most commands read no array.
  import orbax.checkpoint as ocp

  with _checkpointer() as checkpointer:
    checkpointer.save(str(directory.absolute()), args=ocp.args.PyTreeSave(dict(leaves)))


def read(directory: pathlib.Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
  """Reads the named arrays.

  Args:
    directory: what `write` made.
    wanted: for each name a value with shape and dtype; where it also has a sharding, the result is
      a jax.Array laid out so (each device reads only its part), else a numpy array.
  """
  import orbax.checkpoint as ocp

  arguments = {name: _restore_argument(ocp, value) for name, value in wanted.items()}
  # A partial restore takes from this tree which names are wanted.
  item = {
    name: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=_sharding(value))
    for name, value in wanted.items()
  }
  with _checkpointer() as checkpointer:
    restored = checkpointer.restore(
      str(directory.absolute()),
      # `partial_restore`: names that were not asked for, such as the optimizer's state, stay on the
      # disk.
      args=ocp.args.PyTreeRestore(item=item, restore_args=arguments, partial_restore=True),
    )
  return {name: _as_wanted(restored[name], value) for name, value in wanted.items()}


def root_cause(error: BaseException) -> BaseException:
  """The last link of an exception chain: Orbax wraps the useful text several times."""
  while (inner := error.__cause__ or error.__context__) is not None:
    error = inner
  return error


def _checkpointer() -> Any:
  import orbax.checkpoint as ocp

  # zarr 3, which `step_reader` opens again without Orbax.
  return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_zarr3=True))


def _sharding(value: Any) -> jax.sharding.Sharding | None:
  sharding = getattr(value, "sharding", None)
  return sharding if isinstance(sharding, jax.sharding.Sharding) else None


def _restore_argument(ocp: Any, value: Any) -> Any:
  sharding = _sharding(value)
  # A number has no axis that could be laid out.
  if sharding is None or not value.shape:
    return ocp.RestoreArgs(restore_type=np.ndarray, dtype=value.dtype)
  # `strict`: another shape is an error, where Orbax would otherwise cut off or fill up.
  return ocp.ArrayRestoreArgs(
    sharding=sharding, global_shape=tuple(value.shape), dtype=value.dtype, strict=True
  )


def _as_wanted(restored: Any, value: Any) -> Any:
  sharding = _sharding(value)
  if sharding is None:
    return np.asarray(restored, dtype=value.dtype)
  # Some are laid out already, others came as numpy and go to their devices here.
  if isinstance(restored, jax.Array) and restored.sharding == sharding:
    return restored
  return partitioning.put(np.asarray(restored, dtype=value.dtype), sharding)
