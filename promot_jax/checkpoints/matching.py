"""Comparison of a checkpoint with what a model expects, for whole trees and before any reading."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from promot_jax import errors

_SHOWN = 5


class Stored(NamedTuple):
  """Shape and type of a stored array; `dtype` may be a jax extension type such as bfloat16."""

  shape: tuple[int, ...]
  dtype: Any


def require_equal(expected: Mapping[str, Any], found: Mapping[str, Any], *, where: str) -> None:
  """Compares names, shapes and types.

  Raises:
    ConfigError: they differ; the message has a table of the first differences.
  """
  rows = differences(expected, found)
  if not rows:
    return
  raise errors.ConfigError(
    f"{where} holds other arrays than the model needs"
    f" ({len(rows)} of {len(set(expected) | set(found))} differ). Use the configuration it was"
    f" saved with, or another directory.\n{table(rows, limit=_SHOWN)}"
  )


def differences(
  expected: Mapping[str, Any], found: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
  """(name, expected, found) of every array that differs, in the order of the names."""
  rows = []
  # Sets have no order, and two runs shall print the same first rows.
  for name in sorted(set(expected) | set(found)):
    wanted, present = text(expected.get(name)), text(found.get(name))
    if wanted != present:
      rows.append((name, wanted, present))
  return rows


def table(rows: Sequence[tuple[str, str, str]], *, limit: int = 20) -> str:
  """Lines 'name  expected  found' in columns, indented; the rows beyond `limit` are counted."""
  shown = [("name", "expected", "found"), *rows[:limit]]
  widths = [max(len(row[column]) for row in shown) for column in range(3)]
  lines = [
    "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    for row in shown
  ]
  return "\n".join([*lines, *([f"  and {len(rows) - limit} more"] if len(rows) > limit else [])])


def text(value: Any) -> str:
  """'float32[5,8]' of anything with shape and type; '-' of None."""
  if value is None:
    return "-"
  shape = ",".join(str(size) for size in value.shape)
  # Through NumPy: the description of a step has the type as text, an array has it as a type.
  return f"{np.dtype(value.dtype).name}[{shape}]"
