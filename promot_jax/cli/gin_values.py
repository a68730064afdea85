"""What stands right of the `=` in a gin file: plain values, and references that are not followed."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

from promot_jax.cli import recipe_values
from promot_jax.errors import ConfigError

REQUIRED = "gin.REQUIRED"
_DEPTH = 40  # nested brackets, and macros within macros
_SIZE = 200_000  # values in one, with all macros replaced


@dataclasses.dataclass(frozen=True)
class Reference:
  """`@scope/module.name` or, called, `@scope/module.name()`."""

  name: str  # as written by the file; `scope/` and the full name once it is resolved
  called: bool

  @property
  def scope(self) -> str:
    """'prompt_stage' of `@prompt_stage/stages.Stage()`, or nothing."""
    return self.name.rpartition("/")[0]

  @property
  def selector(self) -> str:
    """The name without its scope."""
    return self.name.rpartition("/")[2]

  def __str__(self):
    scope = f"{self.scope}/" if self.scope else ""
    return f"@{scope}{recipe_values.short(self.selector)}{'()' if self.called else ''}"


@dataclasses.dataclass(frozen=True)
class Macro:
  """`%NAME`."""

  name: str

  def __str__(self):
    return f"%{self.name}"


def expanded(path: str) -> str:
  """A path or source with `~/` replaced by the home folder, also after 'hf:' and the like."""
  scheme, start, rest = re.fullmatch(r"(\w+:)?(~/)?(.*)", path, re.DOTALL).groups()  # type: ignore
  return f"{scheme or ''}{os.path.expanduser(start)}{rest}" if start else path


def walk(value: Any) -> Iterator[Reference | Macro]:
  """Every reference and macro in a value."""
  if isinstance(value, Reference | Macro):
    yield value
  elif isinstance(value, dict):
    for key, item in value.items():
      yield from walk(key)
      yield from walk(item)
  elif isinstance(value, list | tuple):
    for item in value:
      yield from walk(item)


def replaced(value: Any, change: Callable[[Reference | Macro], Any], depth: int = 0) -> Any:
  """The value with every reference and macro exchanged, and `~` of paths expanded.

  Raises:
    ConfigError: brackets are nested too deeply.
  """
  if depth > _DEPTH:
    raise ConfigError(f"a value has more than {_DEPTH} nested brackets.")
  if isinstance(value, Reference | Macro):
    return change(value)
  if isinstance(value, dict):
    return {
      replaced(key, change, depth + 1): replaced(item, change, depth + 1)
      for key, item in value.items()
    }
  if isinstance(value, list | tuple):
    return type(value)(replaced(item, change, depth + 1) for item in value)
  return expanded(value) if isinstance(value, str) else value


def text(
  value: Any,
  macros=MappingProxyType({}),
  reference: Callable[[Reference], str] = str,
  *,
  alike: bool = False,
) -> str:
  """A value as it stands in a gin file, the given macros replaced by their values.

  Args:
    macros: name -> binding with a `value`.
    reference: how a reference is written.
    alike: tuples are written as lists, for comparisons: settings take both.

  Raises:
    ConfigError: macros refer to themselves, or the value would be endless.
  """
  # Depth alone does not end it: lists of a macro in macros grow as 2 ** depth.
  left = _SIZE

  def write(value: Any, depth: int) -> str:
    nonlocal left
    left -= 1
    if depth > 2 * _DEPTH or left < 0:
      raise ConfigError("a macro refers to itself, or macros refer to macros without end.")
    if isinstance(value, Macro) and value.name in macros:
      return write(macros[value.name].value, depth + 1)
    if isinstance(value, Reference):
      return reference(value)
    if isinstance(value, list) or (alike and isinstance(value, tuple)):
      return "[" + ", ".join(write(item, depth + 1) for item in value) + "]"
    if isinstance(value, tuple):
      inner = ", ".join(write(item, depth + 1) for item in value)
      return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, dict):
      items = (f"{write(k, depth + 1)}: {write(v, depth + 1)}" for k, v in value.items())
      return "{" + ", ".join(items) + "}"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
      return "1e999" if value > 0 else "-1e999"  # as it can be read again
    return str(value) if isinstance(value, Macro) else repr(value)

  return write(value, 0)
