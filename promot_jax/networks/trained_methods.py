"""Methods with their trained values, to and from method files: settings as plain values, parameters by name.

`checkpoints.method_files` knows the file; here is what knows the methods.
"""

import dataclasses
import importlib
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from promot_jax import paths
from promot_jax.checkpoints import method_files
from promot_jax.checkpoints.method_files import Backbone, MethodFile
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.errors import ConfigError, DamagedRecord

_BACKBONE = "backbone.json"
_BACKBONE_SHAPE = {"architecture": str, "shapes": str, "fingerprint": str, "parameters": int}
_PACKAGE = "promot_jax.methods."
_STARTS = ("initializer", "initializers")
"""Fields that only say where first values came from."""
_OF_STARTS = tuple(
  f"{_PACKAGE}{name}" for name in ("initializers", "lora_initializers", "prefix_initializers")
)


def describe(method: Any) -> dict[str, Any]:
  """The settings of a method as JSON: its class and its fields, without initializers."""
  fields = {
    field.name: _plain(getattr(method, field.name))
    for field in dataclasses.fields(method)
    if field.name not in _STARTS
  }
  return {"class": f"{type(method).__module__}.{type(method).__qualname__}", "fields": fields}


def build(description: Mapping[str, Any]) -> Any:
  """The method of a description.

  Raises:
    ConfigError: this version has no such method or field.
  """
  if not isinstance(description, Mapping):
    raise ConfigError("The method file does not say which method it is of; write it again.")
  module, _, name = str(description.get("class")).rpartition(".")
  known = re.fullmatch(re.escape(_PACKAGE) + r"[a-z0-9_]+", module)
  try:
    if not known:  # a file must not choose which code is run
      raise ImportError(f"'{module}' is no module of methods")
    home = importlib.import_module(module)
    if name not in getattr(home, "RECIPE_VALUES", ()):
      raise ImportError(f"'{module}' offers no '{name}'")
    kind = getattr(home, name)
    if kind.__module__ in _OF_STARTS:  # they read what a path names, also over the network
      raise ImportError(f"'{name}' is no method")
    fields = {
      key: _built(value) for key, value in description["fields"].items() if key not in _STARTS
    }
    return kind(**fields)
  except (ImportError, AttributeError, TypeError, KeyError) as error:
    raise ConfigError(
      f"The method file needs method '{description.get('class')}', which this version of promot_jax"
      f" does not have as it was ({error}); use the version that wrote it."
    ) from None


def export(
  path: str | os.PathLike, model: nnx.Module, method: Any, *, notes: Mapping[str, Any] | None = None
) -> pathlib.Path:
  """Writes the parameters of a method attached to a model.

  Networks that were only needed in training are dropped: outputs are equal.

  Raises:
    ConfigError: the file exists.
    CannotWrite: the disk refused.
  """
  backbone = Backbone.of(method.detach(model))
  if hasattr(method, "fold"):
    model, method = method.fold(model), method.folded()
  leaves = paths.named_leaves(model)
  own = {name: np.asarray(leaves[name]) for name in paths.match(method.parameters, leaves)}
  return method_files.write(
    path,
    MethodFile(
      leaves=method_files.unrolled(own),
      method=describe(method),
      backbone=backbone,
      notes=dict(notes or {}),
    ),
  )


def attached(model: nnx.Module, file: MethodFile, *, where: str) -> tuple[nnx.Module, Any]:
  """The model with a file's method and its values, and the method.

  Args:
    model: the backbone, without a method.
    where: the file, for messages.

  Raises:
    ConfigError: the model is another one than the file belongs to.
  """
  method_files.check_backbone(file, model, where=where)
  method = build(file.method)
  model = method.attach(model, nnx.Rngs(0))
  leaves = paths.named_leaves(model)
  wanted = {name: leaves[name] for name in paths.match(method.parameters, leaves)}
  given = method_files.layout_of(file.leaves, wanted)
  if set(given) != set(wanted) or any(
    tuple(given[name].shape) != tuple(wanted[name].shape) for name in wanted
  ):
    raise ConfigError(
      f"'{where}' holds {', '.join(sorted(given)[:3])} ..., and its method needs"
      f" {', '.join(sorted(wanted)[:3])} ... of other shapes; the file was changed, write it again."
    )
  values = {
    name: jax.device_put(np.asarray(given[name], leaf.dtype), leaf.sharding)
    for name, leaf in wanted.items()
  }
  return paths.replace_leaves(model, {**leaves, **values}), method


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
    known = {name: noted[name] for name in (*_BACKBONE_SHAPE, "sizes") if name in noted}
    file = MethodFile(leaves={}, method={}, backbone=Backbone(**known))
    method_files.check_backbone(file, model, where=str(store.directory))


def _noted_backbone(store: AnyStore) -> dict[str, Any] | None:
  return store.read_json(
    _BACKBONE,
    shape=_BACKBONE_SHAPE,
    advice="It only tells whether the pretrained weights are those of the training: if they are,"
    " delete it, and the checkpoints are used as they are.",
  )


def _plain(value: Any) -> Any:
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return describe(value)
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  if isinstance(value, Mapping):
    return {str(key): _plain(item) for key, item in value.items()}
  return value


def _built(value: Any) -> Any:
  if isinstance(value, Mapping) and "class" in value and "fields" in value:
    return build(value)
  if isinstance(value, Mapping):
    return {key: _built(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(_built(item) for item in value)
  return value
