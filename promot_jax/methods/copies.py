"""Trained copies of backbone parameters, which the network uses in their place.

A method that trains a part of the backbone keeps the part as it was: the copies are the method's own
parameters, under their names in the backbone, and taking the method off leaves the backbone bit for
bit.  Training is exactly that of the parameters in place, whatever the optimizer.  Costs nothing but
the second copy: `fill` runs when a call is prepared (`models.preparation`), and only exchanges arrays.
"""

import re
from collections.abc import Callable, Iterable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base
from promot_jax.models import preparation, stack

OF_LAYERS = (
  r"(encoder|decoder)/layers/(\d+/)?((\w*attention|mlp)/\w+/(kernel|bias)|\w+norm/(scale|bias)"
  r"|relpos_bias/rel_embedding)"
)
"""Parameters of a backbone's layers; what methods add to them has longer names."""
_LAYERS = "layers"
_VOCABULARY = re.compile(r"token_embedder/|decoder/logits_dense/")


class Branch(nnx.Module):
  """A place in the backbone's tree: attributes are places below, or copies."""


class Copies(preparation.Generator):
  """Copies by their places in the backbone.

  `top` says for which stacks they are of the last layers only: (stack, number of layers) pairs.  Such
  copies count layers from 0 at the first copied one.
  """

  def __init__(self, leaves: dict[str, jax.Array], *, layers: dict[str, int], top: dict[str, int]):
    """`layers`: number of layers of each stack; `leaves`: by their names in the backbone."""
    self.top = tuple(sorted(top.items()))
    for name, leaf in leaves.items():
      # Branches are named as the backbone's modules, so that a copy's name ends in the original's.
      *places, last = name.split("/")
      branch: nnx.Module = self
      # Unrolled layers are a list: its places have to exist before any of them is filled.
      if len(places) > 2 and places[1] == _LAYERS and places[2].isdigit():
        stack_name, number = places[0], int(places[2])
        count = top.get(stack_name, layers[stack_name])
        branch = _child(self, stack_name)
        if not hasattr(branch, _LAYERS):
          branch.layers = nnx.List([Branch() for _ in range(count)])
        # Of the last layers only: the first copied one has number 0.
        branch = branch.layers[number - (layers[stack_name] - count)]
        places = places[3:]
      for place in places:
        branch = _child(branch, place)
      setattr(branch, last, nnx.Param(leaf))

  def fill(self, model: nnx.Module, call: preparation.Call) -> None:
    """Puts the copies where the originals are."""
    del call
    top = dict(self.top)
    for name, child in vars(self).items():
      if not isinstance(child, Branch):
        continue
      target = getattr(model, name)
      layers = getattr(child, _LAYERS, None)
      # Scanned layers cannot be exchanged in part: a second scan has to run over the last ones.
      if layers is not None and name in top:
        target.layers = _with_top(target.layers, layers, top[name])
      elif layers is not None:
        _exchange(target.layers, layers)
      for other, below in vars(child).items():
        if other != _LAYERS:
          _put(target, other, below)

  def with_layers(self, convert: Callable[[stack.Layers], stack.Layers]) -> None:
    """Copies of layers follow the layers of their stack."""
    for child in vars(self).values():
      if isinstance(child, Branch) and hasattr(child, _LAYERS):
        child.layers = convert(child.layers)


class Copying(base.Method):
  """Of methods whose parameters are copies in one attribute of the model."""

  attribute: ClassVar[str]

  def detach(self, model: base.Model) -> base.Model:
    """The model with its own parameters again.

    Raises:
      ConfigError: the method is not attached.
    """
    return detach(model, self.attribute)

  def merge(self, model: base.Model) -> base.Model:
    """A plain backbone that computes what the model does: the trained copies are its parameters.

    Raises:
      ConfigError: the method is not attached.
    """
    return merge(model, self.attribute)


