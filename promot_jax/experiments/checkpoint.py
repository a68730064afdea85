"""The models that an experiment has, from the pretrained one to the last, as values."""

import dataclasses

from promot_jax.experiments.experiment import Experiment
from promot_jax.methods.base import Method
from promot_jax.networks.adapted import Adapted
from promot_jax.networks.network import AnyNetwork

PRETRAINED = "pretrained"
"""Name of the checkpoint before any stage."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """A network, with what the first stages of an experiment made of it.

  name: by which its results are kept.
  start: what the first stage begins with; of a method file the network that has it.
  method: is attached and can be taken off; None: there is none.
  stages: how many of the experiment's were trained.
  step: of the last of them; None: the one that it chose.
  made_of_trained: whether the start was made of networks that were trained on the experiment's task.
  """

  name: str
  start: AnyNetwork
  method: Method | None = None
  stages: int = 0
  step: int | None = None
  made_of_trained: bool = False

  @property
  def tuned(self) -> bool:
    """Whether it is more than the pretrained model."""
    return self.stages > 0 or self.method is not None or self.made_of_trained


def pretrained(experiment: Experiment) -> Checkpoint:
  """Before any stage.  It has no method: what that adds would be untrained."""
  return Checkpoint(
    name=PRETRAINED, start=experiment.start, made_of_trained=experiment.is_made_of_trained
  )


def after(experiment: Experiment, stages: int, step: int | None = None) -> Checkpoint:
  """After the first `stages` stages, the last of them at a certain step; None: the one it chose."""
  if not stages:
    return pretrained(experiment)
  name = experiment.stages[stages - 1].name
  return Checkpoint(
    name=name if step is None else f"{name}-{step}",
    start=experiment.start,
    method=experiment.method,
    stages=stages,
    step=step,
  )


def last(experiment: Experiment) -> Checkpoint:
  """What the experiment ends with."""
  return after(experiment, len(experiment.stages))


def of_method_file(experiment: Experiment, path: str) -> Checkpoint:
  """The experiment's pretrained model with the method of a file.

  Args:
    path: a method file, or an adapter of PEFT.

  Raises:
    ConfigError: there is no such file, or this version has no such method.
    DamagedCheckpoint: it cannot be read.
  """
  network = Adapted(network=experiment.start, method=path)
  return Checkpoint(
    name=f"method-{network.method_digest()}", start=network, method=network.trained().method
  )
