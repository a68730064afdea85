"""Updates beside the leading singular directions of kernels, against numpy's singular values."""

import functools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import tiny_run
from promot_jax import errors, paths
from promot_jax.training import optimizers, subspaces
from tiny_loop import Interrupted

ORTHOGONAL = functools.partial(
  subspaces.orthogonal, optimizer=optimizers.adam, protected=0.5, kernels="first/kernel"
)


def protected_of(kernel, count):
  """(U_k, V_k) in float64."""
  left, _, right = np.linalg.svd(np.float64(kernel), full_matrices=False)
  return left[:, :count], right[:count].T


def test_a_stage_leaves_the_leading_directions_and_goes_on_with_those_it_began_with(run):
  stage = tiny_run.make_stage("model", "(first|second)/.*", 12, optimizer=ORTHOGONAL)
  whole = run(stage, folder="whole")
  before, after = (
    paths.named_leaves(each) for each in (tiny_run.TinyModel(nnx.Rngs(0)), whole.model)
  )
  moved = np.float64(after["first/kernel"]) - np.float64(before["first/kernel"])
  inputs, outputs = protected_of(before["first/kernel"], 3)  # half of 5, rounded up
  assert np.abs(inputs.T @ moved).max() < 1e-6 and np.abs(moved @ outputs).max() < 1e-6
  assert np.linalg.matrix_rank(moved, tol=1e-5) == 2
  assert np.abs(after["second/kernel"] - before["second/kernel"]).max() > 1e-3
  # With new directions after the crash, those of the moved kernel, the rest would end elsewhere.
  with pytest.raises(Interrupted):
    run(stage, crash_at=7)
  assert tiny_run.digest(run(stage).model) == tiny_run.digest(whole.model)


def test_scanned_kernels_are_projected_layer_by_layer_and_others_not_at_all():
  random = np.random.default_rng(0)
  kernels, updates = (random.normal(size=(2, 4, 6)).astype(np.float32) for _ in range(2))
  params = {"layers": {"mlp": {"wi": {"kernel": jnp.asarray(kernels)}}}, "scale": jnp.ones(3)}
  grads = {"layers": {"mlp": {"wi": {"kernel": jnp.asarray(updates)}}}, "scale": jnp.ones(3)}
  optimizer = subspaces.orthogonal(1.0, optimizer=optax.sgd, protected=0.4)
  found, _ = optimizer.update(grads, optimizer.init(params), params)
  for layer in range(2):
    inputs, outputs = protected_of(kernels[layer], 2)
    expected = (np.eye(4) - inputs @ inputs.T) @ updates[layer] @ (np.eye(6) - outputs @ outputs.T)
    np.testing.assert_allclose(
      found["layers"]["mlp"]["wi"]["kernel"][layer], -expected, rtol=1e-4, atol=1e-5
    )
  np.testing.assert_array_equal(found["scale"], -np.ones(3))


def test_it_may_have_sam_inside():
  sam = functools.partial(optimizers.sam, optimizer=optimizers.sgd, radius=0.1)
  optimizer = subspaces.orthogonal(1.0, optimizer=sam, protected=0.5, kernels=".*")
  kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
  params = {"a": {"kernel": kernel}}
  found, _ = optimizer.update(
    params,
    optimizer.init(params),
    params,
    grad_fn=lambda at, _: {"a": {"kernel": 2 * at["a"]["kernel"]}},
  )
  inputs, _ = protected_of(kernel, 2)
  assert np.abs(inputs.T @ np.float64(found["a"]["kernel"])).max() < 1e-5
  assert np.abs(found["a"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"protected": 1.0}, "protected=1.0 must be a finite number above 0 and below 1"),
    ({"kernels": "third/.*"}, "matches none"),
    (
      {"kernels": "prompt/.*"},
      r"'prompt/prompt' of shape \(5,\) among its kernels, which is no matrix",
    ),
    ({"kernels": "second/.*"}, r"'second/kernel' of shape \(7, 1\) .* has one direction"),
  ],
)
def test_what_has_no_directions_is_refused(changes, said):
  params = nnx.state(tiny_run.TinyModel(nnx.Rngs(0)))
  with pytest.raises(errors.ConfigError, match=said):
    ORTHOGONAL(0.1, **changes).init(params)
