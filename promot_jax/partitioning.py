"""Where every array lies on the devices: mesh, pattern -> PartitionSpec, batch -> global batch.

Two mesh axes: 'data' splits the batch, 'model' splits vocabulary, heads and mlp of each layer, as
T5X's default rules do.  Shardings follow from parameter names and abstract shapes alone, so they
are known before any array exists, and for meshes that do not exist on this machine.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from promot_jax import errors, paths

DATA, MODEL = "data", "model"

MeshSizes = Mesh | jax.sharding.AbstractMesh | Mapping[str, int]
"""Anything that tells the sizes of the axes, {'data': 4, 'model': 2}; only a Mesh holds devices."""

Built = TypeVar("Built", bound=nnx.Module)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """Ordered (pattern, PartitionSpec) pairs; the first pattern that matches a whole name decides.

  A leaf with more dimensions than the spec has extra leading ones (stacked layers), which are not
  split.  A leaf with fewer (optimizer statistics) is replicated, and so is one that no rule names.
  A dimension of length 1 is never split.
  """

  pairs: Sequence[tuple[str, PartitionSpec]]

  def spec(self, name: str, shape: Sequence[int]) -> PartitionSpec:
    """Spec of a leaf, one entry per dimension."""
    for pattern, spec in self.pairs:
      if re.fullmatch(pattern, name):
        extra = len(shape) - len(spec)
        if extra < 0:  # a statistic
          break
        # Adafactor keeps an array [1] in place of a moment that it does not need, also of a bias,
        # whose rule would split it.  A stack of one layer is split like a longer one.
        own = (None if size == 1 else axis for size, axis in zip(shape[extra:], spec))
        return PartitionSpec(*(None,) * extra, *own)
    return PartitionSpec(*(None,) * len(shape))


T5_RULES = Rules(
  pairs=(
    # Factored Adafactor statistics are vectors (stacked: matrices): too small to be worth
    # splitting, and the axes of their parameter do not apply.
    (r"(.*/)?(v_row|v_col)(/.*)?", PartitionSpec()),
    (r"(.*/)?token_embedder/embedding(/[mv])?", PartitionSpec(MODEL, None)),
    (r"(.*/)?final_logits_bias", PartitionSpec(MODEL)),
    (r"(.*/)?relpos_bias/rel_embedding(/[mv])?", PartitionSpec(MODEL, None)),
    (r"(.*/)?(\w*attention)/(query|key|value)/kernel(/[mv])?", PartitionSpec(None, MODEL)),
    (r"(.*/)?(\w*attention)/(query|key|value)/bias(/[mv])?", PartitionSpec(MODEL)),
    (r"(.*/)?(\w*attention)/out/kernel(/[mv])?", PartitionSpec(MODEL, None)),
    (r"(.*/)?mlp/wi(_\d+)?/kernel(/[mv])?", PartitionSpec(None, MODEL)),
    (r"(.*/)?mlp/wi(_\d+)?/bias(/[mv])?", PartitionSpec(MODEL)),
    (r"(.*/)?mlp/wo/kernel(/[mv])?", PartitionSpec(MODEL, None)),
    (r"(.*/)?logits_dense/kernel(/[mv])?", PartitionSpec(None, MODEL)),
  )
)
"""T5X's defaults: vocabulary, heads and mlp over 'model'; scales, prompts, position tables and what
is added after a sum over 'model' on every device.  Other backbones use the same names.  With fewer
key heads than parts, 'model' splits the features of a head."""


def make_mesh(
  data: int = -1, model: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Mesh of the given axis sizes on any kind of device; -1: as many as the devices allow.

  Axes are Auto: XLA chooses the layout of what is not given.  A single process may leave devices
  unused; several processes must use them all.

  Raises:
    ConfigError: sizes that do not fit the devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = {DATA: data, MODEL: model}
  wrong = [axis for axis, size in sizes.items() if size < 1 and size != -1]
  if wrong or (data == -1 and model == -1):
    raise errors.ConfigError(
      f"Mesh sizes data={data} model={model} are not usable; give positive sizes, and -1 for at"
      " most one of them."
    )
  for axis, other in ((DATA, model), (MODEL, data)):
    if sizes[axis] == -1:
      sizes[axis], rest = divmod(len(devices), other)
      if rest:
        raise errors.ConfigError(
          f"{len(devices)} devices cannot be divided over"
          f" {MODEL if axis == DATA else DATA}={other}; choose one of {_divisors(len(devices))}."
        )
  needed = sizes[DATA] * sizes[MODEL]
  # A process with no device in the mesh could take part in nothing, and the others would wait.
  if needed > len(devices) or (needed < len(devices) and jax.process_count() > 1):
    raise errors.ConfigError(_misfit(sizes, len(devices), jax.process_count()))
  # A slice of TPUs has physical axes of its own, which these two may have to cut.
  grid = mesh_utils.create_device_mesh(
    (sizes[DATA], sizes[MODEL]), devices[:needed], allow_split_physical_axes=True
  )
  return Mesh(grid, (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)


def _misfit(sizes: Mapping[str, int], devices: int, processes: int) -> str:
  """What is wrong with a mesh that does not fit the devices, and the settings that would."""
  needed = math.prod(sizes.values())
  fitting = sizes[MODEL] if devices % sizes[MODEL] == 0 else 1
  setting = f"MESH_DATA={devices // fitting}" + (
    f" and MESH_MODEL={fitting}" if fitting != sizes[MODEL] else ""
  )
  flags = setting.replace("MESH", "--gin.MESH").replace(" and ", " ")
  mesh = f"The mesh MESH_DATA={sizes[DATA]} x MESH_MODEL={sizes[MODEL]}"
  if needed > devices:
    return (
      f"{mesh} needs {needed} devices, and {'this process has' if processes == 1 else 'there are'}"
      f" {devices}. Set {setting} ({flags}; MESH_DATA=-1 takes all devices), or start on {needed}."
    )
  return (
    f"{mesh} uses {needed} of the {devices} devices of {processes} processes, which must use them all."
    f" Set {setting} ({flags}; MESH_DATA=-1 takes all devices), or start one process."
  )


def mesh_text(mesh: MeshSizes) -> str:
  """'data=4 model=2', for messages."""
  return " ".join(f"{axis}={size}" for axis, size in _sizes(mesh).items())


def shardings(tree: Any, mesh: Mesh, rules: Rules = T5_RULES) -> Any:
  """The tree with a NamedSharding in place of every leaf, for jit, device_put and restore.

  Args:
    tree: arrays or abstract values: an nnx.State, an optimizer state, a dict.  Every leaf gets an
      explicit sharding on the whole mesh; a scalar left on one device breaks a resumed run.

  Raises:
    ConfigError: a dimension cannot be divided over its mesh axis.
  """
  if isinstance(tree, nnx.Module):
    tree = nnx.state(tree)
  specs = _checked_specs(tree, mesh, rules)
  return paths.replace_leaves(
    tree, {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
  )


def abstract(tree: Any, mesh: Mesh, rules: Rules = T5_RULES) -> Any:
  """The tree with jax.ShapeDtypeStruct leaves that carry shardings: what a restore should fill.

  Raises:
    ConfigError: as `shardings`.
  """
  specs = _checked_specs(tree, mesh, rules)
  leaves = {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, specs[name]))
    for name, leaf in paths.named_leaves(tree).items()
  }
  return paths.replace_leaves(tree, leaves)


def place(tree: Any, mesh: Mesh, rules: Rules = T5_RULES) -> Any:
  """The tree with every leaf laid out on the mesh; numpy arrays go straight to their shards.

  Raises:
    ConfigError: as `shardings`.
  """
  specs = _checked_specs(tree, mesh, rules)
  leaves = {
    name: put(leaf, NamedSharding(mesh, specs[name]))
    for name, leaf in paths.named_leaves(tree).items()
  }
  return paths.replace_leaves(tree, leaves)


def put(value: Any, sharding: jax.sharding.Sharding | None) -> jax.Array:
  """A value that every process holds whole, laid out; each device receives its part only.

  jax.device_put would first send the whole value around to compare it where a mesh has several
  hosts.  An array that lies on several hosts already is moved by the devices.
  """
  whole = not isinstance(value, jax.Array) or value.is_fully_addressable
  if sharding is None or sharding.is_fully_addressable or not whole:
    return jax.device_put(value, sharding)
  # Each process cuts its own shards out of its own copy; nothing travels.
  array = np.asarray(value)
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def fetch(value: Any) -> np.ndarray:
  """The whole of an array as numpy, in every process; all processes must ask for it."""
  # Where all of it lies with every process, nothing has to travel.
  if not isinstance(value, jax.Array) or value.is_fully_addressable or value.is_fully_replicated:
    return np.asarray(value)
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(value, tiled=True))


def build(create: Callable[[], Built], mesh: Mesh, rules: Rules = T5_RULES) -> Built:
  """Runs `create()` with each parameter initialised in its shards: no device holds a whole model.

  Raises:
    ConfigError: as `shardings`.
  """
  # Shapes only; the values are made by the jitted call below, each in its shard.
  graphdef, state = nnx.split(nnx.eval_shape(create))
  initialise = jax.jit(lambda: nnx.split(create())[1], out_shardings=shardings(state, mesh, rules))
  return nnx.merge(graphdef, initialise())


def global_batch(batch: Mapping[str, np.ndarray], mesh: Mesh | None) -> dict[str, jax.Array]:
  """Arrays [B, ...] of a whole batch, which every process has -> arrays split over 'data'.

  Each process gives its devices their rows.  Which rows these are is a matter of the mesh: where
  the 'model' axis reaches over several hosts, they hold the same ones.  Without a mesh all of it
  goes to the default device.

  Raises:
    ConfigError: the batch cannot be divided over the data axis.
  """
  if mesh is None:
    return {name: jax.device_put(array) for name, array in batch.items()}
  # A sentence now, where JAX would end with a shape error inside of the step.
  check_batch_size(len(next(iter(batch.values()))), mesh, what="the batch")
  sharding = NamedSharding(mesh, PartitionSpec(DATA))
  return {
    name: jax.make_array_from_process_local_data(sharding, np.asarray(array), np.shape(array))
    for name, array in batch.items()
  }


def check_batch_size(batch_size: int, mesh: MeshSizes, *, what: str = "batch_size") -> None:
  """Raises ConfigError if a global batch size cannot be divided over the data axis."""
  data = _sizes(mesh)[DATA]
  if batch_size % data:
    raise errors.ConfigError(
      f"{what} has {batch_size} examples, which cannot be divided over data={data}; choose a"
      f" multiple of {data}, or fewer devices along the batch (--gin.MESH_DATA=1)."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BytePlan:
  """Bytes that every chip holds for the whole run; activations and temporaries are not in it."""

  mesh: Mapping[str, int]
  parameters: int
  gradients: int
  optimizer: int

  @property
  def total(self) -> int:
    return self.parameters + self.gradients + self.optimizer

  def __str__(self) -> str:
    parts = ", ".join(
      f"{name} {getattr(self, name) / 2**30:.3f}"
      for name in ("parameters", "gradients", "optimizer")
    )
    return f"mesh {mesh_text(self.mesh)}: {self.total / 2**30:.3f} GiB per chip ({parts})"


def byte_plan(
  model: Any,
  mesh: MeshSizes,
  *,
  trainable: paths.Patterns | None = None,
  optimizer_state: Any = None,
  rules: Rules = T5_RULES,
) -> BytePlan:
  """What a chip of a mesh must hold; arithmetic on specs, the mesh need not exist.

  Args:
    model: module or state, abstract is enough (`nnx.eval_shape(lambda: T5(config, rngs))`).
    mesh: sizes of the axes.
    trainable: patterns of the parameters that have gradients; None: no training.
    optimizer_state: abstract optimizer state (`jax.eval_shape(optimizer.init, trainable)`).

  Raises:
    ConfigError: as `shardings`, or a pattern that matches nothing.
  """
  per_chip = _bytes_per_chip(model, mesh, rules)
  trained = paths.match(trainable, per_chip) if trainable is not None else ()
  optimizer = {} if optimizer_state is None else _bytes_per_chip(optimizer_state, mesh, rules)
  return BytePlan(
    mesh=_sizes(mesh),
    parameters=sum(per_chip.values()),
    gradients=sum(per_chip[name] for name in trained),
    optimizer=sum(optimizer.values()),
  )


def _bytes_per_chip(tree: Any, mesh: MeshSizes, rules: Rules) -> dict[str, int]:
  sizes = _sizes(mesh)
  specs = _checked_specs(tree, mesh, rules)
  return {
    name: paths.nbytes([leaf]) // int(np.prod([_parts(entry, sizes) for entry in specs[name]]))
    for name, leaf in paths.named_leaves(tree).items()
  }


def _checked_specs(tree: Any, mesh: MeshSizes, rules: Rules) -> dict[str, PartitionSpec]:
  """Spec of each leaf; all dimensions that cannot be divided are reported in one error."""
  sizes = _sizes(mesh)
  specs: dict[str, PartitionSpec] = {}
  wrong: list[tuple[str, tuple[int, ...], int, Any]] = []
  # Sizes of all leaves along each axis: what is advised has to divide every one.
  split_sizes: dict[str, list[int]] = {axis: [] for axis in sizes}
  for name, leaf in paths.named_leaves(tree).items():
    specs[name] = spec = rules.spec(name, leaf.shape)
    for dimension, entry in enumerate(spec):
      if isinstance(entry, str):
        split_sizes[entry].append(leaf.shape[dimension])
      if leaf.shape[dimension] % _parts(entry, sizes):
        wrong.append((name, tuple(leaf.shape), dimension, entry))
  if wrong:
    name, shape, dimension, entry = wrong[0]
    usable = _divisors(int(np.gcd.reduce(split_sizes[entry]))) if isinstance(entry, str) else []
    raise errors.ConfigError(
      f"Parameter '{name}' {list(shape)} cannot be divided over {entry}={_parts(entry, sizes)}: its"
      f" dimension {dimension} is {shape[dimension]}"
      + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")
      + f"; sizes of '{entry}' that fit this model are {usable}."
    )
  return specs


def _sizes(mesh: MeshSizes) -> dict[str, int]:
  return dict(mesh if isinstance(mesh, Mapping) else mesh.shape)


def _parts(entry: str | tuple[str, ...] | None, sizes: Mapping[str, int]) -> int:
  axes = () if entry is None else (entry,) if isinstance(entry, str) else entry
  return int(np.prod([sizes[axis] for axis in axes], dtype=np.int64))


def _divisors(number: int) -> list[int]:
  return [candidate for candidate in range(1, number + 1) if number % candidate == 0]
