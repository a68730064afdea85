"""Where a backbone's first values come from: shipped weights, a checkpoint, or a random start.

With a mesh, every parameter is read or drawn straight into its shards.
"""

import hashlib
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from promot_jax import partitioning, paths
from promot_jax.checkpoints import restore, t5x
from promot_jax.checkpoints.store import Store
from promot_jax.errors import ConfigError
from promot_jax.experiments import backbones, micro_model
from promot_jax.experiments.experiment import RANDOM, SHIPPED_MICRO, Experiment

_OURS = "trainable/"  # prefix of parameters in the checkpoints that training writes


def pretrained(
  experiment: Experiment, mesh: Mesh | None, report: Callable[[str], None]
) -> nnx.Module:
  """The backbone with its initial values, on the mesh.

  Raises:
    ConfigError: the checkpoint is absent or of another model; the message is a table of what differs.
    DamagedCheckpoint: it cannot be read.
  """

  def create() -> nnx.Module:
    return backbones.build(experiment.backbone, nnx.Rngs(experiment.seed))

  path = experiment.initial_checkpoint
  if path == RANDOM:
    report("start     random initialization: nothing pretrained is restored")
    return partitioning.build(create, mesh) if mesh else create()
  model = nnx.eval_shape(create)
  if mesh is not None:
    model = partitioning.abstract(model, mesh)
  leaves = _read(path)
  model = restore.restore_into(model, leaves)
  report(f"start     {path}: {len(leaves)} arrays, {paths.count(model):,} parameters restored")
  return model


def identity(experiment: Experiment) -> str:
  """Tells two starts apart without reading all of them."""
  path = experiment.initial_checkpoint
  if path == SHIPPED_MICRO:
    return f"micro:{micro_model.digest()}" if micro_model.available() else "micro"
  if path == RANDOM:
    config = hashlib.sha256(repr(experiment.backbone).encode()).hexdigest()[:12]
    return f"random:{experiment.seed}:{config}"
  return path


def check(experiment: Experiment) -> None:
  """Fails now, before data are read, if the initial checkpoint is not there.

  Raises:
    ConfigError: it is absent, remote, or no checkpoint.
    DamagedCheckpoint: its parts contradict each other.
  """
  path = experiment.initial_checkpoint
  if path == SHIPPED_MICRO:
    micro_model.require()
  elif path != RANDOM and _kind(path) == "t5x":
    t5x.open_t5x(path)


def _kind(path: str) -> str:
  """What lies at a path: 'arrays' (.npz), 'step' (one of our own), or 't5x'."""
  if "://" in path:
    raise ConfigError(
      f"INITIAL_CHECKPOINT_PATH={path!r} is remote, and checkpoints are read from local or mounted "
      "directories. Copy it here and pass "
      "--gin.INITIAL_CHECKPOINT_PATH=\"'/path/to/checkpoint_1000000'\"."
    )
  folder = pathlib.Path(path)
  if folder.suffix == ".npz" and folder.is_file():
    return "arrays"
  ours = re.fullmatch(r"checkpoint_\d+", folder.name) and (folder / "manifest.json").is_file()
  return "step" if ours else "t5x"


def _read(path: str) -> Mapping[str, Any]:
  if path == SHIPPED_MICRO:
    return micro_model.weights()
  kind, folder = _kind(path), pathlib.Path(path)
  if kind == "t5x":
    return t5x.open_t5x(path)
  if kind == "arrays":
    with np.load(folder, allow_pickle=False) as arrays:
      return {name: arrays[name] for name in arrays.files}
  step = int(folder.name.removeprefix("checkpoint_"))
  store = Store(folder.parent)
  leaves = store.restore(step, prefix=_OURS).leaves
  store.close()
  return {name.removeprefix(_OURS): leaf for name, leaf in leaves.items()}


def attach(experiment: Experiment, model: nnx.Module, mesh: Mesh | None) -> nnx.Module:
  """The model with the experiment's method, its new parameters drawn by the seed."""
  if experiment.method is None:
    return model
  key = jax.random.fold_in(jax.random.key(experiment.seed), 1)
  model = experiment.method.attach(model, nnx.Rngs(key))
  if mesh is None:
    return model
  graphdef, state = nnx.split(model)
  return nnx.merge(graphdef, partitioning.place(state, mesh))
