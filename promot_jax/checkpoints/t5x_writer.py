"""Writes checkpoints that T5X reads, in both of its formats, without T5X.

The older format is a msgpack file for the tree and small leaves with one zarr folder per large leaf;
the newer one is Orbax's.  Both are written here array by array, so that no more than one array (and
in the newer format some small ones) is read at a time, and under a temporary name, so that a
checkpoint is there completely or not at all.
"""

import base64
import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import disk, t5x_names
from promot_jax.checkpoints.stored import derive, in_stored_order

CHUNK_BYTES = 64 * 2**20
"""T5X's limit for one chunk of a zarr array."""
_UNFLUSHED = {"file_io_sync": False}
"""Everything is forced to the disk once, when all of it is written."""
_STATISTICS = ("m", "v", "v_row", "v_col")


def write_t5x(
  path: str | os.PathLike,
  leaves: Mapping[str, Any],
  *,
  step: int,
  layout: Literal["legacy", "orbax"] = "legacy",
  scanned: bool = False,
  optimizer: Mapping[str, Any] | None = None,
  texts: Mapping[str, str] | None = None,
) -> pathlib.Path:
  """Writes the parameters of a T5 or mT5, maybe with a soft prompt, to `path`/checkpoint_<step>.

  Args:
    path: T5X's model_dir; made if it is not there.
    leaves: arrays or StoredArrays by our names, unrolled or stacked; written in their own types.
    step: T5X's step, which counts pretraining too.
    layout: 'legacy' (msgpack and zarr) or 'orbax', as T5X has written by default since 2023.
    scanned: for T5X's `scalable_t5`; False: for its unrolled `t5`, flaxformer and prompt-tuning.
    optimizer: Adafactor statistics named like the result of `t5x.read_t5x_optimizer` ('count' is
      not used: T5X knows one step only).  None: no optimizer state is written; T5X then restores
      the parameters into an inference state, or with `fallback_to_scratch` to train.
    texts: further files by name, such as a model card.

  Returns:
    The folder that was written.

  Raises:
    ConfigError: the parameters are not those of a T5, the optimizer state does not belong to them
      or is given for scanned layers, or the folder exists.
    CannotWrite: the disk refused.
  """
  if layout not in _WRITERS:
    raise errors.ConfigError(
      f"T5X layout {layout!r} is unknown; use one of: {', '.join(_WRITERS)}."
    )
  # T5X factors the statistics of scanned layers by other rules, which keep the layer axis.
  if scanned and optimizer is not None:
    raise errors.ConfigError(
      "Optimizer state cannot be written for T5X's scanned layers; write them without it, or"
      " unrolled."
    )
  # Names and layout before the folder: what has no place is refused while nothing is written.
  target = t5x_names.to_t5x(leaves, derive, scanned=scanned)
  state: dict[str, Any] = {f"target/{name}": leaf for name, leaf in target.items()}
  state["state/step"] = np.asarray(step, np.int32)
  if optimizer is not None:
    state |= _optimizer_leaves(optimizer, target)
  folder = pathlib.Path(path) / f"checkpoint_{step}"
  with disk.whole_folder(folder) as temporary:
    # T5X's trees are sorted, and its files are written in their order.
    _WRITERS[layout](temporary, dict(sorted(state.items())))
    disk.write_texts(temporary, texts or {})
  return folder


