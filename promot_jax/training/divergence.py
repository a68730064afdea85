"""The end of a stage whose loss, gradient or parameters became NaN or infinite."""

import contextlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from promot_jax import errors, hosts
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.training import guard
from promot_jax.training.prefetch import HostBatch
from promot_jax.training.stages import Stage
from promot_jax.training.state import TrainState


class NotFinite(Exception):
  """The first step that is not finite.

  step: its number, from 1.
  names: what of its metrics is not; empty where only a parameter is not.
  """

  def __init__(self, step: int, metrics: Mapping[str, Any]) -> None:
    super().__init__(step)
    self.step = step
    self.names = [
      name
      for name in ("loss", "grad_norm")
      if name in metrics and not np.isfinite(metrics[name][0])
    ]


def require_finite(step: int, state: TrainState) -> None:
  """Looks at a state before it is saved: a checkpoint that is not finite would be of no use.

  Raises:
    NotFinite: a parameter or a moment is not.
  """
  if not guard.all_finite(state):
    raise NotFinite(step, {})


def end(
  problem: NotFinite,
  *,
  stage: Stage,
  state: TrainState,
  batches: Callable[[int], HostBatch],
  store: AnyStore,
  save: Callable[[int], object],
) -> errors.Diverged:
  """Saves the offending batch and the state before it; the error that says so.

  Args:
    problem: what was found.
    state: of the newest step that was dispatched; the guard has kept that before the problem.
    batches: the batch of a step.
    store: where the batch is written.
    save: saves the state as that of a step, where it is sound and not of the problem's own step.
  """
  # The guard froze the state, step number included: it says how far the sound updates came.
  good = int(state.step)
  sound = bool(guard.all_finite(state))
  # Where the state before it is not finite, the update that led there is what went wrong.
  step = problem.step if sound else max(good, 1)
  batch_file = store.directory / f"diverged_step_{step}.npz"
  wrote = False
  with contextlib.suppress(OSError):  # the divergence is the news, also on a full disk
    # A stage that diverges before its first checkpoint may have no folder yet.
    store.directory.mkdir(parents=True, exist_ok=True)
    batch: dict[str, Any] = dict(batches(step - 1))
    if hosts.is_first():
      _write(batch_file, batch)
    wrote = True
  with contextlib.suppress(errors.CannotWrite):
    # Only a state from before: one whose number is the problem's own holds the update in question.
    if good < problem.step and sound:
      save(good)
  with contextlib.suppress(errors.CannotWrite):
    # A background save is waited for, so that the message names what is really on the disk.
    store.wait()
  what = " and ".join(problem.names) if sound and problem.names else "a parameter"
  # Steps are told from 1, schedules count the updates done before.
  rate = float(stage.learning_rate(jnp.asarray(step - 1)))
  latest = store.latest()
  kept = (
    "no state was saved before" if latest is None else f"the newest sound state is step {latest}"
  )
  lies = f"is in {batch_file}" if wrote else f"could not be written to {batch_file}"
  return errors.Diverged(
    f"{what} became NaN or infinite at step {step} of stage '{stage.name}'. Its batch"
    f" {lies}; {kept}. {_advice(what, step=step, sound=sound, rate=rate)} Repeating the"
    " command ends here again."
  )


def _write(file: pathlib.Path, batch: Mapping[str, Any]) -> None:
  """Writes a batch, whole or not at all."""
  try:
    np.savez(file, **batch)
  except OSError:
    file.unlink(missing_ok=True)
    raise


def _advice(what: str, *, step: int, sound: bool, rate: float) -> str:
  """One sentence on what to do about the first value that is not finite.

  Args:
    what: names of the values ('loss', 'loss and grad_norm').
    step: the update in which it came up, from 1.
    sound: whether the state before it is finite.
    rate: learning rate of the update.
  """
  if not sound:
    return (
      "The loss and the gradients of that step were finite, so its update did it: look at the"
      f" optimizer's settings and at its learning rate ({rate:.3g}), not at the batch."
    )
  if step == 1:
    return (
      "No update was made before, so the learning rate is not the reason: look at the batch, at the"
      " initial weights and at the settings of the loss."
    )
  if "loss" not in what.split(" and "):
    return (
      f"The loss was finite, so the backward pass overflowed: lower the learning rate ({rate:.3g}) or"
      " look at the batch; clipping does not mend a gradient that is not finite."
    )
  return f"Lower the learning rate ({rate:.3g}), clip gradients or look at the batch."
