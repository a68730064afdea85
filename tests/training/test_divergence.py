"""A stage that diverges keeps the state before, and says what went wrong and where."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from promot_jax import errors
from promot_jax.checkpoints.store import Store
from promot_jax.training import optimizers


@pytest.mark.parametrize("poison", [0, 6])
def test_divergence_keeps_the_parameters_before_it_and_saves_the_batch(tiny, run, tmp_path, poison):
  stage = tiny.make_stage("model", "first/.*", 20, eval_period=20, save_period=4)
  clean = tiny.make_stage("model", "first/.*", poison, eval_period=20, save_period=4)
  for _ in range(2):  # the repeated command ends at the same place
    with pytest.raises(errors.Diverged, match=f"loss and grad_norm .* at step {poison + 1} of"):
      run(stage, batches=lambda step: tiny.batch_of(step, poison=poison))
  saved = np.load(tmp_path / "run" / f"diverged_step_{poison + 1}.npz")
  np.testing.assert_array_equal(saved["y"], tiny.batch_of(poison, poison=poison)["y"])
  store = Store(tmp_path / "run")
  assert store.latest() == poison
  for step in store.steps():
    assert all(np.isfinite(leaf).all() for leaf in store.restore(step).leaves.values())
  run(clean, folder="clean")
  expected = Store(tmp_path / "clean").restore(poison).leaves
  assert tiny.digest(store.restore(poison).leaves) == tiny.digest(expected)


def test_on_a_full_disk_the_divergence_is_still_the_news(tiny, run, tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(28, "No space left on device")

  def refuse(*_, **__):
    raise errors.CannotWrite("Cannot write the checkpoint: No space left on device.")

  monkeypatch.setattr(np, "savez", full)
  monkeypatch.setattr(Store, "save", refuse)
  stage = tiny.make_stage("model", "first/.*", 20, eval_period=20, save_period=20)
  with pytest.raises(errors.Diverged, match=r"could not be written to .*no state was saved before"):
    run(stage, batches=lambda step: tiny.batch_of(step, poison=6))
  assert not list(tmp_path.rglob("diverged_step_*"))


def test_an_update_that_is_not_finite_is_named_and_not_the_batch_after_it(tiny, run, tmp_path):
  bad = optax.scale_by_schedule(lambda count: jnp.where(count == 6, jnp.nan, -1e-3))
  stage = tiny.make_stage("model", "first/.*", 20, eval_period=20, save_period=4)
  stage = dataclasses.replace(stage, optimizer=lambda rate: bad)
  words = "a parameter became NaN or infinite at step 7 of .* its update did it: look at the optim"
  with pytest.raises(errors.Diverged, match=words):
    run(stage)
  saved = np.load(tmp_path / "run" / "diverged_step_7.npz")
  np.testing.assert_array_equal(saved["y"], tiny.batch_of(6)["y"])
  assert Store(tmp_path / "run").latest() == 4


def test_a_loss_that_is_not_finite_from_the_start_is_not_blamed_on_the_learning_rate(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 20)
  with pytest.raises(errors.Diverged, match="the learning rate is not the reason"):
    run(stage, batches=lambda step: tiny.batch_of(step, poison=0))


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), -1.0])
def test_a_rate_that_cannot_be_is_refused_before_the_first_step(tiny, run, rate):
  stage = tiny.make_stage("model", "first/.*", 20)
  stage = dataclasses.replace(stage, learning_rate=lambda step: rate)
  with pytest.raises(errors.ConfigError, match="the learning rate at step 0 is"):
    run(stage)


def test_a_rate_of_a_group_that_cannot_be_is_refused_before_the_first_step(tiny, run):
  group = optimizers.Group(
    parameters=".*",
    optimizer=optimizers.sgd,
    learning_rate=lambda step: jnp.where(step < 4, 0.1, jnp.nan),
  )
  stage = dataclasses.replace(
    tiny.make_stage("model", "first/.*", 8),
    optimizer=functools.partial(optimizers.grouped, groups=[group]),
  )
  with pytest.raises(errors.ConfigError, match=r"group 1 of the optimizer: .* at"):
    run(stage)
