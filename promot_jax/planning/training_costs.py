"""What training a stage costs by group of parameters, from shapes alone: nothing is allocated.

A group is what one method adds, by the name of its class, or a part of the backbone.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from promot_jax import paths
from promot_jax.methods.base import Method
from promot_jax.training.stages import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
  """One group.  Bytes are those of the whole model, before a mesh divides them.

  group: 'LoRA', 'encoder', ...
  parameters, trained: numbers of scalars.
  gradients, optimizer: bytes.
  """

  group: str
  parameters: int = 0
  trained: int = 0
  gradients: int = 0
  optimizer: int = 0


def costs(model: Any, method: Method | None, stage: Stage | None) -> list[Cost]:
  """The groups of a model in the order of their first parameters, then what the optimizer counts.

  Args:
    model: with the method attached; abstract is enough.
    method: None: the model has none.
    stage: None: nothing is trained.

  Raises:
    ConfigError: a pattern of the stage or of its optimizer selects nothing.
  """
  leaves = paths.named_leaves(model)
  groups = _groups(leaves, method)
  trained: dict[str, Any] = {}
  state: dict[str, Any] = {}
  if stage is not None:
    # The optimizer sees what is trained only, as in the loop; its state is made as shapes.
    _, trainable, _ = paths.split(model, stage.trainable)
    trained = paths.named_leaves(trainable)
    state = paths.named_leaves(jax.eval_shape(stage.optimizer(stage.learning_rate).init, trainable))
  found = {group: Cost(group=group) for group in groups.values()}
  for name, leaf in leaves.items():
    own, size = found[groups[name]], math.prod(leaf.shape)
    found[groups[name]] = dataclasses.replace(
      own,
      parameters=own.parameters + size,
      trained=own.trained + size * (name in trained),
      # A gradient has the type of its parameter.
      gradients=own.gradients + _bytes(leaf) * (name in trained),
    )
  for name, leaf in state.items():
    parameter = _parameter_of(name, trained)
    # Steps and the like belong to no parameter.
    group = "(counters)" if parameter is None else groups[parameter]
    own = found.get(group, Cost(group=group))
    found[group] = dataclasses.replace(own, optimizer=own.optimizer + _bytes(leaf))
  return list(found.values())


def format_costs(rows: Sequence[Cost]) -> str:
  """The groups as a table, with their sum."""
  fields = ("parameters", "trained", "gradients", "optimizer")
  total = Cost(group="sum", **{field: sum(getattr(row, field) for row in rows) for field in fields})
  lines = [("group", "parameters", "share", "trained", "gradients", "optimizer")]
  for row in (*rows, total):
    share = 100 * row.parameters / total.parameters if total.parameters else 0.0
    lines.append(
      (
        row.group,
        f"{row.parameters:,}",
        f"{share:.4g} %",
        f"{row.trained:,}",
        _size(row.gradients),
        _size(row.optimizer),
      )
    )
  widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
  text = [
    "  ".join(
      cell.rjust(width) if column else cell.ljust(width)
      for column, (cell, width) in enumerate(zip(line, widths))
    )
    for line in lines
  ]
  text.insert(1, "-" * len(text[0]))
  return "\n".join(text)


def _groups(names: Any, method: Method | None) -> dict[str, str]:
  """Parameter -> its group."""
  groups = {name: name.split("/", 1)[0] for name in names}
  # Methods after the backbone's parts: what they add lies among these by its name.
  for each in method.parts if method is not None else ():
    groups |= dict.fromkeys(paths.match(each.parameters, names), type(each).__name__)
  return groups


def _parameter_of(name: str, trained: Any) -> str | None:
  """The parameter that an array of an optimizer belongs to: '0/mu/a/kernel', 'v/a/kernel/v_row'."""
  parts = name.split("/")
  # A state's path is the parameter's with optax's names before it ('0/mu'), and one name of
  # Adafactor's behind it ('v_row').
  for start in range(len(parts)):
    for end in (len(parts), len(parts) - 1):
      parameter = "/".join(parts[start:end])
      if parameter in trained:
        return parameter
  return None


def _bytes(leaf: Any) -> int:
  return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def _size(number: int) -> str:
  for unit, size in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
    if number >= size:
      return f"{number / size:,.2f} {unit}"
  return f"{number} B"
