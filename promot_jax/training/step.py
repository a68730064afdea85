"""One update of the trainable parameters, as one jitted function.

Differentiated are the trainable parameters only.  Frozen parameters and a teacher are arguments,
neither donated nor returned: they cost no gradient, no optimizer state and no copy.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from promot_jax import errors, paths
from promot_jax.training import teacher_input
from promot_jax.training.objectives import Batch, Metrics, Objective
from promot_jax.training.own_teacher import OwnTeacher
from promot_jax.training.penalties import Held, Penalty
from promot_jax.training.schedules import Schedule
from promot_jax.training.state import TrainState
from promot_jax.training.teacher_input import TeacherInputs

TrainStep = Callable[..., tuple[TrainState, Metrics]]


def make_train_step(
  graphdef: nnx.GraphDef,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  schedule: Schedule,
  *,
  microbatches: int = 1,
  penalty: Penalty | None = None,
  own_teacher: OwnTeacher | None = None,
  teacher_inputs: TeacherInputs = None,
  shardings: TrainState | None = None,
) -> TrainStep:
  """A jitted `step(state, frozen, batch, key, teacher=None, held=None) -> (state, metrics)`.

  `state` is donated.  `frozen` is the rest of the model, `batch` a dictionary of arrays [B, ...],
  `teacher` any pytree the objective knows (a module is one), `held` what the penalty draws weights to.
  `key` is the run's base key, the same at every step: dropout uses fold_in(key, step), and fold_in of that with the number of the
  microbatch where there are several.  `key=None` means no dropout.

  Metrics are (sum, weight) pairs of float32 scalars: the objective's, and loss (with the penalty),
  penalty where there is one, learning_rate, grad_norm (before clipping), param_norm (before the update)
  and finite (1 if loss and gradient norm are finite).

  Args:
    graphdef: from `paths.split(model, patterns)`.
    objective: what is minimized.
    optimizer: made with `schedule`.
    schedule: only for the metric `learning_rate`.
    microbatches: parts that the batch is cut into; gradients are added in float32.  The result is
      that of the whole batch, because sums are added and divided once.
    penalty: added to the loss, once a step.
    own_teacher: made of the state, in place of a `teacher` that is given.
    teacher_inputs: what it reads.
    shardings: of the state (`state.shardings_of`), so that it comes back as it went in.

  Raises:
    ConfigError: `microbatches` is below 1, or (at the first call) does not divide the batch.
  """
  if microbatches < 1:
    raise errors.ConfigError(f"microbatches={microbatches} must be at least 1.")
  update = optax.with_extra_args_support(optimizer).update

  def train_step(
    state: TrainState,
    frozen: nnx.State,
    batch: Batch,
    key: jax.Array | None,
    teacher: Any = None,
    held: Held | None = None,
  ) -> tuple[TrainState, Metrics]:
    # Of the whole batch, before it is cut: parts with few tokens must not weigh more.
    normalizer = objective.normalizer(batch)
    # By the state's own step, so that a resumed run draws the same dropout.
    step_key = None if key is None else jax.random.fold_in(key, state.step)

    if own_teacher is not None:
      own = own_teacher.model(graphdef, state.average, state.trainable, frozen)
      teacher = teacher_input.reader(own, teacher_inputs)

    def loss_of(trainable: nnx.State, part: Batch, part_key: jax.Array | None):
      model = nnx.merge(graphdef, trainable, frozen)
      loss, metrics = objective(model, part, teacher=teacher, key=part_key)
      # Inside of what is differentiated: gradients of microbatches then add up to the batch's.
      loss = loss / normalizer
      return loss, (loss, metrics)

    # The loss comes back as aux beside its metrics, in one tree that `_accumulate` can sum.
    gradient_of = jax.grad(loss_of, has_aux=True)

    def gradient_at(trainable: nnx.State) -> tuple[nnx.State, tuple[jax.Array, Metrics]]:
      if microbatches == 1:
        grads, (loss, metrics) = gradient_of(trainable, batch, step_key)
      else:
        grads, (loss, metrics) = _accumulate(gradient_of, trainable, batch, step_key, microbatches)
      if penalty is None:
        return grads, (loss, dict(metrics))
      # Apart from the batch: a share of it in each microbatch would be added up again.
      assert held is not None
      more, pull = jax.value_and_grad(lambda tree: penalty(paths.named_leaves(tree), held))(
        trainable
      )
      grads = jax.tree.map(jnp.add, grads, pull)
      return grads, (loss + more, {**metrics, "penalty": _once(more)})

    grads, (loss, metrics) = gradient_at(state.trainable)
    updates, opt_state = update(
      grads,
      state.opt_state,
      state.trainable,
      # For optimizers that look at further points (SAM): the same batch, the same dropout.
      grad_fn=lambda trainable, _: gradient_at(trainable)[0],
    )
    grad_norm = optax.tree.norm(grads)
    metrics["loss"] = _once(loss)
    metrics["learning_rate"] = _once(schedule(state.step))
    metrics["grad_norm"] = _once(grad_norm)
    metrics["param_norm"] = _once(optax.tree.norm(state.trainable))
    # One norm stands for all gradients: it is finite only if each of them is.
    metrics["finite"] = _once(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
    trainable = optax.apply_updates(state.trainable, updates)
    new_state = dataclasses.replace(
      state,
      step=state.step + 1,
      trainable=trainable,
      opt_state=opt_state,
      average=None if own_teacher is None else own_teacher.moved(state.average, trainable),
    )
    return new_state, metrics

  if shardings is None:
    return jax.jit(train_step, donate_argnames="state")
  # Left to itself, XLA may lay out the new state otherwise, and the next step would compile anew.
  replicated = jax.sharding.NamedSharding(shardings.step.mesh, jax.sharding.PartitionSpec())
  return jax.jit(train_step, donate_argnames="state", out_shardings=(shardings, replicated))


def _accumulate(
  gradient_of: Callable,
  trainable: nnx.State,
  batch: Batch,
  key: jax.Array | None,
  microbatches: int,
) -> tuple[nnx.State, tuple[jax.Array, Metrics]]:
  """Sums over microbatches of gradients, loss and metrics, one microbatch at a time in memory."""
  size = jax.tree.leaves(batch)[0].shape[0]
  # A stage refuses this as well, but a step may be made without one.
  if size % microbatches:
    raise errors.ConfigError(
      f"The batch of {size} examples cannot be cut into {microbatches} equal microbatches."
    )

  def cut(array: jax.Array) -> jax.Array:
    # Rows i, i + n, ... form microbatch i, so that each device of a sharded batch keeps its rows.
    parts = array.reshape(size // microbatches, microbatches, *array.shape[1:])
    return jnp.moveaxis(parts, 1, 0)  # [n B/n ...]

  def add_part(total: nnx.State, index_and_part: tuple[jax.Array, Batch]):
    index, part = index_and_part
    part_key = None if key is None else jax.random.fold_in(key, index)
    grads, sums = gradient_of(trainable, part, part_key)
    total = jax.tree.map(lambda old, grad: old + grad.astype(jnp.float32), total, grads)
    return total, sums

  # In float32 whatever the parameters are: a bfloat16 sum drops small parts once it is large.
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), trainable)
  parts = (jnp.arange(microbatches), jax.tree.map(cut, dict(batch)))
  grads, sums = jax.lax.scan(add_part, zeros, parts)
  # Metrics are sums and weights, so those of the parts add up to the batch's.
  return grads, jax.tree.map(lambda array: array.sum(axis=0), sums)


def _once(value: jax.Array) -> tuple[jax.Array, jax.Array]:
  """A value of one step as a (sum, weight) pair."""
  return jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32)
