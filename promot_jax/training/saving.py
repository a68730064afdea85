"""The checkpoints that a stage makes on its way."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax import paths
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.training.program import Position
from promot_jax.training.stages import Stage


class Saving:
  """Saves positions, and knows which is the newest and how long ago that was.

  Args:
    stage: says how often.
    store: where to.
    metadata: what each checkpoint says besides the validations before it.
    newest: step of the checkpoint that training goes on from; None: from none.
  """

  def __init__(
    self, stage: Stage, store: AnyStore, *, metadata: Mapping[str, Any], newest: int | None
  ) -> None:
    self._stage, self._store, self._metadata = stage, store, metadata
    self.newest = newest  # step given to the store
    # Not the wall clock, which may be set back or forth.
    self._at = time.monotonic()

  def overdue(self, step: int) -> bool:
    """Whether the stage's time between two checkpoints is over."""
    seconds = self._stage.save_seconds
    return seconds is not None and step > 0 and time.monotonic() - self._at >= seconds

  def save(self, position: Position, history: Sequence[Mapping[str, Any]]) -> None:
    """Gives a position to the store, which may write it in the background.

    Raises:
      CannotWrite: the store could not write this step, or the one before.
    """
    leaves = paths.named_leaves(position.state)
    self._store.save(position.step, leaves, {**self._metadata, "history": list(history)})
    # From the end of the call: a slow disk does not make the next one overdue at once.
    self.newest, self._at = position.step, time.monotonic()
