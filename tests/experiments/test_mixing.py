"""Tasks of a mixture are drawn in training at the rates of `Experiment.mixing`."""

import functools

import numpy as np
import pytest

from promot_jax.data import examples as example_lists
from promot_jax.data import mixtures
from promot_jax.errors import ConfigError
from promot_jax.experiments import data
from promot_jax.experiments.experiment import Experiment
from promot_jax.networks import micro_model
from promot_jax.networks.network import Network
from promot_jax.training import optimizers, schedules
from promot_jax.training.stages import Stage

SIZES = {"rte": 90, "wmt14_en_fr": 10}
STAGE = Stage(
  name="model",
  trainable=".*",
  steps=32,
  batch_size=20,
  optimizer=optimizers.adamw,
  learning_rate=schedules.constant(1e-3),
)


class Reader:
  """Examples of unequal tasks, without a seqio task."""

  def examples(self, experiment, task, split, lengths, limit):
    tokens = [np.asarray([4, 1], np.int32)] * SIZES[task]
    return example_lists.in_memory(task, tokens, tokens, [{}] * SIZES[task])


def experiment(**changes):
  return Experiment(
    name="multitask",
    model_dir="unused",
    network=Network(backbone=micro_model.config(), checkpoint="random"),
    source="micro",
    task="rte_and_wmt14_en_fr",
    stages=(STAGE,),
    **changes,
  )


@pytest.mark.parametrize(
  ("changes", "share"),
  [
    ({}, 0.5),
    ({"mixing": mixtures.proportional}, 0.1),
    ({"mixing": functools.partial(mixtures.temperature, temperature=2.0)}, 0.25),  # 1 : sqrt(9)
    ({"mixing": mixtures.weighted([3, 2])}, 0.4),
  ],
)
def test_tasks_are_drawn_as_mixing_says_with_their_own_prompts(changes, share):
  made = experiment(**changes)
  batches = data.train_batches(made, "model", 20, Reader())
  ids = np.concatenate([batches(step)["prompt_ids"] for step in range(32)])
  assert set(ids) == {0, 1}
  assert abs(np.mean(ids == 1) - share) < 0.02


def test_what_gives_no_rates_is_refused():
  with pytest.raises(ConfigError, match=r"MIXING = @mixtures\.proportional"):
    experiment(mixing="proportional")
