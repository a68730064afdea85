"""Learned positions and the lengths of an experiment: refused before anything is trained."""

import dataclasses

import pytest

import tiny_experiments
from promot_jax import errors
from promot_jax.experiments import lengths
from promot_jax.experiments.experiment import EvaluationPlan
from promot_jax.experiments.shapes import abstract_model
from promot_jax.methods.prefix import PrefixTuning
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.networks.network import Network
from tiny_models import config

GPT2 = config("gpt2")  # of 24 positions
ROTARY = config("llama")
BART, T5 = config("bart"), config("t5")


def check(backbone, *, inputs, targets, method=None, **plan):
  experiment = tiny_experiments.experiment(
    network=Network(backbone=backbone, checkpoint="random"),
    feature_lengths={"inputs": inputs, "targets": targets},
    method=method,
    evaluation=EvaluationPlan(**{"unseen": [], **plan}),
  )
  lengths.check(experiment, abstract_model(experiment))


# 24 positions hold x and y but for the last token of y, which is never read.
@pytest.mark.parametrize("method,room", [(None, 0), (SoftPrompt(length=3), 3)])
def test_input_target_and_method_share_a_decoders_positions(method, room):
  check(GPT2, inputs=20 - room, targets=5, method=method)
  with pytest.raises(errors.ConfigError, match=r"feature_lengths.*25 positions.*learned 24"):
    check(GPT2, inputs=21 - room, targets=5, method=method)


def test_a_prefix_takes_positions_too():
  prefix = PrefixTuning(length=4)
  check(GPT2, inputs=16, targets=5, method=prefix)
  with pytest.raises(errors.ConfigError, match="25 positions"):
    check(GPT2, inputs=17, targets=5, method=prefix)


def test_each_stack_of_bart_has_its_own_positions():
  check(BART, inputs=16, targets=16)
  for wrong in ({"inputs": 17, "targets": 16}, {"inputs": 16, "targets": 17}):
    with pytest.raises(errors.ConfigError, match="16"):
      check(BART, **wrong)


@pytest.mark.parametrize("backbone", [T5, ROTARY])
def test_others_have_no_limit(backbone):
  check(backbone, inputs=200, targets=30)


def test_unseen_tasks_count_as_far_as_they_are_evaluated():
  fits = {"inputs": 16, "targets": 5}
  long = {"inputs": 30, "targets": 5}
  check(GPT2, **fits, feature_lengths=long)
  check(GPT2, **fits, unseen=["cb"], feature_lengths=fits, task_lengths={"wic": long})
  with pytest.raises(errors.ConfigError, match=r"EvaluationPlan.feature_lengths = .*30"):
    check(GPT2, **fits, unseen=["cb"], feature_lengths=long)
  with pytest.raises(errors.ConfigError, match="task_lengths of cb"):
    check(GPT2, **fits, unseen=["cb"], feature_lengths=fits, task_lengths={"cb": long})


def test_nothing_is_allocated():
  huge = {"width": 65_536, "mlp_width": 262_144, "layers": 2, "head_width": 32_768}  # 400 GB
  check(dataclasses.replace(GPT2, **huge), inputs=16, targets=5)
