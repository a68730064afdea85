"""Tasks of a mixture are drawn in training at the rates of `Experiment.mixing`."""

import dataclasses
import functools
import math
import types

import numpy as np
import pytest

from promot_jax.data import examples as example_lists
from promot_jax.data import mixtures
from promot_jax.data.replay import Replay
from promot_jax.errors import ConfigError
from promot_jax.experiments import data, epochs
from promot_jax.experiments.experiment import Experiment
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.networks import micro_model
from promot_jax.networks.network import Network
from promot_jax.training import optimizers, schedules
from promot_jax.training.classification import Classification
from promot_jax.training.stages import Stage

SIZES = {"rte": 90, "wmt14_en_fr": 10, "nq_open": 7, "e2e": 30}
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

  def training(self, experiment, task, lengths):
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


@pytest.mark.parametrize("task", ["rte", "rte_and_wmt14_en_fr"])
def test_replayed_tasks_divide_their_share_and_the_stages_own_keep_their_proportions(task):
  made = experiment(
    mixing=mixtures.proportional, replay=Replay(tasks=["nq_open", "e2e"], share=0.25)
  )
  made = dataclasses.replace(made, task=task)
  own = [SIZES[name] for name in made.tasks]
  batches = data.train_batches(made, "model", 20, Reader())
  drawn = np.concatenate([batches(step)["prompt_ids"] for step in range(32)])
  found = np.bincount(drawn, minlength=len(own) + 2) / len(drawn)
  expected = [*(0.75 * size / sum(own) for size in own), 0.125, 0.125]
  np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_stage_that_does_not_replay_sees_its_own_task_only():
  made = experiment(replay=Replay(tasks=["nq_open"], stages=[]))
  assert len(data.train_examples(made, "model", Reader())) == 2
  assert made.replayed("model") == ()


def test_epochs_are_passes_over_the_own_examples_whatever_is_replayed():
  stage = dataclasses.replace(STAGE, steps=None, epochs=2)
  made = experiment(replay=Replay(tasks=["e2e"], share=0.2))
  made = dataclasses.replace(made, stages=[stage])
  store = types.SimpleNamespace(read_json=lambda name, **how: None)
  counted = epochs.counted(made, 0, store, Reader())
  assert counted.stages[0].steps == math.ceil(2 * 100 / 0.8 / 20)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"tasks": ["nq_opn"]}, "nq_open"),
    ({"tasks": ["rte_and_wmt14_en_fr"]}, "which is a mixture; name its tasks"),
    ({"tasks": []}, "Replay.tasks is empty"),
    ({"tasks": "nq_open"}, "must be a list of names"),
    ({"share": 1.0}, "above 0 and below 1"),
    ({"stages": ["modl"]}, "Replay.stages has 'modl'"),
  ],
)
def test_a_replay_that_cannot_be_is_refused(changes, said):
  with pytest.raises(ConfigError, match=said):
    experiment(replay=Replay(**{"tasks": ["nq_open"], **changes}))


def test_a_replay_is_refused_for_classes_and_for_banks():
  replay = Replay(tasks=["nq_open"])
  stage = dataclasses.replace(STAGE, objective=Classification())
  with pytest.raises(ConfigError, match="stage 'model' learns the classes of its own task"):
    dataclasses.replace(experiment(), stages=[stage], replay=replay)
  with pytest.raises(ConfigError, match="no row of their own in the method's bank"):
    experiment(replay=replay, method=SoftPrompt(length=2, tasks=2))
