"""A stage in epochs has the steps that pass over the examples so often."""

import dataclasses

import optax
import pytest

from promot_jax import errors
from promot_jax.training import schedules
from promot_jax.training.stages import Stage

STAGE = Stage(
  name="model",
  trainable=".*",
  epochs=3,
  eval_epochs=1,
  batch_size=4,
  optimizer=optax.sgd,
  learning_rate=schedules.linear(0.5),
)


@pytest.mark.parametrize(
  ("epochs", "examples", "steps"),
  [
    (3, 2490, 1868),  # 1867.5
    (3, 8, 6),
    (0.1, 120, 3),  # in floating point 0.1 * 120 / 4 is more than 3
    (1.5, 10, 4),  # 3.75
    (0.01, 10, 1),
  ],
)
def test_steps_are_epochs_times_examples_by_batch_rounded_up(epochs, examples, steps):
  stage = dataclasses.replace(STAGE, epochs=epochs).of_length(examples)
  assert stage.steps == steps
  assert stage.epochs == epochs


def test_validations_are_in_epochs_too():
  stage = dataclasses.replace(STAGE, save_epochs=0.5).of_length(10)  # 2.5 steps an epoch
  assert (stage.steps, stage.eval_period, stage.save_period) == (8, 3, 2)
  assert [step for step in range(9) if stage.validates(step)] == [3, 6, 8]
  mixed = dataclasses.replace(STAGE, epochs=None, steps=40, eval_epochs=2).of_length(10)
  assert (mixed.steps, mixed.eval_period) == (40, 5)


def test_the_schedule_ends_with_the_epochs():
  stage = STAGE.of_length(8)
  assert [float(stage.learning_rate(step)) for step in (0, 3, 6)] == [0.5, 0.25, 0.0]
  assert float(stage.of_length(16).learning_rate(6)) == 0.25


def test_a_stage_in_steps_is_what_it_was():
  stage = dataclasses.replace(STAGE, epochs=None, eval_epochs=None, steps=5, eval_period=2)
  assert stage.of_length(100) is stage


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"steps": 5}, "has steps=5 and epochs=3: give one, and None for the other"),
    ({"eval_period": 2}, "has eval_period=2 and eval_epochs=1"),
    ({"epochs": None}, "has neither steps nor epochs"),
    ({"epochs": 0}, "epochs=0 must be None or a number above 0"),
    ({"eval_epochs": float("nan")}, "eval_epochs=nan must be"),
    ({"epochs": True}, "epochs=True must be"),
  ],
)
def test_lengths_that_say_two_things_or_none_are_refused(changes, said):
  with pytest.raises(errors.ConfigError, match=said):
    dataclasses.replace(STAGE, **changes)
