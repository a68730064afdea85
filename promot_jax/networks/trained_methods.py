"""Methods with their trained values on a network: taken from it, put onto it, and refused on another one."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from promot_jax import hosts, paths
from promot_jax.checkpoints import method_files
from promot_jax.checkpoints.method_files import Backbone
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.errors import ConfigError, DamagedRecord
from promot_jax.methods import files
from promot_jax.methods.base import Method
from promot_jax.methods.formats import Context, Trained
from promot_jax.models.ensemble import require_one
from promot_jax.networks import network

_BACKBONE = "backbone.json"
_BACKBONE_SHAPE = {"architecture": str, "shapes": str, "fingerprint": str, "parameters": int}


def trained(
  model: nnx.Module, method: Method, *, notes: Mapping[str, Any] | None = None
) -> Trained:
  """What a method attached to a model has learned, and the backbone that it complements."""
  backbone = Backbone.of(method.detach(model))
  return Trained.of(model, method, backbone=backbone, notes=dict(notes or {}))


def export(
  path: str | os.PathLike,
  model: nnx.Module,
  method: Method,
  *,
  notes: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes the parameters of a method attached to a model as a method file.

  Networks that were only needed in training are dropped: outputs are equal.

  Raises:
    ConfigError: the file exists.
    CannotWrite: the disk refused.
  """
  found = trained(model, method, notes=notes)
  return files.write_method_file(pathlib.Path(path), found, Context())


def attached(
  model: nnx.Module, given: Trained, *, where: str, mesh: Mesh | None = None
) -> tuple[nnx.Module, Method]:
  """The model with a method and its trained values, and the method as it is there.

  Args:
    model: the backbone, without a method.
    where: the file, for messages.
    mesh: on which the model lies; None: a single device.

  Raises:
    ConfigError: the model is another one than the file belongs to.
  """
  # Of several processes none has all the values of which a fingerprint is a sample.
  check = method_files.check_architecture if hosts.several() else method_files.check_backbone
  check(given.backbone, model, where=where)
  # What the file holds was folded when it was written: networks of the training are not in it.
  method = given.method.folded()
  # Any seed: every value that it draws is replaced below.
  model = network.attach(model, method, mesh, seed=0)
  leaves = paths.named_leaves(model)
  wanted = {name: leaves[name] for name in paths.match(method.parameters, leaves)}
  found = _fitting(given, wanted, where=where)
  # Type and shards are the model's: a file knows neither this run's types nor its mesh.
  values = {
    name: jax.device_put(np.asarray(found[name], leaf.dtype), leaf.sharding)
    for name, leaf in wanted.items()
  }
  return paths.replace_leaves(model, {**leaves, **values}), method


def attached_shapes(model: Any, given: Trained, *, where: str) -> Any:
  """The shapes of `attached`; of the backbone only its architecture is compared.

  Args:
    model: the shapes of the backbone.
    where: the file, for messages.

  Raises:
    ConfigError: the file belongs to a model of other shapes, or the model is an ensemble.
  """
  require_one(model, f"have the method of '{where}'")
  method_files.check_architecture(given.backbone, model, where=where)
  method = given.method.folded()
  model = paths.shapes_after(lambda backbone: method.attach(backbone, nnx.Rngs(0)), model)
  leaves = paths.named_leaves(model)
  wanted = {name: leaves[name] for name in paths.match(method.parameters, leaves)}
  _fitting(given, wanted, where=where)
  return model


def _fitting(given: Trained, wanted: Mapping[str, Any], *, where: str) -> dict[str, Any]:
  """The values of a file in the layout of a model's parameters.

  Raises:
    ConfigError: they are others, or of other shapes.
  """
  # Layers may be scanned here and were not where it was written, or the other way round.
  found = method_files.layout_of(given.leaves, wanted)
  if set(found) != set(wanted) or any(
    tuple(found[name].shape) != tuple(wanted[name].shape) for name in wanted
  ):
    raise ConfigError(
      f"'{where}' holds {', '.join(sorted(found)[:3])} ..., and its method needs"
      f" {', '.join(sorted(wanted)[:3])} ... of other shapes; the file was changed, write it again."
    )
  return found


def remember_backbone(store: AnyStore, model: nnx.Module) -> None:
  """Notes in a stage's folder which backbone its parameters complement, once.

  A damaged note is set aside and made again: the stage's own identity still tells other weights apart.
  """
  try:
    noted = _noted_backbone(store)
  except DamagedRecord as damage:
    store.set_aside_json(_BACKBONE, str(damage))
    noted = None
  if noted is None:
    store.write_json(_BACKBONE, dataclasses.asdict(Backbone.of(model)))


def require_backbone(store: AnyStore, model: nnx.Module) -> None:
  """Raises unless the backbone is the one that was noted, if one was.

  Raises:
    ConfigError: it is another one.
    DamagedRecord: the note is not as it was written.
  """
  noted = _noted_backbone(store)
  if noted is not None:
    # A later version may note more; what this one does not know is left out.
    known = {name: noted[name] for name in (*_BACKBONE_SHAPE, "sizes") if name in noted}
    method_files.check_backbone(Backbone(**known), model, where=str(store.directory))


def _noted_backbone(store: AnyStore) -> dict[str, Any] | None:
  return store.read_json(
    _BACKBONE,
    shape=_BACKBONE_SHAPE,
    advice="It only tells whether the pretrained weights are those of the training: if they are,"
    " delete it, and the checkpoints are used as they are.",
  )
