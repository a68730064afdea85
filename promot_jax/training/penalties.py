"""What is added to the loss for moving weights away from those of a network: its values are the anchor.

A penalty is a function of parameters alone, so a step adds it once, beside the loss of its batch: neither
the number of microbatches nor what the loss is divided by changes it.  It is over the trained parameters
that the anchor has under the same names.  Others do not move (frozen ones), or have no place to be drawn
to (what a method added).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from promot_jax import errors, limits, paths
from promot_jax.types import Array, Float

RECIPE_VALUES = ("L2SP",)

Named = Mapping[str, Array]


class Penalty(Protocol):
  """What a stage needs of a penalty; a frozen, hashable value."""

  anchor: Any
  """The network (`networks.network`) whose weights hold the trained ones."""

  def __call__(self, trained: Named, held: Named) -> Float[Array, ""]:
    """What is added to the loss.

    Args:
      trained: all trained parameters by name.
      held: the anchor's values of some of them (`held_by`).
    """

  def settings(self) -> str:
    """Its numbers, as a person reads them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class L2SP:
  """(strength / 2) ||theta - theta_0||^2 + (new_strength / 2) ||theta_new||^2.

  theta are the trained parameters that the anchor has, theta_0 its values, theta_new the other trained
  parameters.  Li et al., 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks"
  (arXiv:1802.01483), equation 3, where the strengths are alpha and beta.

  anchor: the network that training starts from.
  """

  anchor: Any
  strength: float = 0.01
  new_strength: float = 0.0

  def __post_init__(self):
    limits.require("L2SP", above=0, strength=self.strength)
    limits.require("L2SP", least=0, new_strength=self.new_strength)

  def __call__(self, trained: Named, held: Named) -> Float[Array, ""]:
    moved = sum(_squares(trained[name], value) for name, value in held.items())
    found = jnp.asarray(self.strength / 2 * moved, jnp.float32)
    if self.new_strength:
      new = sum(_squares(leaf) for name, leaf in trained.items() if name not in held)
      found += self.new_strength / 2 * new
    return found

  def settings(self) -> str:
    """'L2SP(strength=0.01, new_strength=0)'."""
    return f"L2SP(strength={self.strength:g}, new_strength={self.new_strength:g})"


def held_by(anchor: Any, trainable: Any, *, owner: str) -> dict[str, Any]:
  """The anchor's values of the trained parameters that it has; shapes as well as arrays.

  Args:
    anchor: the network's model.
    trainable: the trained parameters of a stage.
    owner: the stage, for messages.

  Raises:
    ConfigError: it has none of them, or one in another shape.
  """
  trained, known = paths.named_leaves(trainable), paths.named_leaves(anchor)
  held = {name: known[name] for name in trained if name in known}
  if not held:
    raise errors.ConfigError(
      f"{owner} is held near a network that has none of the {len(trained)} parameters that it trains,"
      f" such as '{next(iter(trained))}'. Take the penalty off, or train parameters of the backbone."
    )
  for name, leaf in held.items():
    if leaf.shape != trained[name].shape:
      raise errors.ConfigError(
        f"{owner} is held near a network whose '{name}' has shape {leaf.shape}, and its own has"
        f" {trained[name].shape}. Take the network that it starts from."
      )
  return held


def _squares(leaf: Array, origin: Array | None = None) -> Float[Array, ""]:
  leaf = leaf.astype(jnp.float32)  # bfloat16 would lose what has moved little
  if origin is not None:
    leaf -= jax.lax.stop_gradient(origin.astype(jnp.float32))
  return jnp.square(leaf).sum()
