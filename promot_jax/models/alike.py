"""Networks of one structure that have most of their arrays in common, run as one batched program.

Two prompts, prefixes or LoRA updates on one backbone differ in few arrays.  A call of all of them reads the
backbone's weights once, and its products have the rows of all: that is `jax.vmap` over what differs alone.
Networks that differ in more are called one after the other, since a batched product of different weights saves
nothing, and neither can those of different methods be batched, which are different programs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import paths
from promot_jax.models import preparation

_LARGEST_SHARE = 0.1
"""Of a network's bytes that may be its own: copying these side by side has to cost next to nothing."""


def common(networks: Sequence[Any]) -> tuple[str, ...] | None:
  """Names of the leaves that are the same object in all networks, arrays or shapes.

  To be asked outside of compiled functions, in which every network has objects of its own.

  Returns:
    None where the networks are not to be batched: one alone, other structures, or too much that differs; or
    methods in them that exchange arrays once a call is known, behind which a name says nothing.
  """
  if len(networks) < 2 or not all(map(preparation.is_ready, networks)) or not _alike(networks):
    return None
  first, *others = map(paths.named_leaves, networks)
  same = tuple(name for name, leaf in first.items() if all(other[name] is leaf for other in others))
  own = {name: leaf for name, leaf in first.items() if name not in set(same)}
  return same if paths.nbytes(own) <= _LARGEST_SHARE * paths.nbytes(first) else None


def each(
  call: Callable[..., Any], networks: Sequence[Any], *own: Any, same: tuple[str, ...]
) -> Any:
  """What `call(network, *arguments)` gives for every network, stacked along a first axis.

  Args:
    networks: those of `common`, or what a compiled function was given of them.
    own: of each argument those of all networks, stacked along a first axis.
    same: of `common`.
  """
  first, *others = map(paths.named_leaves, networks)
  known = set(same)
  different = {
    name: jnp.stack([leaf, *(other[name] for other in others)])
    for name, leaf in first.items()
    if name not in known
  }

  def one(leaves: dict[str, Any], *arguments: Any) -> Any:
    return call(paths.replace_leaves(networks[0], {**first, **leaves}), *arguments)

  # The size is said for members that are one and the same, of which nothing is stacked.
  return jax.vmap(one, axis_size=len(networks))(different, *own)


def _alike(networks: Sequence[Any]) -> bool:
  """Whether all are one program: the same modules and settings, and leaves of the same shapes and types."""
  graphdef, *others = map(nnx.graphdef, networks)
  kinds, *other_kinds = map(_kinds, networks)
  return all(other == graphdef for other in others) and all(other == kinds for other in other_kinds)


def _kinds(network: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
  leaves = paths.named_leaves(network)
  return {name: (tuple(leaf.shape), leaf.dtype) for name, leaf in leaves.items()}
