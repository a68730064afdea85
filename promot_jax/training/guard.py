"""A step that stops by itself when it diverges, so that the host may look at results late.

Metrics are fetched some steps after they were computed.  Meanwhile a NaN would spread through the
parameters; so the device carries one flag, and from the first step with a loss or gradient that is
not finite on, the state is passed through unchanged.
"""

from typing import Any

import jax
import jax.numpy as jnp

from promot_jax import paths
from promot_jax.training import step as step_lib
from promot_jax.training.objectives import Batch, Metrics
from promot_jax.training.state import TrainState


def guarded(train_step: step_lib.TrainStep, shardings: TrainState | None = None) -> Any:
  """A jitted `f(state, sound, frozen, batch, key, teacher=None, held=None) -> (state, sound, metrics)`.

  `state` is donated.  `sound` is a boolean scalar, True at first; once it is False the state that
  comes back is the one that came in.

  Args:
    train_step: from `make_train_step`; its metrics have `finite`.
    shardings: of the state, as given to `make_train_step`.
  """

  def step(
    state: TrainState,
    sound: jax.Array,
    frozen: Any,
    batch: Batch,
    key: Any,
    teacher: Any = None,
    held: Any = None,
  ) -> tuple[TrainState, jax.Array, Metrics]:
    new_state, metrics = train_step(state, frozen, batch, key, teacher, held)
    # Once False it stays so: the host may ask late and still sees the state before the damage.
    sound = sound & (metrics["finite"][0] > 0)
    kept = jax.tree.map(lambda new, old: jnp.where(sound, new, old), new_state, state)
    return kept, sound, metrics

  # Donated: without it, old and new state are both held, moments included.
  if shardings is None:
    return jax.jit(step, donate_argnames="state")
  everywhere = jax.sharding.NamedSharding(shardings.step.mesh, jax.sharding.PartitionSpec())
  return jax.jit(step, donate_argnames="state", out_shardings=(shardings, everywhere, everywhere))


@jax.jit
def all_finite(state: TrainState) -> jax.Array:
  """Whether every floating-point value of the state is finite: asked before each save."""
  # Counts are integers, and finite by nature.
  checks = [
    jnp.isfinite(leaf).all()
    for leaf in paths.named_leaves(state).values()
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  ]
  return jnp.stack(checks).all()
