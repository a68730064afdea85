"""Networks, with their configurations and methods, as JSON and back: what a run notes of itself.

A note may be somebody else's, so it names only what a module lists for recipes, and of that only classes
that hold settings.
"""

import dataclasses
import importlib
import re
from collections.abc import Mapping
from typing import Any

from promot_jax.errors import ConfigError
from promot_jax.methods import files

_ROOMS = re.compile(r"promot_jax\.(models|networks)\.[a-z0-9_]+")
_METHODS = "promot_jax.methods."


def describe(value: Any) -> Any:
  """A network, a method, or any value that JSON holds."""
  return files.describe(value) if dataclasses.is_dataclass(value) else value


def build(description: Any, *, where: str) -> Any:
  """The value of a description.

  Args:
    where: what holds it, for messages.

  Raises:
    ConfigError: this version has no such class or field.
  """
  if isinstance(description, list):
    return tuple(build(item, where=where) for item in description)
  if not isinstance(description, Mapping):
    return description
  if "class" not in description or "fields" not in description:
    return {key: build(item, where=where) for key, item in description.items()}
  full = str(description["class"])
  # Methods have a reader of their own, which method files use too.
  if full.startswith(_METHODS):
    return files.build(description)
  module, _, name = full.rpartition(".")
  try:
    # Only these rooms: importing a module runs it, and the note may be somebody else's.
    if not _ROOMS.fullmatch(module):
      raise ImportError(f"'{module}' is no module of models or networks")
    home = importlib.import_module(module)
    kind = getattr(home, name)
    # Of a module its settings only: what it imports is no name of its own, and a function would be
    # called.
    if name not in getattr(home, "RECIPE_VALUES", ()) or not dataclasses.is_dataclass(kind):
      raise ImportError(f"'{module}' offers no '{name}'")
    fields = {key: build(item, where=where) for key, item in description["fields"].items()}
    return kind(**fields)  # type: ignore[operator]
  except (ImportError, AttributeError, TypeError) as error:
    raise ConfigError(
      f"{where} needs '{full}', which this version of promot_jax does not have as it was ({error});"
      " use the version that wrote it."
    ) from None
