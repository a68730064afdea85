"""Checkpoints of an experiment as models, from what its stages left on the disk."""

from flax import nnx

from promot_jax import hosts, paths
from promot_jax.errors import DamagedCheckpoint
from promot_jax.experiments import checkpoint as checkpoints
from promot_jax.experiments import origin, way_on
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.networks import network, trained_methods
from promot_jax.training import choice


def identity(directory: ModelDirectory, checkpoint: Checkpoint) -> str:
  """What it starts from, and the checksums of the step that each of its stages handed on.

  Raises:
    ConfigError: a stage is not complete.
    DamagedCheckpoint: a step is not there, or the record of a choice is not as it was written.
  """
  parts = [checkpoint.start.identity()]
  # All stages count, not only the last: each holds the parameters that it trained and no others.
  for number, stage in enumerate(directory.experiment.stages[: checkpoint.stages], 1):
    store = directory.store(stage)
    step = checkpoint.step if number == checkpoint.stages else None
    step = choice.chosen_step(store) if step is None else step
    try:
      parts.append(origin.of_step(store.path(step)))
    except DamagedCheckpoint as damage:
      stages = directory.experiment.stages
      raise way_on.explain(damage, stages, number - 1, step, store) from None
  return "/".join(parts)


class Restored:
  """The models of an experiment's checkpoints.

  The steps of one stage have the model before it in common: that is kept.
  """

  def __init__(self, directory: ModelDirectory):
    self._directory = directory
    self._before: tuple[int, nnx.Module] | None = None  # number of stages, and the model after them

  def model(self, checkpoint: Checkpoint) -> nnx.Module:
    """The model with its method attached, if it has one.

    Raises:
      ConfigError: a stage is not complete, or was trained on top of another backbone.
      DamagedCheckpoint: its values cannot be read, or the record of a choice.
    """
    if checkpoint.stages:
      return self._after(checkpoint.stages, checkpoint.step)
    session, experiment = self._directory.session, self._directory.experiment
    session.pretrained(experiment)  # whose arrays what starts with it shares
    return session.loaded(experiment).model(checkpoint.start)

  def before(self, stages: int) -> nnx.Module:
    """The model that the stage behind the first `stages` ones begins with; raises as `model`."""
    if self._before is None or self._before[0] != stages:
      self._before = None  # frees its arrays first
      self._before = (stages, self._begun() if not stages else self._after(stages, None))
    return self._before[1]

  def _begun(self) -> nnx.Module:
    """The pretrained model with the experiment's method as it is before any training."""
    directory, experiment = self._directory, self._directory.experiment
    pretrained = self.model(checkpoints.pretrained(experiment))
    return network.attach(pretrained, experiment.method, directory.mesh, seed=experiment.seed)

  def _after(self, stages: int, step: int | None) -> nnx.Module:
    """The model after `stages` stages, the last of them at a certain step; None: its choice."""
    directory, experiment = self._directory, self._directory.experiment
    stage = experiment.stages[stages - 1]
    store = directory.store(stage)
    step = choice.chosen_step(store) if step is None else step
    # A stage saved only what it trained; the rest is the model that it began with.
    graphdef, trainable, frozen = paths.split(self.before(stages - 1), stage.trainable)
    # The fingerprint of the backbone was noted under the first stage (`course`).
    if stages == 1 and not hosts.several():
      trained_methods.require_backbone(store, directory.session.pretrained(experiment))
    try:
      restored = choice.restore_trainable(store, step, trainable)
    except DamagedCheckpoint as damage:
      raise way_on.explain(damage, experiment.stages, stages - 1, step, store) from None
    return nnx.merge(graphdef, restored, frozen)
