"""A stage's own model as its teacher, which follows the student slowly.

    w <- w + rate * (theta - w)        after each update, w = theta before the first

w are the teacher's values of what is trained; all else is shared with the student.  Averages of this kind teach in
Tarvainen and Valpola, 2017, "Mean teachers are better role models", and with a demonstration in its input this is the
teacher of self-distillation (Shenfeld et al., 2026, arXiv:2601.19897).

The averages are part of the training state, so that a run that goes on has them to the bit.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import limits

RECIPE_VALUES = ("OwnTeacher",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnTeacher:
  """The student itself, some updates ago; in the place of a network as `Stage.teacher`.

  rate: share of the difference to the student that each update takes away, above 0; at 1 the teacher is the
    student.  One that stays at the start is a network: `teacher = @network.Network()`.
  """

  rate: float = 0.01

  def __post_init__(self):
    limits.require("OwnTeacher", above=0, most=1, rate=self.rate)

  @property
  def about(self) -> str:
    """What it is, for a plan and a record."""
    return "itself" if self.rate == 1 else f"the moving average of itself at rate {self.rate:g}"

  def identity(self) -> str:
    """Tells it apart from other teachers."""
    return repr(self)

  def first(self, trainable: nnx.State) -> nnx.State | None:
    """The averages before the first update; None: they are the student's own values."""
    if self.rate == 1:
      return None
    # At least float32: a hundredth of an update is nothing to a bfloat16 number.
    return jax.tree.map(
      lambda leaf: jnp.array(leaf, jnp.promote_types(leaf.dtype, jnp.float32)), trainable
    )

  def moved(self, average: nnx.State | None, trainable: nnx.State) -> nnx.State | None:
    """The averages after an update that gave `trainable`."""
    if average is None:
      return None
    return jax.tree.map(
      lambda old, new: old + self.rate * (new.astype(old.dtype) - old), average, trainable
    )

  def model(
    self,
    graphdef: nnx.GraphDef,
    average: nnx.State | None,
    trainable: nnx.State,
    frozen: nnx.State,
  ) -> Any:
    """The teacher of a step, from the state before it."""
    return nnx.merge(graphdef, trainable if average is None else average, frozen)
