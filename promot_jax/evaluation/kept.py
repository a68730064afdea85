"""The results of one checkpoint in a store: where an evaluation finds what is done and leaves the rest."""

import dataclasses
from collections.abc import Sequence

from promot_jax.evaluation.journal import Journal
from promot_jax.evaluation.records import Prediction, TaskResult
from promot_jax.evaluation.results import ResultStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
  """Results below `store` under the name of a checkpoint."""

  store: ResultStore
  checkpoint: str = "model"

  def find(self, wanted: TaskResult) -> TaskResult | None:
    """The finished result that `wanted` plans, or None; see `ResultStore.find`."""
    return self.store.find(self.checkpoint, wanted)

  def write(self, result: TaskResult, predictions: Sequence[Prediction]) -> None:
    """Stores a finished result."""
    self.store.write(self.checkpoint, result, predictions)

  def journal(self) -> Journal:
    """Raw outputs of results that are not finished."""
    return self.store.journal(self.checkpoint)
