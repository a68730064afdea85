"""What the checkpoints of a stage say of their run, and what a run that goes on from them must share."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.checkpoints.store import Checkpoint
from promot_jax.identity import Identity
from promot_jax.training import choice
from promot_jax.training.stages import Stage

_ORIGIN = "made_from"  # field of a checkpoint's metadata and of the marker


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lineage:
  """One run of a stage.

  Attributes:
    stage: what is done.
    seed: of dropout.
    made_from: data, start and code; None: they are not compared.
    beside: what else each checkpoint says (JSON).
    allow_change: go on with checkpoints of another seed, batch size or data.
  """

  stage: Stage
  seed: int
  made_from: Identity | None
  beside: Mapping[str, Any]
  allow_change: bool

  @property
  def marker(self) -> dict[str, Any]:
    """What the marker of the complete stage says of its run."""
    origin = {} if self.made_from is None else {_ORIGIN: self.made_from.to_json()}
    return {**choice.identity(self.stage, self.seed), **origin}

  @property
  def metadata(self) -> dict[str, Any]:
    """What every checkpoint says of its run."""
    # What the run itself compares comes last: a caller's field of the same name cannot hide it.
    return {**self.beside, **self.marker, **choice.record(self.stage)}

  def completed(self, store: AnyStore) -> tuple[dict[str, Any] | None, list[str]]:
    """The marker of a stage that is complete, else None; and lines on what changed since.

    Raises:
      ConfigError: the store belongs to another run, or the stage was trained with other settings.
    """
    change = self.allow_change
    done = choice.completed(self.stage, store, self.seed, allow_change=change)
    if done is None or self.made_from is None:
      return done, []
    where = str(store.directory)
    return done, choice.compare_complete(
      self.stage.name, self.made_from, done, where=where, allow_change=change
    )

  def continued(self, checkpoint: Checkpoint, store: AnyStore) -> list[str]:
    """Lines on what changed since a checkpoint from which the stage goes on.

    Raises:
      ConfigError: it belongs to another stage, seed, batch size, choice or to other data, or is beyond
        the end of the stage.
    """
    stage, metadata, where = self.stage, checkpoint.metadata, str(store.path(checkpoint.step))
    lines: list[str] = []
    fixed = choice.identity(stage, self.seed, allow_change=self.allow_change)
    choice.require_same_run(fixed, metadata, where=where)
    if self.made_from is not None:
      stored = metadata.get(_ORIGIN)
      lines = choice.compare(self.made_from, stored, where=where, allow_change=self.allow_change)
    # Without a validation there is nothing to compare, and another choice does no harm.
    if metadata["history"] or store.score(checkpoint.step):
      choice.require_same_choice(stage, metadata, where=where)
    if checkpoint.step > stage.steps:
      raise errors.ConfigError(
        f"{where} is beyond the {stage.steps} steps of stage '{stage.name}'; give at least"
        f" {checkpoint.step} steps or use another directory."
      )
    return lines
