"""Where a backbone's first values come from: shipped weights, a checkpoint, or a random start.

With a mesh, every parameter is read or drawn straight into its shards.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from promot_jax import partitioning, paths
from promot_jax.checkpoints import huggingface, locations, restore, sources
from promot_jax.experiments.experiment import RANDOM, SHIPPED_MICRO, Experiment
from promot_jax.networks import backbones, micro_model


def pretrained(
  experiment: Experiment, mesh: Mesh | None, report: Callable[[str], None]
) -> nnx.Module:
  """The backbone with its initial values, on the mesh.

  Raises:
    ConfigError: the checkpoint is absent or of another model; the message is a table of what differs.
    DamagedCheckpoint: it cannot be read, or a value is not finite.
  """

  def create() -> nnx.Module:
    return backbones.build(experiment.backbone, nnx.Rngs(experiment.seed))

  if experiment.initial_checkpoint == RANDOM:
    report("start     random initialization: nothing pretrained is restored")
    return partitioning.build(create, mesh) if mesh else create()
  model = nnx.eval_shape(create)
  if mesh is not None:
    model = partitioning.abstract(model, mesh)
  source = sources.resolve(experiment.initial_checkpoint)
  leaves = _open(source, experiment)
  model = restore.restore_into(model, leaves, finite=not experiment.allow_nan)
  report(
    f"start     {source.text} ({source.kind}): {len(leaves)} arrays, {paths.count(model):,} parameters"
    " restored"
  )
  if source.kind == "hf" and (note := huggingface.decoding_note(source.place)):
    report(f"decoding  {note}")
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
  """Fails now, before data are read and anything is written, if the start cannot work.

  A checkpoint on this machine is read once for NaN, one array after the other; the values of a
  remote one are looked at while they are restored, so that nothing travels twice.

  Raises:
    ConfigError: the initial checkpoint is absent, no checkpoint, or of another model.
    DamagedCheckpoint: its parts contradict each other, or a value is not finite.
  """
  source = sources.resolve(experiment.initial_checkpoint)
  if source.kind == "micro":
    micro_model.require()
  elif source.kind != "random":
    leaves = _open(source, experiment)
    model = nnx.eval_shape(lambda: backbones.build(experiment.backbone, nnx.Rngs(0)))
    restore.check_restorable(model, leaves)
    if not locations.is_remote(source.place) and not experiment.allow_nan:
      restore.check_finite(leaves)


def _open(source: sources.Source, experiment: Experiment) -> Mapping[str, Any]:
  if source.kind == "micro":
    return micro_model.weights()
  return sources.open_source(source, experiment.backbone)


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
