"""Replay: a share of the training examples comes from other tasks, so that they are not forgotten."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from promot_jax import errors, limits
from promot_jax.data.mixtures import Rates

RECIPE_VALUES = ("Replay",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
  """Which tasks a stage trains on beside its own, and how often; nothing is validated on them.

  tasks: names, with their shots; they divide the share equally.
  share: of the examples, above 0 and below 1.
  stages: names of the stages that replay; None: all.
  """

  tasks: Sequence[str]
  share: float = 0.1
  stages: Sequence[str] | None = None

  def __post_init__(self):
    for field in ("tasks", "stages"):
      if isinstance(given := getattr(self, field), str):
        raise errors.ConfigError(f"Replay.{field}={given!r} must be a list of names.")
    if not self.tasks:
      raise errors.ConfigError(
        "Replay.tasks is empty; name the tasks to replay, or take Replay out."
      )
    limits.require("Replay", above=0, below=1, share=self.share)
    object.__setattr__(self, "tasks", tuple(self.tasks))
    object.__setattr__(self, "stages", None if self.stages is None else tuple(self.stages))

  def of_stage(self, stage: str) -> tuple[str, ...]:
    """Names of the tasks that a stage replays."""
    return tuple(self.tasks) if self.stages is None or stage in self.stages else ()

  def beside(self, rates: Rates) -> Rates:
    """Rates of the stage's own tasks, which keep their proportions, and behind them of those replayed."""

    def all_rates(sizes: Sequence[int]) -> np.ndarray:
      count = len(self.tasks)
      own = (1 - self.share) * rates(sizes[:-count])
      return np.concatenate([own, np.full(count, self.share / count)])

    return all_rates
