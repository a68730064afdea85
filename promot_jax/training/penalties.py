"""What is added to the loss for moving weights away from those of a network: its values are the anchor.

A penalty is a function of parameters alone, so a step adds it once, beside the loss of its batch: neither
the number of microbatches nor what the loss is divided by changes it.  It is over the trained parameters
that the anchor has under the same names.  Others do not move (frozen ones), or have no place to be drawn
to (what a method added).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp

from promot_jax import errors, limits, paths
from promot_jax.types import Array, Float

RECIPE_VALUES = ("EWC", "Fisher", "L2SP")

Named = Mapping[str, Array]
Targets = Literal["sampled", "data"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
  """What a penalty holds trained parameters by, each by name.

  values: the anchor's, of those that it has.
  importance: how much each of these matters; empty: all alike.
  """

  values: Named
  importance: Named = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fisher:
  """What the Fisher information is taken on.

  examples: how many, rounded up to whole batches.
  batch_size: examples that are read together; their gradients are taken one after the other.
  targets: 'sampled' from the model, or those of the 'data'.
  tasks: names; None: the tasks that the stage trains on.
  """

  examples: int = 512
  batch_size: int = 16
  targets: Targets = "sampled"
  tasks: Sequence[str] | None = None

  def __post_init__(self):
    for field in ("examples", "batch_size"):
      limits.require("Fisher", least=1, **{field: getattr(self, field)})
      if not isinstance(getattr(self, field), int):
        raise errors.ConfigError(
          f"Fisher: {field}={getattr(self, field)!r} must be a whole number."
        )
    if self.targets not in get_args(Targets):
      raise errors.ConfigError(f"Fisher: targets={self.targets!r} must be 'sampled' or 'data'.")
    if isinstance(self.tasks, str) or (self.tasks is not None and not self.tasks):
      raise errors.ConfigError(
        f"Fisher: tasks={self.tasks!r} must be a list of names, or None for those of the stage."
      )
    object.__setattr__(self, "tasks", None if self.tasks is None else tuple(self.tasks))

  @property
  def batches(self) -> int:
    """How many batches a pass has."""
    return -(-self.examples // self.batch_size)


class Penalty(Protocol):
  """What a stage needs of a penalty; a frozen, hashable value."""

  anchor: Any
  """The network (`networks.network`) whose weights hold the trained ones."""

  @property
  def fisher(self) -> Fisher | None:
    """How the importance of parameters is measured, before the stage begins; None: all matter alike."""

  def __call__(self, trained: Named, held: Held) -> Float[Array, ""]:
    """What is added to the loss; `trained`: all trained parameters by name."""

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

  @property
  def fisher(self) -> None:
    return None

  def __call__(self, trained: Named, held: Held) -> Float[Array, ""]:
    moved = sum(_squares(trained[name], value).sum() for name, value in held.values.items())
    found = jnp.asarray(self.strength / 2 * moved, jnp.float32)
    if self.new_strength:
      new = sum(_squares(leaf).sum() for name, leaf in trained.items() if name not in held.values)
      found += self.new_strength / 2 * new
    return found

  def settings(self) -> str:
    """'L2SP(strength=0.01, new_strength=0)'."""
    return f"L2SP(strength={self.strength:g}, new_strength={self.new_strength:g})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EWC:
  """(strength / 2) sum_i F_i (theta_i - theta_0,i)^2, F the diagonal Fisher information at theta_0.

  Elastic weight consolidation; Kirkpatrick et al., 2017 (arXiv:1612.00796), equation 3, where the strength is
  lambda.

  anchor: the network that training starts from.
  fisher: on what F is measured.
  """

  anchor: Any
  strength: float = 1.0
  fisher: Fisher = dataclasses.field(default_factory=Fisher)

  def __post_init__(self):
    limits.require("EWC", above=0, strength=self.strength)

  def __call__(self, trained: Named, held: Held) -> Float[Array, ""]:
    found = jnp.zeros((), jnp.float32)
    for name, value in held.values.items():
      weight = jax.lax.stop_gradient(held.importance[name].astype(jnp.float32))
      found += (weight * _squares(trained[name], value)).sum()
    return self.strength / 2 * found

  def settings(self) -> str:
    """'EWC(strength=1, Fisher(examples=512, ...))'."""
    return f"EWC(strength={self.strength:g}, {self.fisher})"


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


def _squares(leaf: Array, origin: Array | None = None) -> Float[Array, "..."]:
  leaf = leaf.astype(jnp.float32)  # bfloat16 would lose what has moved little
  if origin is not None:
    leaf -= jax.lax.stop_gradient(origin.astype(jnp.float32))
  return jnp.square(leaf)
