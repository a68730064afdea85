"""Reads checkpoints that T5X wrote, into our parameter names, without T5X.

Two formats exist: the older one of T5X (a msgpack file for the tree and small leaves, one zarr
folder per large leaf) and the newer one of Orbax.  Neither is ever unpickled.  Arrays are opened
first and read later, so that a checkpoint of the wrong model is refused before any of it is read.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import remote_folder, t5x_names
from promot_jax.checkpoints.stored import StoredArray, open_zarr

Folder = pathlib.Path | remote_folder.RemoteFolder


def open_t5x(path: str | os.PathLike) -> dict[str, StoredArray]:
  """Parameters of a T5X checkpoint by our names, layers unrolled; nothing is read yet.

  Args:
    path: a folder `checkpoint_<step>`, or a folder of those (the last step is taken).

  Raises:
    ConfigError: there is no T5X checkpoint, or its parameters are not those of a T5.
    DamagedCheckpoint: the checkpoint's parts contradict each other.
  """
  leaves = _open_leaves(find_t5x(path))
  # The model alone: the optimizer's state lies beside it under 'state/'.
  parameters = {
    name.removeprefix("target/"): leaf
    for name, leaf in leaves.items()
    if name.startswith("target/")
  }
  if not parameters:
    raise errors.ConfigError(f"T5X checkpoint '{path}' has no parameters (no 'target').")
  # Unrolled in any case, whatever T5X's network was; `restore` stacks them again where ours is
  # scanned.
  return t5x_names.to_ours(parameters)


def read_t5x(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Parameters of a T5X checkpoint by our names, layers unrolled, in their stored types.

  Raises:
    ConfigError, DamagedCheckpoint: as `open_t5x`; also if stored data are missing or broken.
  """
  return {name: np.asarray(leaf) for name, leaf in open_t5x(path).items()}


