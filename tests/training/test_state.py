"""The train state: what it holds, and that each leaf lies where its parameter does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from promot_jax import errors, partitioning, paths
from promot_jax.training import optimizers
from promot_jax.training.state import create_state, shardings_of


class Layer(nnx.Module):
  def __init__(self):
    self.kernel = nnx.Param(jnp.ones((12, 16)))
    self.scale = nnx.Param(jnp.ones((6,)))


def trainable_on(mesh):
  _, state = nnx.split(Layer())
  specs = {"kernel": PartitionSpec(None, "model"), "scale": PartitionSpec()}
  return paths.replace_leaves(
    state,
    {
      name: jax.device_put(leaf, NamedSharding(mesh, specs[name]))
      for name, leaf in paths.named_leaves(state).items()
    },
  )


def specs_of(state):
  return {
    name: tuple(leaf.sharding.spec) for name, leaf in paths.named_leaves(state.opt_state).items()
  }


def test_moments_lie_where_their_parameter_does_and_all_else_is_replicated():
  mesh = partitioning.make_mesh(data=4, model=2)
  for optimizer in (
    optimizers.adamw(0.1, global_norm_clip_threshold=1.0),
    optimizers.adafactor(0.1, beta1=0.9),
    optimizers.adafactor(0.1, beta1=0.9, min_dim_size_to_factor=8),
  ):
    state = create_state(trainable_on(mesh), optimizer, mesh=mesh, step=5)
    assert int(state.step) == 5
    for name, leaf in paths.named_leaves(state).items():
      assert leaf.sharding.mesh == mesh, name
      split = name.endswith("kernel") and leaf.shape == (12, 16)
      local = (12, 8) if split else leaf.shape
      assert leaf.addressable_shards[0].data.shape == local, name
    assert shardings_of(state).step.spec == PartitionSpec()


def test_a_restored_state_on_its_shardings_runs_as_a_fresh_one():
  """Every leaf, scalars too, can be put back by its own sharding and used with the others."""
  mesh = partitioning.make_mesh(data=4, model=2)
  optimizer = optimizers.adam(0.1)
  state = create_state(trainable_on(mesh), optimizer, mesh=mesh)
  on_host = jax.tree.map(np.asarray, state)
  restored = jax.tree.map(jax.device_put, on_host, shardings_of(state))
  update = jax.jit(lambda state: optimizer.update(state.trainable, state.opt_state))
  for fresh, again in zip(jax.tree.leaves(update(state)), jax.tree.leaves(update(restored))):
    np.testing.assert_array_equal(fresh, again)


def test_parameters_left_on_one_device_are_replicated():
  mesh = partitioning.make_mesh(data=8)
  _, trainable = nnx.split(Layer())
  state = create_state(trainable, optimizers.sgd(0.1, momentum=0.9), mesh=mesh)
  assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(state))


def test_a_single_device_needs_no_shardings():
  _, trainable = nnx.split(Layer())
  state = create_state(trainable, optimizers.adam(0.1))
  assert shardings_of(state) is None


def test_nothing_trainable_and_integers_are_refused():
  with pytest.raises(errors.ConfigError, match="Nothing is trainable"):
    create_state(nnx.State({}), optimizers.sgd(0.1))

  class Counter(nnx.Module):
    def __init__(self):
      self.count = nnx.Param(jnp.arange(3))

  with pytest.raises(errors.ConfigError, match="'count' is int32"):
    create_state(nnx.split(Counter())[1], optimizers.sgd(0.1))
