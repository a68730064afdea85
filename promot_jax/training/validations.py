"""The validations of a stage: what each is worth, and whether the stage goes on after them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from promot_jax import hosts
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.training import choice, selection
from promot_jax.training.events import Events, Scalars
from promot_jax.training.stages import Stage

Validate = Callable[[nnx.Module], Mapping[str, float]]


class Validations:
  """Makes them, records each beside its checkpoint, and tells it.

  Args:
    stage: its metric decides.
    validate: metrics of a model; None: there are none.
    store: where the checkpoints are.
    events: who is told.
    history: those before, an entry each: {'step': int, 'score': float, 'metrics': dict}.
  """

  def __init__(
    self,
    stage: Stage,
    validate: Validate | None,
    *,
    store: AnyStore,
    events: Events,
    history: list[dict[str, Any]],
  ) -> None:
    self._stage, self._validate, self._store, self._events = stage, validate, store, events
    self.history = history

  def lacks(self, step: int) -> bool:
    """Whether the parameters of a step can be validated and have not been."""
    return self._validate is not None and all(entry["step"] != step for entry in self.history)

  def add(self, step: int, model: nnx.Module) -> None:
    """Validates the model of a step that is saved; a score that is not finite is told and ignored.

    Raises:
      ConfigError: the validation does not give a metric that the choice needs.
    """
    assert self._validate is not None  # as `lacks` says
    metrics = {name: float(value) for name, value in self._validate(model).items()}
    # The first process's numbers everywhere: a last bit that differs could choose other steps.
    metrics = hosts.first(lambda: metrics)
    score = choice.score(self._stage, metrics)
    if not math.isfinite(score):
      name = selection.describe(self._stage.metric)
      self._events.line(f"validation {name} is {score} at step {step}: ignored")
      return
    # On the disk before it is told: what was reported is still there after a kill.
    self._store.record_score(step, score, metrics)
    self.history.append({"step": step, "score": score, "metrics": metrics})
    self.tell_newest()

  def tell_newest(self) -> None:
    """The metrics of the newest validation, as an event."""
    step, values = self.history[-1]["step"], self.history[-1]["metrics"]
    self._events.scalars(
      Scalars(stage=self._stage.name, kind="validation", step=step, values=values)
    )

  def stopped(self, step: int) -> str:
    """Why the stage's patience is at its end after a step; empty where it goes on."""
    return choice.stopped(self._stage, self.history, step)