def _optimizer_leaves(optimizer: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
  """'state/param_states/...' leaves; None for parameters that have no statistics."""
  result: dict[str, Any] = {}
  for name, leaf in optimizer.items():
    # T5X has one counter, `state/step`.
    if name == "count":
      continue
    statistic, _, parameter = name.partition("/")
    theirs = t5x_names.their_name(parameter)
    if statistic not in _STATISTICS or theirs not in target:
      raise errors.ConfigError(
        f"The optimizer state has '{name}', which is no Adafactor statistic"
        f" ({', '.join(_STATISTICS)}) of a parameter that is written; leave the optimizer state out."
      )
    result[f"state/param_states/{theirs}/{statistic}"] = leaf
  trained = {name.removeprefix("state/param_states/").rsplit("/", 1)[0] for name in result}
  # T5X marks what was not trained by None, and expects an entry for every parameter.
  return result | {f"state/param_states/{name}": None for name in target if name not in trained}


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
  """T5X's rule: the largest dimension goes to its next smaller divisor until a chunk fits."""
  chunk = list(shape)
  # A divisor, so that all chunks of an array have one shape.
  while math.prod(chunk) * itemsize > CHUNK_BYTES and max(chunk) > 1:
    axis = chunk.index(max(chunk))
    chunk[axis] = next(size for size in range(chunk[axis] - 1, 0, -1) if chunk[axis] % size == 0)
  return tuple(chunk)


def _zarr_spec(leaf: Any, store: dict[str, Any], compressor: str) -> dict[str, Any]:
  """TensorStore's description of a zarr (version 2) array with T5X's chunks."""
  shape, dtype = tuple(leaf.shape), np.dtype(leaf.dtype)
  return {
    "driver": "zarr",
    "dtype": dtype.name,
    "kvstore": store,
    "metadata": {
      "chunks": list(chunk_shape(shape, dtype.itemsize)),
      "compressor": {"id": compressor, "level": 1},
      "shape": list(shape),
    },
  }


def _key(name: str) -> str:
  """The name of an array's folder, in both formats."""
  return name.replace("/", ".")


# The older format.


def _write_legacy(folder: pathlib.Path, state: Mapping[str, Any]) -> None:
  import msgpack
  import tensorstore

  context = tensorstore.Context(_UNFLUSHED)
  tree: dict[str, Any] = {}
  specs: dict[str, dict[str, Any]] = {}
  for name, leaf in state.items():
    # Large leaves get a folder, which the tree then only describes; T5X reads either.
    if _has_folder(name, leaf, state):
      specs[name] = _zarr_spec(leaf, {"driver": "file", "path": f"{_key(name)}/"}, "gzip")
      _put(tree, name, specs[name])
    else:
      _put(tree, name, leaf if leaf is None else _inline(np.asarray(leaf)))
  for name in in_stored_order({name: state[name] for name in specs}):
    # The description has the path relative to the checkpoint, as T5X writes it; here it has to be
    # opened.
    here = {"driver": "file", "path": f"{folder.absolute() / _key(name)}/"}
    spec = specs[name] | {"kvstore": here}
    array = tensorstore.open(spec, create=True, context=context).result()
    array.write(np.asarray(state[name])).result()
  # Last, because it is by this file that a reader knows a checkpoint.
  content = msgpack.packb({"version": 3, "optimizer": tree}, use_bin_type=True)
  (folder / "checkpoint").write_bytes(content)


def _has_folder(name: str, leaf: Any, state: Mapping[str, Any]) -> bool:
  """Parameters and statistics as large as their parameter; all other leaves are in the msgpack."""
  # The rule of T5X follows partitioned axes; for its models it comes to this.
  if name.startswith("target/"):
    return True
  if leaf is None or name == "state/step":
    return False
  parameter = name.removeprefix("state/param_states/").rsplit("/", 1)[0]
  shape = tuple(leaf.shape)
  # Of factored parameters `v`, of others `v_row` and `v_col` have length 1 and mean nothing.
  return shape == tuple(state[f"target/{parameter}"].shape) and shape != (1,)


def _inline(array: np.ndarray) -> Any:
  """Flax's form of an array inside of msgpack: [shape, name of the type, bytes in C order]."""
  import msgpack

  content = (array.shape, array.dtype.name, array.tobytes("C"))
  return msgpack.ExtType(1, msgpack.packb(content, use_bin_type=True))


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
  *parents, last = name.split("/")
  for parent in parents:
    tree = tree.setdefault(parent, {})
  tree[last] = value


# The newer format: OCDBT, one database of zarr arrays, beside JSON files that describe the tree.

_TOGETHER_BYTES = 64 * 2**20
"""Small arrays are written together: each commit of the database writes a new index beside the old."""


def _write_orbax(folder: pathlib.Path, state: Mapping[str, Any]) -> None:
  import tensorstore

  started = time.time_ns()
  items = folder / "state"
  (items / "array_metadatas").mkdir(parents=True)
  store = {
    "driver": "ocdbt",
    "base": f"file://{items.absolute()}/",
    # Orbax's own settings: the database is then entry for entry the one that T5X writes.
    "config": {"max_inline_value_bytes": 1024, "max_decoded_node_bytes": 100_000_000},
  }
  # One context, or each array would open the database for itself and their commits would collide.
  context = tensorstore.Context(_UNFLUSHED)
  transaction = tensorstore.Transaction(atomic=True)
  uncommitted = 0
  arrays = {name: leaf for name, leaf in state.items() if leaf is not None}
  for name in in_stored_order(arrays):
    value = np.asarray(arrays[name])
    spec = _zarr_spec(value, store | {"path": _key(name) + "/"}, "zstd")
    # Zeros too, for a chunk that is not there counts as damage when it is read.
    spec["store_data_equal_to_fill_value"] = True
    large = value.nbytes >= _TOGETHER_BYTES  # a transaction would hold a copy of it
    within = None if large else transaction
    array = tensorstore.open(spec, create=True, context=context, transaction=within).result()
    array.write(value).result()
    uncommitted += 0 if large else value.nbytes
    if uncommitted >= _TOGETHER_BYTES:
      transaction.commit_sync()
      transaction, uncommitted = tensorstore.Transaction(atomic=True), 0
  transaction.commit_sync()
  _write_orbax_tree(items, state)
  # Orbax looks the handler up by this name of its class.
  module = "orbax.checkpoint._src.handlers.pytree_checkpoint_handler"
  description = {
    "item_handlers": {"state": f"{module}.PyTreeCheckpointHandler"},
    "metrics": {},
    "performance_metrics": {},
    "init_timestamp_nsecs": started,
    "commit_timestamp_nsecs": time.time_ns(),
    "custom_metadata": {},
  }
  # These files mark the checkpoint as complete, and so they come last.
  (folder / "_CHECKPOINT_METADATA").write_text(json.dumps(description))
  for place in (items, folder):
    (place / "commit_success.txt").write_text("Checkpoint commit was successful")


def _write_orbax_tree(items: pathlib.Path, state: Mapping[str, Any]) -> None:
  """The JSON files: which leaves there are, their chunks, and on which devices they were."""
  tree, shapes, shardings = {}, [], {}
  place = json.dumps({"sharding_type": "SingleDeviceSharding", "device_str": "cpu:0"})
  for name, leaf in state.items():
    parts = tuple(name.split("/"))
    # Orbax lists what was not trained, too, as an entry without an array.
    value: dict[str, Any] = {"value_type": "None", "skip_deserialize": True}
    if leaf is not None:
      shape = tuple(leaf.shape)
      value = {
        "value_type": "jax.Array",
        "skip_deserialize": False,
        "write_shape": list(shape),
      }
      chunk = chunk_shape(shape, np.dtype(leaf.dtype).itemsize)
      array = {
        "param_name": _key(name),
        "write_shape": list(shape),
        "chunk_shape": list(chunk),
        "ext_metadata": None,
      }
      shapes.append({"array_metadata": array})
      shardings[base64.b64encode(_key(name).encode()).decode()] = place
    # 2: a key of a dictionary, in Orbax's numbering.
    keys = [{"key": part, "key_type": 2} for part in parts]
    tree[str(parts)] = {"key_metadata": keys, "value_metadata": value}
  metadata = {
    "tree_metadata": tree,
    "use_ocdbt": True,
    "use_zarr3": False,
    "store_array_data_equal_to_fill_value": True,
    "custom_metadata": None,
  }
  (items / "_METADATA").write_text(json.dumps(metadata))
  (items / "_sharding").write_text(json.dumps(shardings, separators=(",", ":")))
  # Named after the process that wrote: here one alone.
  (items / "array_metadatas" / "process_0").write_text(json.dumps({"array_metadatas": shapes}))


_WRITERS = {"legacy": _write_legacy, "orbax": _write_orbax}
