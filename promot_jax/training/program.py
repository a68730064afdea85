"""The jitted update of a stage, with all that every step is given besides its batch."""

import dataclasses
import zlib
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from promot_jax import partitioning
from promot_jax.training import guard
from promot_jax.training import state as state_lib
from promot_jax.training import step as step_lib
from promot_jax.training.objectives import Batch, Metrics
from promot_jax.training.penalties import Held
from promot_jax.training.stages import Stage
from promot_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
  """How far training has come.

  step: updates that were dispatched; the device may still be at work at the last ones.
  state: what they give.
  sound: boolean scalar on the device, whether all of them were finite (`guard`).
  """

  step: int
  state: TrainState
  sound: jax.Array


class Program:
  """From one position to the next, and which shapes of batches it was compiled for.

  Args:
    stage: what is trained, and how.
    graphdef: of the model, with the stage's own dropout.
    optimizer: of the stage, made with its learning rate.
    state: where it starts; of its arrays only the places matter.
    frozen: parameters that are not trained.
    seed: of dropout.
    teacher: handed to the objective.
    held: handed to the stage's penalty.
  """

  def __init__(
    self,
    stage: Stage,
    graphdef: nnx.GraphDef,
    *,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    frozen: nnx.State,
    seed: int,
    teacher: Any,
    held: Held | None,
  ) -> None:
    # New states lie as this one does, or the second step would be compiled once more.
    shardings = state_lib.shardings_of(state)
    train_step = step_lib.make_train_step(
      graphdef,
      stage.objective,
      optimizer,
      stage.learning_rate,
      microbatches=stage.microbatches,
      penalty=stage.penalty,
      own_teacher=stage.own_teacher,
      teacher_inputs=stage.teacher_inputs,
      shardings=shardings,
    )
    self._update = guard.guarded(train_step, shardings)
    # Arguments of each call, not closed over: constants would be copied into every program.
    self._frozen, self._teacher, self._held = frozen, teacher, held
    # A stage's dropout differs from another's under the same seed.
    self._key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stage.name.encode()))
    self._compiled: set[tuple] = set()

  def knows(self, batch: Batch) -> bool:
    """Whether it is compiled for batches of this shape."""
    return _shapes(batch) in self._compiled

  def __call__(self, position: Position, batch: Batch) -> tuple[Position, Metrics]:
    """Dispatches one update; the arrays of the former position are donated."""
    self._compiled.add(_shapes(batch))
    state, sound, metrics = self._update(
      position.state, position.sound, self._frozen, batch, self._key, self._teacher, self._held
    )
    return Position(step=position.step + 1, state=state, sound=sound), metrics


def position_at(step: int, state: TrainState) -> Position:
  """A position from which training starts or goes on."""
  # Placed like the state: a first call with other places than the later ones compiles twice.
  sound = partitioning.put(np.asarray(True), state.step.sharding)
  return Position(step=step, state=state, sound=sound)


def _shapes(batch: Batch) -> tuple:
  return tuple(leaf.shape for leaf in jax.tree.leaves(batch))
