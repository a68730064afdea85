"""What a method trained, to and from files: the functions that find a method's own `formats`."""

import dataclasses
import importlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax import errors, paths
from promot_jax.checkpoints import locations, method_files, step_reader
from promot_jax.checkpoints.method_files import MethodFile
from promot_jax.checkpoints.peft import reader
from promot_jax.methods import discovery, settings
from promot_jax.methods.base import Method
from promot_jax.methods.formats import METHOD, PEFT, Context, Format, Formats, Stored, Trained

_STARTS = ("initializer", "initializers")
"""Fields that only say where first values came from."""


def write_method_file(path: pathlib.Path, trained: Trained, context: Context) -> pathlib.Path:
  """Writes the 'method' format: what was only needed in training is left out.

  Raises:
    ConfigError: the file exists.
    CannotWrite: the disk refused.
  """
  del context
  file = MethodFile(
    leaves=trained.leaves,
    # Folded: a network through which a prompt was trained is not needed any more.
    method=describe(trained.method.folded()),
    backbone=trained.backbone,
    notes=trained.notes,
  )
  return method_files.write(path, file)


def formats_of(method: Method | type[Method]) -> dict[str, Format]:
  """The formats of a method, method files first."""
  return {METHOD: Format(write=write_method_file), **method.formats}


def write(
  path: str | os.PathLike, trained: Trained, to: str, context: Context, *, where: str
) -> pathlib.Path:
  """Writes what was trained in a format: whole or not at all.

  Args:
    to: name of the format.
    where: whose values they are, for messages.

  Raises:
    ConfigError: the method cannot be written so, or the path exists.
    CannotWrite: the disk refused.
  """
  own = formats_of(trained.method).get(to)
  for part in trained.method.parts if own is None else ():
    each = formats_of(part).get(to)
    if each is not None and each.alone:
      names = paths.match(part.parameters, trained.leaves)
      leaves = {name: trained.leaves[name] for name in names}
      own, trained = each, dataclasses.replace(trained, method=part, leaves=leaves)
      break
  if own is None or own.write is None:
    kind = type(trained.method).__name__
    lacks = "PEFT has no adapter" if to == PEFT else f"--to={to} has no form"
    raise errors.ConfigError(
      f"'{where}' has method {kind}, for which {lacks}; --to=method writes a file for promot_jax, and"
      " --to=hf the backbone."
    )
  return own.write(pathlib.Path(path), trained, context)


def names() -> tuple[str, ...]:
  """Names of all formats that any method has."""
  return tuple(
    dict.fromkeys(name for kind in discovery.kinds().values() for name in formats_of(kind))
  )


def stored(path: str | os.PathLike, formats: Formats, context: Context) -> Stored:
  """What a file holds of a method with these formats, told from what lies there.

  Args:
    path: a method file, a step of a run, an adapter of PEFT (`hf:NAME` too), or another file that the
      table has.

  Raises:
    ConfigError: there is nothing that can be read.
    DamagedCheckpoint: a file is cut off or contradicts itself.
  """
  place = _place(path)
  if reader.is_adapter(place):
    adapters = formats.get(PEFT)
    if adapters is None or adapters.read is None:
      raise errors.ConfigError(f"'{place}' is an adapter of PEFT, which has no such method.")
    return adapters.read(place, context)
  # A format without types, such as a prompt in NumPy's files, reads what nobody else does.
  if not method_files.is_method_file(place):
    for each in formats.values():
      if each.read is not None and not each.types:
        return each.read(place, context)
    if step_reader.is_step(place):
      leaves = {name: np.asarray(leaf) for name, leaf in step_reader.open_step(place).items()}
      return Stored(leaves=method_files.unrolled(leaves))
  file = method_files.read(place)
  fields = file.method.get("fields", {})
  return Stored(leaves=method_files.unrolled(file.leaves), settings=fields, notes=file.notes)


def open_method(path: str | os.PathLike, config: Any) -> tuple[pathlib.Path, Trained]:
  """(the file with the values, what is there) of a method file or of an adapter of PEFT.

  Args:
    path: a method file, the folder of an adapter, or hf:NAME[@REVISION] of one.
    config: of the backbone that the method is attached to.

  Raises:
    ConfigError: there is none, no method has its type, or it does not fit the backbone.
    DamagedCheckpoint: its files are cut off or contradict each other.
  """
  place = _place(path)
  if not reader.is_adapter(place):
    file = method_files.read(place)
    return place, Trained(
      method=build(file.method), leaves=file.leaves, backbone=file.backbone, notes=file.notes
    )
  kinds = {
    peft_type: (kind, kind.formats[PEFT])
    for kind in discovery.kinds().values()
    if PEFT in kind.formats
    for peft_type in kind.formats[PEFT].types
  }
  kind, adapters = kinds[reader.type_of(place, among=kinds)]
  assert adapters.read is not None  # a type is declared by whoever reads it
  found = adapters.read(place, Context(config=config))
  method = kind(**found.settings)
  return place / reader.ARRAYS, Trained(method=method, leaves=found.leaves, notes=found.notes)


def open_trained(path: str | os.PathLike, context: Context) -> Trained:
  """What any file of a method holds: as `open_method`, or in a format that one of the methods has.

  Raises:
    ConfigError: there is nothing that can be read.
    DamagedCheckpoint: a file is cut off or contradicts itself.
  """
  place = _place(path)
  if not reader.is_adapter(place) and not method_files.is_method_file(place):
    for kind in discovery.kinds().values():
      for each in kind.formats.values():
        if each.read is not None and not each.types:
          found = each.read(place, context)
          method = kind(**found.settings)
          return Trained(method=method, leaves=found.leaves, notes=found.notes)
  return open_method(place, context.config)[1]


def describe(method: Any) -> dict[str, Any]:
  """The settings of a method as JSON: its class and its fields, without initializers."""
  fields = {
    field.name: _plain(getattr(method, field.name))
    for field in dataclasses.fields(method)
    if field.name not in _STARTS and field.metadata.get("described", True)
  }
  return {"class": f"{type(method).__module__}.{type(method).__qualname__}", "fields": fields}


def build(description: Mapping[str, Any]) -> Any:
  """The method of a description.

  Raises:
    ConfigError: this version has no such method or field.
  """
  if not isinstance(description, Mapping):
    raise errors.ConfigError("The method file does not say which method it is of; write it again.")
  module, _, name = str(description.get("class")).rpartition(".")
  try:
    if module not in discovery.modules():  # a file must not choose which code is run
      raise ImportError(f"'{module}' is no module of methods")
    home = importlib.import_module(module)
    if name not in getattr(home, discovery.LIST, ()):
      raise ImportError(f"'{module}' offers no '{name}'")
    kind = getattr(home, name)
    if not issubclass(kind, Method | settings.Settings):  # initializers read what a path names
      raise ImportError(f"'{name}' is no method")
    fields = {
      key: _built(value) for key, value in description["fields"].items() if key not in _STARTS
    }
    return kind(**fields)
  # TypeError: a field that this version's class does not have.
  except (ImportError, AttributeError, TypeError, KeyError) as error:
    raise errors.ConfigError(
      f"The method file needs method '{description.get('class')}', which this version of promot_jax"
      f" does not have as it was ({error}); use the version that wrote it."
    ) from None


def _place(path: str | os.PathLike) -> pathlib.Path:
  text = os.fspath(path)
  return locations.fetch_hf(text) if text.startswith("hf:") else pathlib.Path(text).expanduser()


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
    # JSON has no tuples, and fields of methods are tuples, never lists.
    return tuple(_built(item) for item in value)
  return value