def read_t5x_optimizer(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Adafactor statistics of a T5X checkpoint, named like the leaves of our Adafactor state.

  Returns:
    'count' (T5X's step) and '<m, v, v_row or v_col>/<our parameter name>'.  Parameters that were
    not trained have none.

  Raises:
    ConfigError: as `open_t5x`, or the layers are scanned.
    DamagedCheckpoint: as `open_t5x`.
  """
  leaves = _open_leaves(find_t5x(path))
  statistics = {}
  for name, leaf in leaves.items():
    if name == "state/step":
      # T5X counts steps once, for the model and for its optimizer.
      statistics["count"] = np.asarray(leaf)
    elif name.startswith("state/param_states/"):
      parameter, statistic = name.removeprefix("state/param_states/").rsplit("/", 1)
      if t5x_names.is_scanned(parameter):
        raise errors.ConfigError(
          f"The optimizer state in '{path}' is of scanned layers, which cannot be taken over; start"
          " with a fresh optimizer state."
        )
      statistics[f"{statistic}/{t5x_names.our_name(parameter)}"] = np.asarray(leaf)
  return statistics


def find_t5x(path: str | os.PathLike) -> Folder:
  """The folder of one step: `path` itself, or the last `checkpoint_<step>` in it.

  Raises:
    ConfigError: there is none.
  """
  place = remote_folder.folder(path)
  if not place.is_dir():
    raise errors.ConfigError(
      f"T5X checkpoint '{path}' is not a folder that can be read here; give the folder checkpoint_<step>"
      " that T5X wrote."
    )
  # One step by itself may have any name: users rename what they download.
  if _is_orbax(place) or (place / "checkpoint").is_file():
    return place
  # A save that was cut off has a suffix ('.tmp-...') and is left out.
  steps = [
    int(entry.name.removeprefix("checkpoint_"))
    for entry in place.iterdir()
    if re.fullmatch(r"checkpoint_\d+", entry.name) and entry.is_dir()
  ]
  if not steps:
    raise errors.ConfigError(
      f"'{place}' is no T5X checkpoint and has no folder 'checkpoint_<step>' in it."
    )
  # As numbers: as texts 'checkpoint_900' would be behind 'checkpoint_1000'.
  return place / f"checkpoint_{max(steps)}"


def _is_orbax(path: Folder) -> bool:
  return (path / "state" / "_METADATA").is_file()


def _open_leaves(path: Folder) -> dict[str, StoredArray]:
  """All leaves by T5X's names, 'target/...' and 'state/...'."""
  if _is_orbax(path):
    return _open_orbax(path / "state")
  if (path / "checkpoint").is_file():
    return _open_msgpack(path)
  raise errors.ConfigError(
    f"'{path}' is no T5X checkpoint: it has neither a file 'checkpoint' nor 'state/_METADATA'."
  )


def _open_orbax(folder: Folder) -> dict[str, StoredArray]:
  try:
    # The names are read from the description, for an OCDBT database has no folders to list.
    metadata = json.loads((folder / "_METADATA").read_text())
    names = [
      "/".join(str(key["key"]) for key in entry["key_metadata"])
      for entry in metadata["tree_metadata"].values()
      if not _is_empty(entry["value_metadata"])
    ]
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise errors.DamagedCheckpoint(f"'{folder / '_METADATA'}' is unreadable: {error!r}.") from None
  # Independent choices of Orbax: the version of zarr, and one database or a folder for each array.
  driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
  # What a missing chunk means: damage, or values that are all zeros.
  complete = metadata.get("store_array_data_equal_to_fill_value", False)
  leaves = {}
  for name in names:
    key = name.replace("/", ".") + "/"
    if metadata.get("use_ocdbt"):
      store = {"driver": "ocdbt", "base": remote_folder.kvstore(folder), "path": key}
    else:
      store = remote_folder.kvstore(folder / key)
    leaves[name] = open_zarr(name, driver, store, complete=complete)
  return leaves


def _is_empty(value: Mapping[str, Any]) -> bool:
  """Whether Orbax stored nothing: a parameter without optimizer state, an empty dict or list."""
  return value["value_type"] == "None" or value.get("skip_deserialize", False)


def _open_msgpack(folder: Folder) -> dict[str, StoredArray]:
  import msgpack

  content = (folder / "checkpoint").read_bytes()
  # Its first words: TensorFlow writes a text file of this name, which msgpack could not make sense
  # of.
  if content.startswith(b"model_checkpoint_path"):
    raise errors.ConfigError(
      f"'{folder}' is a TensorFlow checkpoint; convert it with T5X's convert_tf_checkpoint first."
    )
  try:
    # Arrays come as extensions of msgpack; nothing in this format needs unpickling.
    tree = msgpack.unpackb(content, ext_hook=_extension, raw=False)
    version, root = tree["version"], tree["optimizer"]
  except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
    raise errors.DamagedCheckpoint(
      f"'{folder / 'checkpoint'}' is no msgpack file of a T5X checkpoint: {error!r}."
    ) from None
  # Version 2 has bfloat16 as whole numbers of 16 bits, which T5X itself refuses as well.
  if version != 3:
    raise errors.ConfigError(
      f"'{folder}' has version {version} of T5X's format and only version 3 can be read; load and"
      " save it with a current T5X first."
    )
  leaves: dict[str, StoredArray] = {}
  try:
    _collect(root, "", folder, leaves)
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
    raise errors.DamagedCheckpoint(
      f"'{folder / 'checkpoint'}' describes its arrays as T5X does not: {error!r}."
    ) from None
  return leaves


def _collect(node: Any, name: str, folder: Folder, leaves: dict[str, StoredArray]) -> None:
  if node is None:  # a parameter without optimizer state
    return
  # A small leaf, which stands in the msgpack file itself.
  if isinstance(node, np.ndarray | np.generic):
    array = np.asarray(node)
    leaves[name] = StoredArray(name=name, shape=array.shape, dtype=array.dtype, read=lambda: array)
  elif isinstance(node, dict) and {"driver", "kvstore", "metadata"} <= node.keys():
    # Written elsewhere, perhaps to a bucket: the folder is always beside the msgpack file, and a
    # path that says otherwise is not followed.
    path = node["kvstore"].get("path", node.get("path", "")).rstrip("/").rsplit("/", 1)[-1]
    leaf = open_zarr(name, "zarr", remote_folder.kvstore(folder / path))
    # Said twice, in the msgpack file and in the array's folder: one of them may be of another
    # checkpoint.
    said = tuple(node["metadata"]["shape"])
    if said != leaf.shape:
      raise errors.DamagedCheckpoint(
        f"'{folder}' says that '{name}' has shape {list(said)}, but its folder holds"
        f" {list(leaf.shape)}."
      )
    leaves[name] = leaf
  # Flax cuts arrays of more than 2**30 bytes, and has lists as mappings whose keys are numbers as
  # texts.
  elif isinstance(node, dict) and "__msgpack_chunked_array__" in node:
    shape = tuple(node["shape"][str(axis)] for axis in range(len(node["shape"])))
    chunks = [node["chunks"][str(index)] for index in range(len(node["chunks"]))]
    _collect(
      np.concatenate([chunk.ravel() for chunk in chunks]).reshape(shape), name, folder, leaves
    )
  elif isinstance(node, dict):
    for key, child in node.items():
      _collect(child, f"{name}/{key}" if name else str(key), folder, leaves)
  else:
    leaves[name] = StoredArray(
      name=name, shape=(), dtype=np.asarray(node).dtype, read=lambda: np.asarray(node)
    )


def _extension(code: int, payload: bytes) -> Any:
  """Arrays and scalars inside of flax's msgpack: [shape, name of the type, bytes in C order]."""
  import msgpack

  if code not in (1, 3):
    raise ValueError(f"extension type {code} is not an array")
  shape, dtype, content = msgpack.unpackb(payload, raw=False)
  dtype = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
  if dtype.hasobject:
    raise ValueError("an array of objects")
  return np.frombuffer(content, dtype).reshape(shape)
