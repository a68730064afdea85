"""Sharpness-aware minimization: two gradients a step, of the whole batch, with the penalty, on two devices."""

import functools

import numpy as np
import pytest
from flax import nnx

import tiny_run
from promot_jax import errors, partitioning, paths
from promot_jax.training import optimizers, schedules
from promot_jax.training.penalties import L2SP, Held, held_by
from promot_jax.training.state import create_state, shardings_of
from promot_jax.training.step import make_train_step
from tiny_loop import Interrupted

RATE, RADIUS = 0.5, 0.2
START, ANCHOR = tiny_run.TinyModel(nnx.Rngs(0)), tiny_run.TinyModel(nnx.Rngs(4))
SAM = functools.partial(optimizers.sam, optimizer=optimizers.sgd, radius=RADIUS)
PENALTY = L2SP(anchor=None, strength=0.3)


def update(*, microbatches=1, mesh=None):
  """Trained parameters after one step on the kernels."""
  graphdef, trainable, frozen = paths.split(START, "(first|second)/.*")
  held = Held(values=held_by(ANCHOR, trainable, owner="stage 'model'"))
  batch = tiny_run.batch_of(0)
  if mesh is not None:
    trainable, frozen, held = (partitioning.place(tree, mesh) for tree in (trainable, frozen, held))
    batch = partitioning.global_batch(batch, mesh)
  optimizer = SAM(RATE)
  state = create_state(trainable, optimizer, mesh=mesh)
  step = make_train_step(
    graphdef,
    tiny_run.LeastSquares(),
    optimizer,
    schedules.constant(RATE),
    microbatches=microbatches,
    penalty=PENALTY,
    shardings=None if mesh is None else shardings_of(state),
  )
  state, metrics = step(state, frozen, batch, None, None, held)
  numbers = {name: float(value) for name, (value, _) in metrics.items()}
  return {n: np.float64(leaf) for n, leaf in paths.named_leaves(state.trainable).items()}, numbers


def by_hand():
  """The update, and the loss at the start, in float64: gradients of the formula written out."""
  leaves = {name: np.float64(leaf) for name, leaf in paths.named_leaves(START).items()}
  origin = {name: np.float64(leaf) for name, leaf in paths.named_leaves(ANCHOR).items()}
  batch = tiny_run.batch_of(0)
  x, y = np.float64(batch["x"]) + leaves["prompt/prompt"], np.float64(batch["y"])

  def loss_and_gradient(first, second):
    hidden = np.tanh(x @ first)
    off = (hidden @ second)[:, 0] - y
    toward = 2 * off[:, None] / len(y)  # of the prediction
    gradient = {
      "first/kernel": x.T @ (toward @ second.T * (1 - hidden**2)),
      "second/kernel": hidden.T @ toward,
    }
    loss = (off**2).mean()
    for name, value in (("first/kernel", first), ("second/kernel", second)):
      gradient[name] += 0.3 * (value - origin[name])
      loss += 0.15 * ((value - origin[name]) ** 2).sum()
    return loss, gradient

  start = {name: leaves[name] for name in ("first/kernel", "second/kernel")}
  loss, gradient = loss_and_gradient(*start.values())
  norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
  worst = {name: leaf + RADIUS * gradient[name] / norm for name, leaf in start.items()}
  _, steepest = loss_and_gradient(*worst.values())
  return {name: leaf - RATE * steepest[name] for name, leaf in start.items()}, loss, norm


@pytest.mark.parametrize("microbatches", [1, 2])
def test_the_update_is_the_gradient_at_the_worst_point_of_the_ball(microbatches):
  found, metrics = update(microbatches=microbatches)
  expected, loss, norm = by_hand()
  for name, leaf in expected.items():
    np.testing.assert_allclose(found[name], leaf, rtol=1e-4, atol=1e-5, err_msg=name)
  assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
  assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_two_devices_give_the_update_of_one():
  found, _ = update(mesh=partitioning.make_mesh(data=2, model=1))
  for name, leaf in by_hand()[0].items():
    np.testing.assert_allclose(found[name], leaf, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_stage_that_was_stopped_ends_as_one_that_was_not(run):
  sam = functools.partial(optimizers.sam, optimizer=optimizers.adam)
  stage = tiny_run.make_stage("model", "(first|second)/.*", 8, optimizer=sam)
  whole = run(stage, folder="whole")
  with pytest.raises(Interrupted):
    run(stage, crash_at=7)
  assert tiny_run.digest(run(stage).model) == tiny_run.digest(whole.model)


def test_a_gradient_of_nothing_moves_nothing_and_a_radius_of_nothing_is_refused():
  optimizer = SAM(RATE)
  zeros = {"a": np.zeros(3, np.float32)}
  found, _ = optimizer.update(zeros, optimizer.init(zeros), zeros, grad_fn=lambda at, _: at)
  np.testing.assert_array_equal(found["a"], zeros["a"])
  with pytest.raises(errors.ConfigError, match="sam: radius=0 must be a finite number above 0"):
    optimizers.sam(0.1, optimizer=optimizers.sgd, radius=0)
