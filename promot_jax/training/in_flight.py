"""Steps that the device is still at, and their metrics, which are read some steps late.

Reading a metric waits for its step.  So a step is read when others are already queued behind it, and the
device never waits for the host.
"""

import collections
from collections.abc import Callable
from typing import Any

import jax

from promot_jax.training import meter
from promot_jax.training.divergence import NotFinite
from promot_jax.training.events import Events, Scalars
from promot_jax.training.objectives import Metrics
from promot_jax.training.stages import Stage


class InFlight:
  """A queue of steps; what is read of them goes to events, to the pace, and to who waits for the votes.

  Args:
    stage: its log period says over how many steps one line of metrics averages.
    first: step that training starts or goes on at.
    events: who is told.
    hear: receives the vote of each step that was read.
  """

  def __init__(
    self, stage: Stage, *, first: int, events: Events, hear: Callable[[Any], object]
  ) -> None:
    self._stage, self._events, self._hear = stage, events, hear
    self._queue: collections.deque[tuple[int, int, Metrics, Any]] = collections.deque()
    self._window = meter.Window()
    self.pace = meter.Pace(stage.name, first=first, steps=stage.steps)

  def add(self, step: int, *, tokens: int, metrics: Metrics, vote: Any) -> None:
    """One more step was dispatched, the `step`-th, with that many real tokens."""
    self._queue.append((step, tokens, metrics, vote))

  def read(self, remaining: int = 0) -> None:
    """Reads all but the newest `remaining` steps, waiting for them if needed.

    Raises:
      NotFinite: of the first step whose loss or gradient is not.
    """
    while len(self._queue) > remaining:
      step, tokens, metrics, vote = self._queue.popleft()
      # All of one step in one transfer; this is where the host waits.
      metrics = jax.device_get(metrics)
      self._hear(vote)
      if not metrics["finite"][0]:
        raise NotFinite(step, metrics)
      # `finite` is 1 wherever training goes on, and would only fill the log.
      self._window.add({name: pair for name, pair in metrics.items() if name != "finite"})
      self.pace.finished(step, tokens, metrics)
      if step % self._stage.log_period == 0:
        self.tell(step)
      self._events.progress(self.pace.progress())

  def drop(self) -> None:
    """Forgets the steps that were not read."""
    self._queue.clear()

  def tell(self, step: int) -> None:
    """Means of the metrics since they were told last, as those until `step`."""
    values = self._window.take()
    rate = self.pace.progress()
    for name in ("steps_per_second", "tokens_per_second"):
      if getattr(rate, name) is not None:
        values[name] = getattr(rate, name)
    if values:
      self._events.scalars(Scalars(stage=self._stage.name, kind="train", step=step, values=values))
