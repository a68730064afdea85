"""Whether values of JSON have the types that a data class states for its fields.

Result folders may be edited, of another version or somebody else's.  A number where a text should be
would come up far away, in a table or a plot, as if it were a bug.
"""

import functools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any


def require(content: Mapping[str, Any], kind: type) -> None:
  """Compares an object with the fields of a data class; fields that it lacks are not looked at.

  Raises:
    TypeError: a value is of another type, or a number is not finite; names the field.
  """
  for name, hint in _hints(kind).items():
    if name in content and not _is(content[name], hint):
      raise TypeError(f"its field '{name}' is of another type, or no finite number")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
  return typing.get_type_hints(kind)


def _is(value: Any, hint: Any) -> bool:
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if origin in (types.UnionType, typing.Union):
    return any(_is(value, each) for each in inner)
  if origin is Mapping:
    return isinstance(value, Mapping) and all(_is(each, inner[1]) for each in value.values())
  if origin is Sequence:
    return isinstance(value, list | tuple) and all(_is(each, inner[0]) for each in value)
  if hint is float:
    if value is None:  # how a number that is not finite is written
      return True
    # A bool is a number to Python, and none in a record.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # JSON's integers have no end: a larger one would overflow where it is drawn or printed.
    return number and -1e100 < value < 1e100
  if hint is int:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
  if isinstance(hint, type) and not isinstance(value, hint):
    # A data class within another one is a JSON object.
    if not (isinstance(value, Mapping) and hasattr(hint, "__dataclass_fields__")):
      return False
    require(value, hint)
  return True
