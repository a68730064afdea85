"""A run that goes on shares what cannot change with the one that began, and says what did."""

import dataclasses

import optax
import pytest
from flax import nnx

from promot_jax import errors
from tiny_loop import Interrupted, Recorder


def test_a_complete_stage_is_not_taken_for_one_with_another_learning_rate(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 6, learning_rate=optax.constant_schedule(0.05))
  first = run(stage)
  changed = dataclasses.replace(stage, learning_rate=optax.constant_schedule(0.02))
  with pytest.raises(errors.ConfigError) as refused:
    run(changed)
  assert "learning rate 0.05, and this run asks for 0.02" in str(refused.value)
  assert "--allow_config_change" in str(refused.value)
  kept = run(changed, allow_change=True)
  assert tiny.digest(kept.model) == tiny.digest(first.model)
  with pytest.raises(errors.ConfigError, match="steps 6, and this run asks for 4"):
    run(dataclasses.replace(stage, steps=4))


def test_an_incomplete_stage_goes_on_with_another_learning_rate(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 12, learning_rate=optax.constant_schedule(0.05))
  with pytest.raises(Interrupted):
    run(stage, crash_at=9)
  recorder = Recorder()
  run(dataclasses.replace(stage, learning_rate=optax.constant_schedule(0.02)), recorder=recorder)
  assert any("resumed from step" in line for line in recorder.lines)


def test_another_seed_is_refused_unless_the_change_is_allowed(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 8)
  with pytest.raises(Interrupted):
    run(stage, crash_at=6)
  with pytest.raises(errors.ConfigError, match="seed=3"):
    run(stage, seed=4)
  assert run(stage, seed=4, allow_change=True).step <= 8


def test_a_changed_run_is_refused_under_way_and_when_it_is_complete(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 8)

  def refuse_all():
    for change, seed, named in (
      ({}, 4, "seed=3"),
      ({"name": "other"}, 3, "stage='model'"),
      ({"batch_size": 8}, 3, "batch_size=4"),
    ):
      with pytest.raises(errors.ConfigError, match=named):
        run(dataclasses.replace(stage, **change), seed=seed)

  with pytest.raises(Interrupted):
    run(stage, crash_at=7)
  refuse_all()
  run(stage)
  refuse_all()


def test_a_checkpoint_of_another_size_is_refused_with_a_table(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 8)
  with pytest.raises(Interrupted):
    run(stage, crash_at=7)
  with pytest.raises(
    errors.ConfigError, match=r"trainable/first/kernel +float32\[5,9\] +float32\[5,7\]"
  ):
    run(stage, model=tiny.TinyModel(nnx.Rngs(0), hidden=9))


def test_fewer_steps_than_the_checkpoint_are_refused(tiny, run):
  with pytest.raises(Interrupted):
    run(tiny.make_stage("model", "first/.*", 8), crash_at=7)
  with pytest.raises(errors.ConfigError, match="beyond the 2 steps"):
    run(tiny.make_stage("model", "first/.*", 2))
