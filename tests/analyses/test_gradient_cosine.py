"""Cosines of gradients against numpy on gradients of all parameters, taken of the loss as it is written."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.analyses import gradient_cosine
from promot_jax.analyses.gradient_cosine import GradientCosine
from promot_jax.data import examples as example_lists
from promot_jax.errors import ConfigError
from tiny_experiments import MODEL, experiment, opened
from tiny_models import batch_of, tiny


def gradients(model, batch):
  """Gradients by name of the summed cross-entropy, every parameter's, without the library's losses."""

  def loss(state):
    made = nnx.merge(graphdef, state)
    logits = jax.nn.log_softmax(made.logits(made.hidden(batch)), axis=-1)
    picked = np.eye(logits.shape[-1])[batch["decoder_target_tokens"]] * logits
    return -(picked.sum(-1) * batch["decoder_loss_weights"]).sum()

  graphdef, state = nnx.split(model)
  return {
    name: np.asarray(leaf)
    for name, leaf in paths.named_leaves(jax.jit(jax.grad(loss))(state)).items()
  }


@pytest.fixture(scope="module")
def model():
  return tiny("t5")


@pytest.fixture(scope="module")
def batches(model):
  """Two batches of the same inputs with other targets."""
  first = batch_of(model)
  first["decoder_loss_weights"] = np.asarray([[1, 1, 1, 1], [1, 1, 1, 0]], np.float32)
  labels = [name for name in first if name.startswith("decoder_")]
  other = {**first, **{name: first[name][::-1].copy() for name in labels}}
  return first, other


def test_the_cosine_of_a_group_is_that_of_its_gradients_one_after_the_other(model, batches):
  pattern = "decoder/layers/{last}/mlp/.*"
  found = gradient_cosine.cosines(
    model, batches[:1], batches[1:], weights={"mlp": pattern, "all": ".*"}
  )
  by_name = [gradients(model, batch) for batch in batches]
  last = max(int(each) for each in re.findall(r"decoder/layers/(\d+)/", " ".join(by_name[0])))
  for group, wanted in (("mlp", f"decoder/layers/{last}/mlp/"), ("all", "")):
    one, other = (
      np.concatenate([leaf.ravel() for name, leaf in own.items() if name.startswith(wanted)])
      for own in by_name
    )
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert found[group].cosine == pytest.approx(expected, abs=1e-5)
    assert found[group].parameters == one.size
    assert found[group].norm == pytest.approx(np.linalg.norm(one), rel=1e-4)
    assert abs(expected) < 0.999  # the labels were other ones


def test_equal_labels_have_the_cosine_1_and_batches_add_up(model, batches):
  weights = {"all": ".*"}
  same = gradient_cosine.cosines(model, batches[:1], batches[:1], weights=weights)
  assert same["all"].cosine == pytest.approx(1.0)
  both = gradient_cosine.cosines(model, batches, batches[::-1], weights=weights)
  assert both["all"].cosine == pytest.approx(1.0, abs=1e-5)


def test_layers_of_a_scanned_model_are_found_by_their_own_numbers(model, batches):
  weights = {"query": "decoder/layers/{last}/self_attention/query/kernel"}
  scanned, unrolled = (
    gradient_cosine.cosines(each, batches[:1], batches[1:], weights=weights)["query"]
    for each in (tiny("t5", scanned=True), model)
  )
  assert scanned.parameters == unrolled.parameters
  assert scanned.cosine == pytest.approx(unrolled.cosine, abs=1e-5)


def test_a_gradient_of_zero_has_no_direction():
  zero = np.zeros(3)
  found = gradient_cosine._cosine(zero, np.ones(3))
  assert (found.cosine, found.norm) == (None, 0.0)


def test_shuffled_examples_keep_inputs_and_lose_no_target():
  inputs = [np.asarray([number, 1], np.int32) for number in range(9)]
  targets = [np.asarray([20 + number, 1], np.int32) for number in range(9)]
  records = [{"targets": str(number)} for number in range(9)]
  plain = example_lists.in_memory("task", inputs, targets, records)
  moved = gradient_cosine.shuffled(plain, seed=0)
  assert [list(each) for each in moved.inputs] == [list(each) for each in inputs]
  found = [int(each[0]) - 20 for each in moved.targets]
  assert sorted(found) == list(range(9)) and found != list(range(9))
  assert [int(record["targets"]) for record in moved.records] == found
  again = gradient_cosine.shuffled(plain, seed=0)
  assert moved.content == again.content != plain.content


def test_a_pattern_that_matches_nothing_is_refused_before_a_model_is_restored(tmp_path):
  step = tmp_path / "stages/model/checkpoint_4"
  step.mkdir(parents=True)
  (step / "manifest.json").write_text("{}")  # enough to be listed, not to be restored
  run = opened(experiment(model_dir=str(tmp_path), stages=[MODEL]))
  with pytest.raises(ConfigError, match=r"'decoder/layers/0/mpl/wi' matches none.*mlp/wi"):
    GradientCosine(weights={"mlp": "decoder/layers/{last}/mpl/wi"})([run])
  assert not (tmp_path / "analyses").exists()


@pytest.mark.parametrize("weights", [{}, "decoder/.*", {"mlp": 3}])
def test_weights_are_names_with_patterns(weights):
  with pytest.raises(ConfigError, match="must be names with patterns"):
    GradientCosine(weights=weights)
  with pytest.raises(ConfigError, match="must be a list of steps"):
    dataclasses.replace(GradientCosine(), steps="100")
