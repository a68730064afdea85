"""Layers one after the other: unrolled (a list of modules) or scanned (one module, stacked leaves).

The two forms share the code of a layer and differ only here.  Unrolled is the default: parameter
paths carry the layer number and checkpoints map one to one.  Scanned compiles one layer instead of
N, for models whose compile time or memory needs it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import paths
from promot_jax.errors import ConfigError
from promot_jax.types import Key, PyTree

REMAT_POLICIES: dict[str, Any] = {
  "none": None,
  "full": jax.checkpoint_policies.nothing_saveable,
  "minimal": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
}
"""What the backward pass keeps: everything, layer inputs only, or results of weight products."""

Layers = nnx.List | nnx.Module


class SplitLayers(nnx.Module):
  """Scanned layers of which the last ones are others: two scans, one after the other.

  Where only the last ones are trained, nothing is kept of the first scan and no gradient enters it.

  lower: all N layers, of which the last ones are not used; they are not cut off, which would copy
    the rest.
  upper: the last ones.
  """

  def __init__(self, lower: nnx.Module, upper: nnx.Module):
    self.lower = lower
    self.upper = upper


def build(make_layer: Callable[[nnx.Rngs], nnx.Module], count: int, *, rngs: nnx.Rngs, scan: bool):
  """`count` layers, each with its own key; equal weights in both forms."""
  # One draw for the whole stack: what is built after it starts alike, whichever form this has.
  keys = jax.random.split(rngs.params(), count)
  if scan:
    return jax.vmap(lambda key: make_layer(nnx.Rngs(key)))(keys)
  return nnx.List([make_layer(nnx.Rngs(key)) for key in keys])


def is_scanned(layers: Layers) -> bool:
  """Whether the layers are one module with a leading layer axis on every leaf."""
  return not isinstance(layers, nnx.List)


def count(layers: Layers) -> int:
  """How many layers there are, in either form."""
  if isinstance(layers, nnx.List):
    return len(layers)
  if isinstance(layers, SplitLayers):
    # The lower part still has all layers, see `SplitLayers`.
    layers = layers.lower
  return jax.tree.leaves(layers)[0].shape[0]


def members(layers: Layers) -> list[nnx.Module]:
  """Modules that stand for all layers: each one of them, or those that are scanned."""
  if isinstance(layers, nnx.List):
    return list(layers)
  return [layers.lower, layers.upper] if isinstance(layers, SplitLayers) else [layers]


def run(
  layers: Layers,
  step: Callable[[nnx.Module, Any, PyTree], tuple[Any, PyTree]],
  carry: Any,
  inputs: PyTree = None,
  *,
  remat: str = "none",
) -> tuple[Any, PyTree]:
  """Applies `carry, output = step(layer, carry, input)` from the first layer to the last.

  Args:
    layers: from `build`.
    step: shared by both forms.
    carry: what goes from layer to layer.
    inputs: None, or what each layer receives: a tuple of one entry per layer if unrolled, a tree
      with a leading layer axis if scanned.  An array of keys serves both.
    remat: a name in REMAT_POLICIES.

  Returns:
    The last carry, and the outputs in the form of the inputs: a tuple, or stacked leaves.

  Raises:
    ConfigError: for an unknown `remat`.
  """
  if remat not in REMAT_POLICIES:
    raise ConfigError(f"remat={remat!r} is unknown; use one of {', '.join(REMAT_POLICIES)}.")
  if remat != "none":
    # Inside a scan nothing can be merged across layers anyway, so no barrier is needed.
    step = jax.checkpoint(step, policy=REMAT_POLICIES[remat], prevent_cse=not is_scanned(layers))
  if isinstance(layers, SplitLayers):
    return _run_split(layers, step, carry, inputs)
  if not isinstance(layers, nnx.List):
    # The module is what is scanned over: one layer's slice of every leaf is that layer.
    return jax.lax.scan(lambda carry, xs: step(xs[0], carry, xs[1]), carry, (layers, inputs))
  outputs = []
  for index, layer in enumerate(layers):
    carry, output = step(layer, carry, None if inputs is None else inputs[index])
    outputs.append(output)
  return carry, tuple(outputs)


def joined(layers: SplitLayers) -> nnx.Module:
  """The scanned layers that a split stack stands for."""
  # The last ones of `lower` are never used: those of `upper` stand in their place.
  first = count(layers) - count(layers.upper)
  return jax.tree.map(
    lambda lower, upper: jnp.concatenate([lower[:first], upper]), layers.lower, layers.upper
  )


def _run_split(
  layers: SplitLayers,
  step: Callable[[nnx.Module, Any, PyTree], tuple[Any, PyTree]],
  carry: Any,
  inputs: PyTree,
) -> tuple[Any, PyTree]:
  first = count(layers) - count(layers.upper)

  def lower_step(carry, index_and_input):
    index, own = index_and_input
    # Taken inside of the scan: handing the scan a slice would copy all frozen layers.
    layer = jax.tree.map(
      lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), layers.lower
    )
    return step(layer, carry, own)

  lower, upper = (
    jax.tree.map(lambda leaf, part=part: leaf[part], inputs)
    for part in (slice(None, first), slice(first, None))
  )
  carry, below = jax.lax.scan(lower_step, carry, (jnp.arange(first), lower))
  carry, above = jax.lax.scan(
    lambda carry, xs: step(xs[0], carry, xs[1]), carry, (layers.upper, upper)
  )
  return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), below, above)


def stack_layers(layers: Layers) -> Layers:
  """The scanned form of unrolled layers; scanned layers are returned as they are.

  Raises:
    ConfigError: layers have other parameters than the first one.
  """
  if not isinstance(layers, nnx.List):
    return layers
  for number, layer in enumerate(layers):
    # tree.map would refuse them too, with words about tree structures that name no parameter.
    if odd := set(paths.named_leaves(layer)) ^ set(paths.named_leaves(layers[0])):
      raise ConfigError(
        f"Layers 0 and {number} differ in '{min(odd)}', and scanned layers are all alike; let the"
        " method select the same in every layer, or leave the layers unrolled."
      )
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def unstack_layers(layers: Layers) -> Layers:
  """The unrolled form of scanned layers; unrolled layers are returned as they are."""
  if not is_scanned(layers):
    return layers
  return nnx.List([jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(count(layers))])


def split_keys(key: Key | None, parts: int) -> Key | None:
  """`parts` keys as one array, or None for None."""
  return None if key is None else jax.random.split(key, parts)