def attach(
  model: base.Model,
  attribute: str,
  names: Iterable[str],
  *,
  top: dict[str, int] | None = None,
) -> base.Model:
  """A copy of the model with trained copies of parameters, in an attribute of the model.

  Args:
    names: of the parameters; those of layers that are scanned are copied in all layers, or in the
      last ones of `top`.
    top: stack -> number of its last layers that are copied.

  Raises:
    ConfigError: there is such an attribute already, or a table of the vocabulary is among the names.
  """
  if hasattr(model, attribute):
    raise errors.ConfigError(f"The model already has '{attribute}'; detach it before attaching.")
  # Losses take the output kernel from the model as it is, not as a call is prepared with it.
  names = list(names)
  if tables := [name for name in names if _VOCABULARY.match(name)]:
    raise errors.ConfigError(
      f"'{tables[0]}' cannot have a trained copy, because losses read the output kernel from the"
      " network itself; train it in place, by a stage's `trainable`, and leave it out here"
      " ('!token_embedder/.*', '!decoder/logits_dense/.*')."
    )
  model = paths.copy(model)
  top = top or {}
  layers = {name: stack.count(part.layers) for name, part in model.stacks.items()}
  leaves = paths.named_leaves(model)
  copied = {}
  for name in names:
    leaf = leaves[name]
    stack_name, _, rest = name.partition("/")
    if stack_name in top and rest.startswith(_LAYERS) and not rest.split("/")[1].isdigit():
      # Scanned: the last layers of an array of all of them.
      leaf = leaf[layers[stack_name] - top[stack_name] :]
    copied[name] = leaf
  setattr(model, attribute, Copies(copied, layers=layers, top=top))
  return model


def detach(model: base.Model, attribute: str) -> base.Model:
  """A copy of the model without them.

  Raises:
    ConfigError: there are none.
  """
  if not hasattr(model, attribute):
    raise errors.ConfigError(f"The model has no '{attribute}' to detach.")
  model = paths.copy(model)
  delattr(model, attribute)
  return model


def merge(model: base.Model, attribute: str) -> base.Model:
  """A copy of the model that has the copies as its own parameters.

  Raises:
    ConfigError: there are none.
  """
  if not hasattr(model, attribute):
    raise errors.ConfigError(f"The model has no '{attribute}' to merge.")
  model = paths.copy(model)
  copies: Copies = getattr(model, attribute)
  delattr(model, attribute)
  copies.fill(model, preparation.Call())
  for part in model.stacks.values():
    if isinstance(part.layers, stack.SplitLayers):
      # A plain backbone has one scan.
      part.layers = stack.joined(part.layers)
  return model


def _child(branch: nnx.Module, name: str) -> nnx.Module:
  if not hasattr(branch, name):
    setattr(branch, name, Branch())
  return getattr(branch, name)


def _exchange(target: nnx.Module, copies: nnx.Module) -> None:
  """All copies below a place, into the same places of the network."""
  if isinstance(copies, nnx.List):
    for layer, own in zip(stack.members(target), copies):
      _exchange(layer, own)
    return
  for name, below in vars(copies).items():
    if isinstance(below, Branch | nnx.Param):
      _put(target, name, below)


def _put(target: nnx.Module, name: str, below: nnx.Module | nnx.Param) -> None:
  if isinstance(below, nnx.Param):
    # A variable of its own: one that stands in two places would be one node of the graph.
    setattr(target, name, nnx.Param(below[...]))
  elif isinstance(below, Branch):
    _exchange(getattr(target, name), below)


def _with_top(layers: stack.Layers, copies: stack.Layers, count: int) -> stack.Layers:
  """Layers of which the last `count` are the copies."""
  if not stack.is_scanned(layers):
    for layer, own in zip(stack.members(layers)[-count:], stack.members(copies)):
      _exchange(layer, own)
    return layers
  number = stack.count(layers)
  # All of the last layers, for what has no copy there (parts of other methods) must come along.
  upper = jax.tree.map(lambda leaf: jnp.asarray(leaf[number - count :]), layers)
  _exchange(upper, copies)
  return stack.SplitLayers(layers, upper)
