"""A whole backbone from unrolled to scanned layers and back, whichever stacks it has."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from flax import nnx

from promot_jax import paths
from promot_jax.models import preparation, stack

Backbone = TypeVar("Backbone", bound=nnx.Module)


def stack_layers(model: Backbone) -> Backbone:
  """A scanned copy of an unrolled model, methods and all; the arrays of layers are stacked."""
  return _with_layers(model, stack.stack_layers, scan=True)


def unstack_layers(model: Backbone) -> Backbone:
  """An unrolled copy of a scanned model."""
  return _with_layers(model, stack.unstack_layers, scan=False)


def _with_layers(
  model: Backbone, convert: Callable[[stack.Layers], stack.Layers], *, scan: bool
) -> Backbone:
  copy = paths.copy(model)  # new modules and variables, same arrays
  # The configuration says the form too, for whoever builds the same network again.
  copy.config = dataclasses.replace(model.config, scan_layers=scan)
  for part in copy.stacks.values():
    part.layers = convert(part.layers)
  # What a method keeps of each layer lies outside of the stacks and must follow them.
  for child in vars(copy).values():
    if isinstance(child, preparation.Generator):
      child.with_layers(convert)
  return copy
