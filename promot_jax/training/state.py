"""What training changes: the step, the trainable parameters and their optimizer state.

Frozen parameters are no part of it, so that a checkpoint of prompt tuning is as small as the prompt.
Every leaf of a state made under a mesh carries an explicit sharding; a scalar left on one device
would make the first run work and the resumed one fail.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from promot_jax import errors, paths
from promot_jax.training.own_teacher import OwnTeacher


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
  """step: int32 scalar, updates done; trainable: parameters; opt_state: the optimizer's.

  average: values of the parameters in the student's own teacher (`own_teacher`); None: there is none.
  """

  step: jax.Array
  trainable: nnx.State
  opt_state: Any
  average: nnx.State | None = None


def create_state(
  trainable: nnx.State,
  optimizer: optax.GradientTransformation,
  *,
  mesh: Mesh | None = None,
  step: int = 0,
  own_teacher: OwnTeacher | None = None,
) -> TrainState:
  """The state before the first update.

  The state owns its arrays: the step donates them, and the model that `trainable` was split from
  keeps its own.

  Args:
    trainable: parameters to train; under a mesh, already placed on it.
    optimizer: makes the optimizer state.
    mesh: where every leaf is placed; moments get their parameter's sharding, all else is
      replicated.  None: a single device.
    step: updates done before.
    own_teacher: whose averages the state keeps.

  Raises:
    ConfigError: nothing is trainable, or a parameter is not of floating point.
  """
  _check_trainable(trainable)

  def build(trainable: nnx.State) -> TrainState:
    return TrainState(
      step=jnp.asarray(step, jnp.int32),
      # Copies: the step donates its state, and the model's own arrays must live on.
      trainable=jax.tree.map(jnp.copy, trainable),
      opt_state=optimizer.init(trainable),
      average=None if own_teacher is None else own_teacher.first(trainable),
    )

  shardings = None
  if mesh is not None:
    # Shapes first, arrays later: moments are made where they belong, never whole on one device.
    shardings = state_shardings(jax.eval_shape(build, trainable), trainable, mesh)
  return jax.jit(build, out_shardings=shardings)(trainable)


def cast(tree: nnx.State, dtype: str | None) -> nnx.State:
  """The floating-point leaves in another type, placed as they were; None changes nothing."""
  if dtype is None:
    return tree
  return jax.tree.map(
    lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
  )


def state_shardings(abstract: TrainState, trainable: nnx.State, mesh: Mesh) -> TrainState:
  """Shardings of a state, as a tree of the state's structure.

  Args:
    abstract: the state's shapes (`jax.eval_shape`), or a state.
    trainable: parameters that lie on the mesh (or anything with `.sharding`); those that do not
      are replicated.
    mesh: the mesh of all results.
  """
  replicated = NamedSharding(mesh, PartitionSpec())
  parameters: dict[str, tuple[tuple[int, ...], NamedSharding]] = {}
  for name, leaf in paths.named_leaves(trainable).items():
    sharding = getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh != mesh:
      sharding = replicated
    parameters[name] = (tuple(leaf.shape), sharding)
  # Longest name first: 'a/prompt' must not be taken for the moment of 'prompt'.
  by_length = sorted(parameters, key=len, reverse=True)

  def sharding_of(name: str, shape: tuple[int, ...]) -> NamedSharding:
    for parameter in by_length:
      if name == parameter or name.endswith("/" + parameter):
        parameter_shape, sharding = parameters[parameter]
        # A factored moment has its parameter's name and another shape; it is small, so replicated.
        return sharding if parameter_shape == shape else replicated
    return replicated

  leaves = paths.named_leaves(abstract)
  return _replace_values(
    abstract, {name: sharding_of(name, tuple(leaf.shape)) for name, leaf in leaves.items()}
  )


def shardings_of(state: TrainState) -> TrainState | None:
  """Shardings that the state's arrays have, for `make_train_step`; None on a single device."""
  shardings = {name: leaf.sharding for name, leaf in paths.named_leaves(state).items()}
  if not all(isinstance(sharding, NamedSharding) for sharding in shardings.values()):
    return None
  return _replace_values(state, shardings)


def _replace_values(tree: Any, values: dict[str, Any]) -> Any:
  """The tree with other leaves, which may be no arrays."""
  treedef = jax.tree_util.tree_structure(tree)
  return jax.tree_util.tree_unflatten(treedef, list(values.values()))


def _check_trainable(trainable: nnx.State) -> None:
  leaves = paths.named_leaves(trainable)
  if not leaves:
    raise errors.ConfigError("Nothing is trainable: the trainable state has no parameters.")
  for name, leaf in leaves.items():
    # jax.grad would refuse it too, with a message that names no parameter.
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      raise errors.ConfigError(
        f"Parameter '{name}' is {leaf.dtype}; only floating-point parameters can be trained."
      )
