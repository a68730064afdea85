"""Experiments on the micro world that end in seconds, and a sink that remembers what is said."""

from promot_jax.decoding.strategies import Greedy
from promot_jax.experiments.experiment import EvaluationPlan, Experiment, MeshShape
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.experiments.session import Session
from promot_jax.networks import micro_model
from promot_jax.networks.network import Network
from promot_jax.signals import Stop
from promot_jax.training import optimizers, schedules
from promot_jax.training.events import Events
from promot_jax.training.stages import Stage

BACKBONE = micro_model.config(
  width=16, heads=2, head_width=6, mlp_width=24, encoder_layers=1, decoder_layers=1
)
PROMPT = Stage(
  name="prompt",
  trainable=".*/prompt/.*",
  steps=4,
  eval_period=2,
  batch_size=6,
  optimizer=optimizers.prompt_adafactor,
  learning_rate=schedules.constant(0.3),
)
MODEL = Stage(
  name="model",
  trainable="!.*/prompt/.*",
  steps=4,
  eval_period=2,
  batch_size=6,
  optimizer=optimizers.adafactor,
  learning_rate=schedules.constant(0.01),
)
REPORT = EvaluationPlan(
  unseen=("cb", "trivia_qa"),
  shots=(1,),
  strategy=Greedy(),
  batch_size=8,
  buckets=1,
  limit=5,
  feature_lengths={"inputs": 96, "targets": 8},
)
SHORT = {
  "feature_lengths": {"inputs": 64, "targets": 8},
  "train_limit": 30,
  "validation_limit": 7,
  "input_buckets": 1,
  "target_buckets": 1,
  "seed": 3,
}
"""Fields of an experiment that takes few examples, of one shape."""

_SHORT_STAGES = {
  "prompt": "PROMPT_LENGTH = 5\nPROMPT_STEPS = 2\nPROMPT_EVAL_PERIOD = 2\n",
  "model": "TRAIN_STEPS = 3\nEVAL_PERIOD = 3\n",
}
_SHORT_RECIPE = """
from __gin__ import dynamic_registration
from promot_jax.experiments import experiment

BATCH_SIZE = 4
TRAIN_EXAMPLES = 12
VALIDATION_EXAMPLES = 4
TASK_FEATURE_LENGTHS = {'inputs': 80, 'targets': 8}
experiment.EvaluationPlan:
  unseen = ['cb']
  limit = 4
  batch_size = 4
  buckets = 1
  feature_lengths = {'inputs': 96, 'targets': 8}
"""


def short_recipe(*stages: str) -> str:
  """A gin file behind a recipe of these stages: a few steps and examples instead of hundreds."""
  return _SHORT_RECIPE + "".join(_SHORT_STAGES[stage] for stage in stages)


def experiment(name: str = "tuned", /, **changes) -> Experiment:
  """The micro RTE with an untrained network of one layer, on one device."""
  values = {
    "name": name,
    "model_dir": "unused",
    "network": Network(backbone=BACKBONE, checkpoint="random"),
    "source": "micro",
    "task": "rte",
    "mesh": MeshShape(data=1, model=1),
  }
  return Experiment(**{**values, **changes})


def opened(made: Experiment, /, **session) -> ModelDirectory:
  """An experiment as another process finds it, which says nothing; `session`: fields of the Session."""
  values = {"stop": Stop(), "console": Events(), **session}
  return ModelDirectory(experiment=made, session=Session(**values), events=Events())


class Lines:
  """A sink of events that remembers lines."""

  def __init__(self) -> None:
    self.lines: list[str] = []

  def line(self, text: str) -> None:
    self.lines.append(text)

  def scalars(self, event) -> None:
    pass

  def progress(self, event) -> None:
    pass

  def rewind(self, stage: str, step: int) -> None:
    pass

  def close(self) -> None:
    pass
