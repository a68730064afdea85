"""What a stage costs: groups, shares, and bytes that were counted by hand."""

import functools

import jax.numpy as jnp
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods.bias import BitFit
from promot_jax.methods.combined import Combined
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models.t5 import T5
from promot_jax.planning import training_costs
from promot_jax.training import optimizers, schedules
from promot_jax.training.stages import Stage
from tiny_models import config

WIDTH, HEADS, RANK, LENGTH = 12, 10, 2, 3


@pytest.fixture
def backbone():
  return nnx.eval_shape(lambda: T5(config("t5"), nnx.Rngs(0)))


def stage(trainable, optimizer):
  return Stage(
    name="stage",
    trainable=trainable,
    steps=1,
    batch_size=1,
    optimizer=optimizer,
    learning_rate=schedules.create_learning_rate_scheduler(),
  )


def rows(model, method, of):
  attached = nnx.eval_shape(lambda: method.attach(model, nnx.Rngs(1)))
  return {row.group: row for row in training_costs.costs(attached, method, of)}


def test_each_method_and_each_part_of_the_backbone_is_a_group(backbone):
  method = Combined(methods=[LoRA(rank=RANK), SoftPrompt(length=LENGTH)])
  found = rows(backbone, method, stage([method.parameters, "encoder/.*norm/.*"], optimizers.adam))
  lora = 2 * 5 * RANK * (WIDTH + HEADS)  # queries and values of 1 + 2 * 2 attentions
  assert (found["LoRA"].parameters, found["LoRA"].trained) == (lora, lora)
  assert (found["LoRA"].gradients, found["LoRA"].optimizer) == (4 * lora, 8 * lora)
  assert found["SoftPrompt"].gradients == 4 * LENGTH * WIDTH
  norms = 3 * WIDTH  # of one layer and of the whole encoder
  assert found["encoder"].trained == norms and found["encoder"].optimizer == 8 * norms
  assert found["decoder"].trained == found["decoder"].gradients == found["decoder"].optimizer == 0
  assert found["(counters)"].parameters == 0 and found["(counters)"].optimizer > 0
  parts = [row.parameters for group, row in found.items() if group not in ("LoRA", "SoftPrompt")]
  assert sum(parts) == paths.count(backbone)


def test_each_optimizer_of_a_stage_is_counted_where_its_parameters_are(backbone):
  groups = [
    optimizers.Group(parameters=".*/lora/.*", optimizer=optimizers.sgd),
    optimizers.Group(parameters=".*", optimizer=optimizers.adafactor),
  ]
  method = Combined(methods=[LoRA(rank=RANK), BitFit()])
  grouped = functools.partial(optimizers.grouped, groups=groups)
  found = rows(backbone, method, stage(method.parameters, grouped))
  assert found["LoRA"].optimizer == 0
  assert found["BitFit"].optimizer >= 4 * found["BitFit"].parameters  # vectors are not factored


def test_gradients_have_the_type_of_their_parameters(backbone):
  whole = stage(".*", optimizers.sgd)
  half = nnx.eval_shape(
    lambda model: paths.replace_leaves(
      model, {name: leaf.astype(jnp.bfloat16) for name, leaf in paths.named_leaves(model).items()}
    ),
    backbone,
  )
  for model, size in ((backbone, 4), (half, 2)):
    found = training_costs.costs(model, None, whole)
    assert sum(row.gradients for row in found) == size * paths.count(backbone)


def test_nothing_is_trained_without_a_stage_and_patterns_must_select(backbone):
  found = training_costs.costs(backbone, None, None)
  assert sum(row.parameters for row in found) == paths.count(backbone)
  assert not any(row.trained or row.gradients or row.optimizer for row in found)
  with pytest.raises(errors.ConfigError, match="'lorra'"):
    training_costs.costs(backbone, None, stage("lorra", optimizers.adam))


def test_the_table_shows_shares_and_sums():
  text = training_costs.format_costs(
    [
      training_costs.Cost(group="LoRA", parameters=10, trained=10, gradients=40, optimizer=2**21),
      training_costs.Cost(group="encoder", parameters=990),
    ]
  )
  lines = text.splitlines()
  assert lines[2].split() == ["LoRA", "10", "1", "%", "10", "40", "B", "2.00", "MB"]
  assert lines[4].split() == ["sum", "1,000", "100", "%", "10", "40", "B", "2.00", "MB"]
