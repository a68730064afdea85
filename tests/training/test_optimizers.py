"""AdamW, Adam and SGD: one update worked out by hand, decay masks, clipping, schedules."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.training import optimizers, schedules


class Block(nnx.Module):
  def __init__(self):
    self.kernel = nnx.Param(jnp.array([[1.0, -2.0, 3.0]]))
    self.scale = nnx.Param(jnp.array([4.0, -5.0]))


def test_a_group_may_name_the_method_whose_parameters_it_has():
  class Low:
    parameters = ".*/low"

  assert optimizers.Group(parameters=Low, optimizer=optimizers.sgd).patterns == ".*/low"


def state_of(values=None):
  _, state = nnx.split(Block())
  return state if values is None else paths.replace_leaves(state, values)


GRADIENTS = {"kernel": jnp.array([[0.3, -0.1, 0.0]]), "scale": jnp.array([0.2, 0.4])}


def one_update(optimizer, steps=1):
  params, gradients = state_of(), state_of(GRADIENTS)
  state = optimizer.init(params)
  for _ in range(steps):
    updates, state = optimizer.update(gradients, state, params)
    params = optax.apply_updates(params, updates)
  return paths.named_leaves(params)


def test_first_adamw_update_moves_by_the_rate_and_decays_kernels_only():
  new = one_update(optimizers.adamw(0.1, weight_decay=0.5, eps=0.0))
  # Bias-corrected moments of the first step are g and g^2, so the update is the sign of g (and
  # 0 / 0 where g is 0, which eps=0 shows).
  np.testing.assert_allclose(
    new["kernel"][0, :2], [1 - 0.1 * (1 + 0.5 * 1), -2 - 0.1 * (-1 + 0.5 * -2)], rtol=1e-6
  )
  np.testing.assert_allclose(new["scale"], [4 - 0.1, -5 - 0.1], rtol=1e-6)


def test_decay_patterns_are_matched_or_refused():
  all_decayed = one_update(optimizers.adamw(0.1, weight_decay=0.5, decayed=[".*"]))
  np.testing.assert_allclose(all_decayed["scale"][1], -5 - 0.1 * (1 + 0.5 * -5), rtol=1e-6)
  only_scale = one_update(optimizers.adamw(0.1, weight_decay=0.5, decayed="scale"))
  np.testing.assert_allclose(only_scale["kernel"][0, 0], 0.9, rtol=1e-6)
  with pytest.raises(paths.PathError, match="'scales' matches none"):
    optimizers.adamw(0.1, decayed="scales").init(state_of())


def test_decay_may_select_nothing():
  biases = {"bias": jnp.array([4.0])}
  optimizer = optimizers.adamw(0.1, weight_decay=0.5)
  updates, _ = optimizer.update({"bias": jnp.array([2.0])}, optimizer.init(biases), biases)
  np.testing.assert_allclose(updates["bias"], [-0.1], rtol=2e-5)


def test_decay_patterns_are_matched_once_for_parameters_of_one_structure(monkeypatch):
  matched = []
  monkeypatch.setattr(paths, "match", lambda patterns, names: matched.append(1) or list(names))
  optimizer = optimizers.adamw(0.1)
  for number in range(3):
    values = {"kernel": jnp.ones(2 + number), "scale": jnp.ones(2)}
    optimizer.update(values, optimizer.init(values), values)
  assert len(matched) == 1


def test_sgd_follows_the_schedule():
  schedule = schedules.linear(1.0, total_steps=4)  # 1, 0.75, ...
  new = one_update(optimizers.sgd(schedule), steps=2)
  np.testing.assert_allclose(new["scale"], [4 - 1.75 * 0.2, -5 - 1.75 * 0.4], rtol=1e-6)


def test_adam_has_no_decay():
  np.testing.assert_allclose(one_update(optimizers.adam(0.1))["scale"], [3.9, -5.1], rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
  norm = np.sqrt(0.3**2 + 0.1**2 + 0.2**2 + 0.4**2)
  new = one_update(optimizers.sgd(1.0, global_norm_clip_threshold=0.1))
  np.testing.assert_allclose(new["scale"], [4 - 0.2 * 0.1 / norm, -5 - 0.4 * 0.1 / norm], rtol=1e-6)
  unclipped = one_update(optimizers.sgd(1.0, global_norm_clip_threshold=1.0))
  np.testing.assert_allclose(unclipped["scale"], [3.8, -5.4], rtol=1e-6)


def test_each_group_has_its_own_optimizer_and_rate():
  groups = [
    optimizers.Group(parameters="kernel", optimizer=optimizers.sgd, learning_rate=0.5),
    optimizers.Group(parameters=".*", optimizer=optimizers.adam),
  ]
  new = one_update(optimizers.grouped(0.1, groups=groups))
  np.testing.assert_allclose(new["kernel"], [[1 - 0.15, -2 + 0.05, 3]], rtol=1e-6)
  np.testing.assert_allclose(new["scale"], [4 - 0.1, -5 - 0.1], rtol=1e-6)  # Adam: sign of g


@pytest.mark.parametrize(
  "make", [optimizers.adafactor, optimizers.adamw, optimizers.prompt_adafactor, optimizers.sgd]
)
def test_one_group_is_the_optimizer_itself(make):
  group = optimizers.Group(parameters=".*", optimizer=make)
  alone = one_update(make(0.1), steps=2)
  for name, leaf in one_update(optimizers.grouped(0.1, groups=[group]), steps=2).items():
    np.testing.assert_array_equal(leaf, alone[name])


def test_state_of_a_group_holds_its_parameters_only():
  groups = [
    optimizers.Group(parameters="scale", optimizer=optimizers.sgd),
    optimizers.Group(parameters=".*", optimizer=optimizers.adamw),
  ]
  state = optimizers.grouped(0.1, groups=groups).init(state_of())
  moments = {name for name in paths.named_leaves(state) if name.endswith(("kernel", "scale"))}
  assert len(moments) == 2 and all(name.endswith("kernel") for name in moments)


def test_groups_that_leave_parameters_out_or_are_empty_are_refused():
  kernel = optimizers.Group(parameters="kernel", optimizer=optimizers.sgd)
  rest = optimizers.Group(parameters=".*", optimizer=optimizers.sgd)
  with pytest.raises(errors.ConfigError, match="'scale' among them; add a last group"):
    optimizers.grouped(0.1, groups=[kernel]).init(state_of())
  with pytest.raises(errors.ConfigError, match="only parameters of earlier groups"):
    optimizers.grouped(0.1, groups=[rest, kernel]).init(state_of())
  with pytest.raises(errors.ConfigError, match="no groups"):
    optimizers.grouped(0.1, groups=[])


@pytest.mark.parametrize(
  "make, options",
  [
    (optimizers.adamw, {"b1": 1.0}),
    (optimizers.adamw, {"b2": float("nan")}),
    (optimizers.adamw, {"eps": -1e-8}),
    (optimizers.adamw, {"weight_decay": float("inf")}),
    (optimizers.adam, {"b2": -0.1}),
    (optimizers.adam, {"global_norm_clip_threshold": 0.0}),
    (optimizers.sgd, {"momentum": 1.5}),
    (optimizers.sgd, {"global_norm_clip_threshold": float("nan")}),
    (optimizers.sgd, {"learning_rate": float("inf")}),
  ],
)
def test_numbers_that_cannot_be_are_refused_by_name(make, options):
  (name,) = options
  with pytest.raises(errors.ConfigError, match=f"{make.__name__}: {name}="):
    make(**{"learning_rate": 0.1, **options})


def test_a_group_with_a_rate_that_cannot_be_is_refused():
  with pytest.raises(errors.ConfigError, match="Group: learning_rate=inf"):
    optimizers.Group(parameters=".*", optimizer=optimizers.sgd, learning_rate=float("inf"))
