"""Learning-rate schedules against closed forms worked out by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from promot_jax import errors
from promot_jax.training import optimizers, schedules
from promot_jax.training.stages import Stage

make = schedules.create_learning_rate_scheduler


@pytest.mark.parametrize(
  "factors, options, values",
  [
    ("constant", {"base_learning_rate": 0.3}, {0: 0.3, 7: 0.3}),
    (
      "constant * linear_warmup * rsqrt_decay",
      {"base_learning_rate": 1.0, "warmup_steps": 100},
      {50: 0.5 / 10, 100: 0.1, 400: 0.05},
    ),
    (
      "constant*rsqrt_normalized_decay",
      {"base_learning_rate": 2.0, "warmup_steps": 100},
      {3: 2.0, 100: 2.0, 400: 1.0},
    ),
    (
      "constant * decay_every",
      {"base_learning_rate": 1.0, "decay_factor": 0.5, "steps_per_decay": 10},
      {9: 1.0, 10: 0.5, 35: 0.125},
    ),
    (
      "constant * cosine_decay",
      {"base_learning_rate": 1.0, "warmup_steps": 20, "steps_per_cycle": 40},
      {10: 1.0, 30: 0.5 + math.sqrt(0.125), 40: 0.5, 60: 1.0},  # a new cycle begins at 60
    ),
    (
      "linear_decay",
      {"base_learning_rate": 0.2, "warmup_steps": 10, "decay_factor": 0.05},
      {5: 0.1, 10: 0.2, 20: 0.1, 40: 1e-8},
    ),
    (
      "constant * linear_warmup * linear_to_zero",
      {"base_learning_rate": 1.0, "warmup_steps": 10, "total_steps": 110, "min_learning_rate": 0},
      {5: 0.5, 10: 1.0, 60: 0.5, 110: 0.0, 200: 0.0},
    ),
    (
      "constant * linear_warmup",
      {"base_learning_rate": 1.0, "warmup_steps": 10, "step_offset": 1000},
      {0: 1e-8, 1000: 1e-8, 1005: 0.5, 1020: 1.0},
    ),
  ],
)
def test_factors_have_their_closed_form(factors, options, values):
  schedule = make(factors, **options)
  for step, value in values.items():
    np.testing.assert_allclose(schedule(step), value, rtol=2e-6, atol=1e-9, err_msg=f"step {step}")
    np.testing.assert_allclose(jax.jit(schedule)(step), value, rtol=2e-6, atol=1e-9)


def test_the_linear_schedule_is_that_of_the_papers():
  """lr(k) = k / warmup, then (total - k) / (total - warmup), as in transformers."""
  schedule = schedules.linear(5e-5, total_steps=30, warmup_steps=6)
  expected = [k / 6 if k < 6 else (30 - k) / 24 for k in range(31)]
  np.testing.assert_allclose([schedule(k) for k in range(31)], 5e-5 * np.array(expected), rtol=1e-6)
  no_warmup = schedules.linear(5e-5, total_steps=30)
  np.testing.assert_allclose(no_warmup(12), 5e-5 * 18 / 30, rtol=1e-6)
  np.testing.assert_allclose(schedules.constant(0.2)(9), 0.2, rtol=1e-6)


def test_rates_are_float32_scalars_of_traced_and_plain_steps():
  for factors in schedules.FACTORS:
    rate = jax.jit(make(factors, total_steps=5000))(np.int32(3))
    assert rate.shape == () and rate.dtype == np.float32


def test_unknown_factors_and_useless_parameters_are_refused():
  with pytest.raises(errors.ConfigError, match=r"'linear_warmpu'.*linear_warmup"):
    make("constant * linear_warmpu")
  with pytest.raises(errors.ConfigError, match="warmup_steps=0"):
    make("constant * linear_warmup", warmup_steps=0)
  with pytest.raises(errors.ConfigError, match="total_steps above the 1000"):
    make("constant * linear_warmup * linear_to_zero", total_steps=500)


@pytest.mark.parametrize(
  "options",
  [
    {"base_learning_rate": 1e999},
    {"base_learning_rate": float("nan")},
    {"base_learning_rate": -1e-3},
    {"base_learning_rate": "1e-3"},
    {"min_learning_rate": float("inf")},
    {"min_learning_rate": -1.0},
    {"decay_factor": float("nan")},
    {"warmup_steps": float("inf")},
    {"steps_per_decay": 0},
    {"steps_per_cycle": float("nan")},
    {"step_offset": float("nan")},
    {"total_steps": float("inf")},
  ],
)
def test_numbers_that_cannot_be_are_refused_by_name(options):
  (name,) = options
  with pytest.raises(errors.ConfigError, match=f"{name}="):
    make("constant * linear_warmup", **options)


@pytest.mark.parametrize(
  "schedule, step, rate",
  [
    (lambda step: 1.0 / step, 0, "inf"),
    (lambda step: jnp.where(step > 30, jnp.nan, 1e-3), 31, "nan"),
    (lambda step: 0.5 * (20 - step), 21, "-0.5"),
  ],
)
def test_a_schedule_is_looked_at_before_a_stage_starts(schedule, step, rate):
  with pytest.raises(errors.ConfigError, match=rf"stage 'x': .* at step {step} is {rate}"):
    schedules.require_usable(schedule, steps=40, owner="stage 'x'")
  schedules.require_usable(make("constant * linear_warmup"), steps=0, owner="stage 'x'")


def test_a_schedule_without_its_end_takes_the_steps_of_its_stage():
  def stage_of(steps, rate):
    return Stage(
      name="s", trainable=".*", steps=steps, batch_size=2, optimizer=optax.sgd, learning_rate=rate
    )

  factors = "constant * linear_warmup * linear_to_zero"
  settings = {"base_learning_rate": 0.5, "warmup_steps": 6, "min_learning_rate": 0.0}
  open_end = make(factors, **settings)
  given = make(factors, **settings, total_steps=30)
  stage = stage_of(30, open_end)
  found = [float(stage.learning_rate(step)) for step in range(31)]
  assert found == [float(given(step)) for step in range(31)]
  shorter = dataclasses.replace(stage, steps=20)  # the end moves with the stage
  assert float(shorter.learning_rate(20)) == 0.0 < float(shorter.learning_rate(19))
  with pytest.raises(errors.ConfigError, match="total_steps above the 6 warm-up steps, not 6"):
    stage_of(6, open_end)
  with pytest.raises(errors.ConfigError, match="only a stage's own schedule"):
    open_end(0)
  with pytest.raises(errors.ConfigError, match="needs total_steps"):
    optimizers.Group(parameters=".*", optimizer=optax.sgd, learning_rate=open_end)


def test_the_largest_rate_is_that_after_the_warm_up():
  warmed = schedules.linear(1e-3, total_steps=100, warmup_steps=10)
  assert float(warmed(0)) == 0
  assert schedules.largest(warmed, steps=100) == pytest.approx(1e-3)
  assert schedules.largest(schedules.constant(0.3), steps=2**31 - 1) == pytest.approx(0.3)
