"""Penalties on weights against numpy: gradient, microbatches, trained subsets, two devices, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tiny_run
from promot_jax import errors, partitioning, paths
from promot_jax.training import optimizers, schedules
from promot_jax.training.penalties import EWC, L2SP, Held, held_by
from promot_jax.training.state import create_state, shardings_of
from promot_jax.training.step import make_train_step
from tiny_loop import Interrupted

RATE = 0.5
START, ANCHOR = tiny_run.TinyModel(nnx.Rngs(0)), tiny_run.TinyModel(nnx.Rngs(4))
NO_PROMPT = "!prompt/.*"
HELD = Held(values=held_by(ANCHOR, paths.split(START, NO_PROMPT)[1], owner="stage 'model'"))


def update(penalty, patterns=".*", *, anchor=ANCHOR, microbatches=1, mesh=None):
  """(trained parameters after one step of gradient descent, metrics), as numpy."""
  graphdef, trainable, frozen = paths.split(START, patterns)
  held = None
  if penalty is not None:
    values = held_by(anchor, trainable, owner="stage 'model'")
    held = Held(values=values, importance=jax.tree.map(jnp.abs, values))
  batch = tiny_run.batch_of(0)
  if mesh is not None:
    trainable, frozen, held = (partitioning.place(tree, mesh) for tree in (trainable, frozen, held))
    batch = partitioning.global_batch(batch, mesh)
  optimizer = optimizers.sgd(RATE)
  state = create_state(trainable, optimizer, mesh=mesh)
  step = make_train_step(
    graphdef,
    tiny_run.LeastSquares(),
    optimizer,
    schedules.constant(RATE),
    microbatches=microbatches,
    penalty=penalty,
    shardings=None if mesh is None else shardings_of(state),
  )
  state, metrics = step(state, frozen, batch, None, None, held)
  numbers = {name: np.float64(value) for name, (value, _) in metrics.items()}
  return {n: np.float64(leaf) for n, leaf in paths.named_leaves(state.trainable).items()}, numbers


def plain(tree):
  return {name: np.float64(leaf) for name, leaf in paths.named_leaves(tree).items()}


@pytest.mark.parametrize(
  ("kind", "patterns", "microbatches"),
  [(L2SP, ".*", 1), (L2SP, NO_PROMPT, 2), (EWC, NO_PROMPT, 1), (EWC, ".*", 2)],
)
def test_the_gradient_is_the_strength_times_the_way_from_the_anchor(kind, patterns, microbatches):
  penalty = kind(anchor=None, strength=0.3)
  without, before = update(None, patterns)
  found, metrics = update(penalty, patterns, microbatches=microbatches)
  start, origin = plain(START), plain(ANCHOR)
  assert found.keys() == without.keys()
  weights = {name: np.abs(leaf) if kind is EWC else 1.0 for name, leaf in origin.items()}
  for name, value in found.items():
    pull = 0.3 * weights[name] * (start[name] - origin[name])
    np.testing.assert_allclose(value, without[name] - RATE * pull, rtol=1e-5, atol=1e-6)
  value = 0.15 * sum((weights[n] * (start[n] - origin[n]) ** 2).sum() for n in found)
  assert metrics["penalty"] == pytest.approx(value, rel=1e-5)
  assert metrics["loss"] == pytest.approx(before["loss"] + value, rel=1e-5)


def test_what_the_anchor_does_not_have_is_drawn_to_zero_by_a_strength_of_its_own():
  anchor = tiny_run.TinyModel(nnx.Rngs(4))
  del anchor.prompt
  without, _ = update(None)
  found, metrics = update(L2SP(anchor=None, strength=0.3, new_strength=0.7), anchor=anchor)
  prompt = plain(START)["prompt/prompt"]
  np.testing.assert_allclose(
    found["prompt/prompt"], without["prompt/prompt"] - RATE * 0.7 * prompt, rtol=1e-5, atol=1e-6
  )
  left, _ = update(L2SP(anchor=None, strength=0.3), anchor=anchor)
  np.testing.assert_array_equal(left["prompt/prompt"], without["prompt/prompt"])
  start, origin = plain(START), plain(anchor)
  value = 0.15 * sum(((start[name] - leaf) ** 2).sum() for name, leaf in origin.items())
  assert metrics["penalty"] == pytest.approx(value + 0.35 * (prompt**2).sum(), rel=1e-5)


def test_two_devices_give_the_update_of_one():
  penalty = L2SP(anchor=None, strength=0.3)
  one, expected = update(penalty)
  two, metrics = update(penalty, mesh=partitioning.make_mesh(data=2, model=1))
  assert metrics == pytest.approx(expected, rel=1e-5)
  for name, leaf in one.items():
    np.testing.assert_allclose(two[name], leaf, rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_anchor_without_what_is_trained_or_of_another_shape_is_refused():
  _, trainable, _ = paths.split(START, "prompt/.*")
  anchor = tiny_run.TinyModel(nnx.Rngs(4))
  del anchor.prompt
  with pytest.raises(errors.ConfigError, match=r"none of the 1 parameters .* 'prompt/prompt'"):
    held_by(anchor, trainable, owner="stage 'prompt'")
  _, trainable, _ = paths.split(START, ".*")
  wide = tiny_run.TinyModel(nnx.Rngs(4), hidden=9)
  with pytest.raises(errors.ConfigError, match=r"'first/kernel' has shape \(5, 9\).* \(5, 7\)"):
    held_by(wide, trainable, owner="stage 'model'")
  with pytest.raises(errors.ConfigError, match="strength=0 must be a finite number above 0"):
    L2SP(anchor=None, strength=0)


def test_a_stage_that_was_stopped_ends_as_one_that_was_not(run):
  penalty = L2SP(anchor=_Named(), strength=0.3)
  stage = tiny_run.make_stage("model", "(first|second)/.*", 8, penalty=penalty)
  whole = run(stage, folder="whole", held=HELD)
  with pytest.raises(Interrupted):
    run(stage, held=HELD, crash_at=7)
  again = run(stage, held=HELD)
  assert tiny_run.digest(again.model) == tiny_run.digest(whole.model)
  free = run(dataclasses.replace(stage, penalty=None), folder="free")
  assert tiny_run.digest(free.model) != tiny_run.digest(whole.model)


class _Named:
  """Stands for the network that ANCHOR is."""

  def identity(self) -> str:
    return "anchor"
