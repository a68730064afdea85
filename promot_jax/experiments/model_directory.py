"""One experiment where it lies, with what its process has for it."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from promot_jax import partitioning
from promot_jax.checkpoints.shared import AnyStore, open_store
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.session import Session
from promot_jax.experiments.shared_results import open_results
from promot_jax.training.events import Events
from promot_jax.training.stages import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelDirectory:
  """An experiment in its model directory.

  session: data, networks and the signal to stop, of all experiments of this process.
  events: where lines, progress and metrics of this one go.
  """

  experiment: Experiment
  session: Session
  events: Events

  @property
  def folder(self) -> pathlib.Path:
    return pathlib.Path(self.experiment.model_dir)

  @property
  def mesh(self) -> Mesh | None:
    """The devices; None for a single one."""
    return self.session.mesh(self.experiment.mesh)

  def store(self, stage: Stage) -> AnyStore:
    """The checkpoints of a stage."""
    return open_store(
      self.folder / "stages" / stage.name, keep=stage.keep, report=self.session.console.line
    )

  def results(self, folder: str | pathlib.Path | None = None) -> ResultStore:
    """The results of a folder, by default the experiment's own; says what is damaged there."""
    return open_results(folder or self.folder / "evaluation", report=self.events.line)

  def place(self, batch: Mapping[str, Any]) -> Any:
    """A host batch on the devices."""
    # A single device takes host arrays as they are, and jit puts them there.
    return partitioning.global_batch(batch, self.mesh) if self.mesh is not None else batch
