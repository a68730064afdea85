"""Runs one stage: from wherever it was interrupted, to its chosen checkpoint.

A run that was killed and repeated ends with the same bits as one that was not: everything that
changes is in the checkpoint (step, trainable parameters, optimizer state), and everything else is a
function of the step (batch, dropout key, learning rate).

With several processes (`hosts.py`) all of them run this loop, and stop and save after the same steps
(`wishes`).
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from promot_jax import errors, hosts, partitioning, paths, signals
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.identity import Identity
from promot_jax.training import (
  beginning,
  choice,
  divergence,
  optimizers,
  prefetch,
  stage_dropout,
)
from promot_jax.training import state as state_lib
from promot_jax.training.choice import StageResult
from promot_jax.training.events import Events
from promot_jax.training.in_flight import InFlight
from promot_jax.training.lineage import Lineage
from promot_jax.training.penalties import Held
from promot_jax.training.program import Position, Program, position_at
from promot_jax.training.saving import Saving
from promot_jax.training.stages import Stage
from promot_jax.training.validations import Validate, Validations
from promot_jax.training.wishes import Wish, Wishes

_IN_FLIGHT = 4  # steps dispatched beyond the newest whose metrics were read


def train_stage(
  stage: Stage,
  model: nnx.Module,
  *,
  batches: Callable[[int], prefetch.HostBatch],
  store: AnyStore,
  seed: int,
  validate: Validate | None = None,
  mesh: Mesh | None = None,
  events: Events | None = None,
  teacher: Any = None,
  held: Held | None = None,
  metadata: Mapping[str, Any] | None = None,
  made_from: Identity | None = None,
  grace_seconds: float | None = 120.0,
  allow_change: bool = False,
  accepted: Callable[[], None] = lambda: None,
) -> StageResult:
  """Trains, or goes on training, or only restores the choice of a stage that is complete.

  Args:
    stage: what to do.
    model: where to start; left unchanged.  Under a mesh, already placed on it.
    batches: the batch of a step (0 is the first), a function of the step only.
    store: checkpoints of this stage and nothing else; takes the stage's keep policy.
    seed: of dropout.
    validate: metrics of a model by name; it must not keep the model's arrays.  None: the last
      checkpoint is chosen.
    mesh: devices; None is the default device.
    events: receives metrics, progress and lines.
    teacher: handed to the objective.
    held: handed to the stage's penalty.
    metadata: stored with each checkpoint (JSON).
    made_from: data, start and code, stored with each checkpoint and compared when one goes on.
    grace_seconds: time from SIGTERM to the end of the process, saved or not.
    allow_change: go on with checkpoints of another seed or batch size.
    accepted: called once nothing can be refused any more, before the first step.

  Raises:
    Preempted: SIGTERM or SIGINT came; the state is saved.
    Diverged: loss or gradient is not finite; the parameters before are saved, and the batch.
    CannotWrite: a checkpoint could not be written.
    DamagedCheckpoint: there are checkpoints, but none is sound.
    ConfigError: the checkpoints belong to another stage, seed, batch size or model, or to other data.
  """
  events = events or Events()
  # Refused before anything is compiled or written.
  optimizers.require_usable_rates(stage)
  store.keep = stage.keep
  graphdef, trainable, frozen = paths.split(model, stage.trainable)
  lineage = Lineage(
    stage=stage,
    seed=seed,
    made_from=made_from,
    beside=metadata or {},
    allow_change=allow_change,
  )
  # A complete stage: only its choice is restored, which needs no optimizer and no batch.
  done, changes = lineage.completed(store)
  if done is not None:
    for line in changes:
      events.line(line)
    trainable = choice.restore_trainable(store, done["step"], trainable)
    events.line(f"stage '{stage.name}' was complete: {done['why']}; its training is skipped")
    return choice.result_of(nnx.merge(graphdef, trainable, frozen), done)
  # A full disk is found now, not at the first save an hour later.
  store.check_writable(paths.nbytes(trainable))
  with (
    # With several processes a signal waits for their vote: one that ends alone leaves the others
    # waiting in a collective.
    signals.catch(
      report=events.line, grace_seconds=grace_seconds, at_once=not hosts.several()
    ) as stop,
    _nothing_to_save(stop),
  ):
    # The stage's own dropout is in the trained structure only: what is validated and handed on has
    # the model's.
    trained = stage_dropout.graphdef(model, stage)
    cast = state_lib.cast(frozen, stage.frozen_dtype)
    wishes = Wishes(stop)
    optimizer = stage.optimizer(stage.learning_rate)
    begun = beginning.begin(
      trainable, optimizer, lineage=lineage, store=store, mesh=mesh, events=events
    )
    # Where it begins, and all that it works with.
    first = begun.saved or 0
    run = _Run(
      stage=stage,
      graphdef=graphdef,
      given=frozen,
      frozen=cast,
      batches=batches,
      store=store,
      mesh=mesh,
      events=events,
      stop=stop,
      lineage=lineage,
      program=Program(
        stage,
        trained,
        optimizer=optimizer,
        state=begun.state,
        frozen=cast,
        seed=seed,
        teacher=teacher,
        held=held,
      ),
      in_flight=InFlight(stage, first=first, events=events, hear=wishes.hear),
      wishes=wishes,
      saving=Saving(stage, store, metadata=lineage.metadata, newest=begun.saved),
      validations=Validations(stage, validate, store=store, events=events, history=begun.history),
    )
    # Metrics of steps that a kill took back are removed, as they are going to be told again.
    events.rewind(stage.name, first)
    if begun.history and begun.history[-1]["step"] == first:
      run.validations.tell_newest()
    # Only now: a caller that keeps the configuration of an accepted start must not keep another's.
    accepted()
    return _chosen(run, _train(run, position_at(first, begun.state)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
  """What one stage works with in one process; its position is handed from step to step apart."""

  stage: Stage
  graphdef: nnx.GraphDef
  given: nnx.State  # the frozen parameters as the model had them
  frozen: nnx.State  # in the stage's frozen_dtype
  batches: Callable[[int], prefetch.HostBatch]
  store: AnyStore
  mesh: Mesh | None
  events: Events
  stop: signals.Stop
  lineage: Lineage
  # What moves, each with its own part of it.
  program: Program
  in_flight: InFlight
  wishes: Wishes
  saving: Saving
  validations: Validations


def _train(run: _Run, position: Position) -> Position:
  """Steps until the end of the stage; saves and validates where they are due."""
  place = functools.partial(partitioning.global_batch, mesh=run.mesh)
  last = run.stage.steps
  with prefetch.Prefetcher(run.batches, first=position.step, last=last, place=place) as ahead:
    try:
      # Before the first step too: step 0 may be validated, and a kill may have come between a save
      # and its validation.
      _save_and_validate(run, position)
      while position.step < last and not run.validations.stopped(position.step):
        position = _dispatched(run, position, next(ahead))
        # Some steps behind, so that the device has the next ones queued; few, so that a divergence
        # is seen soon.
        run.in_flight.read(_IN_FLIGHT)
        # A background save that failed is told now, not when the next one is due.
        run.store.poll()
        _save_and_validate(run, position)
      # The last save has to be on the disk before the choice may name it.
      run.store.wait()
    except divergence.NotFinite as problem:
      # Steps behind the first bad one were passed through by the guard: nothing to read in them.
      run.in_flight.drop()
      diverged = divergence.end(
        problem,
        stage=run.stage,
        state=position.state,
        batches=run.batches,
        store=run.store,
        save=functools.partial(_save_before_divergence, run, position),
      )
      raise hosts.of_all(diverged) from None
  return position


def _dispatched(run: _Run, position: Position, prepared: prefetch.Prepared) -> Position:
  """The position after one more update, which the device may be at for a while yet."""
  assert prepared.step == position.step
  known = run.program.knows(prepared.batch)
  if not known:
    run.in_flight.read()  # or steps in flight would seem to be done while the host compiles
  with contextlib.nullcontext() if known else run.in_flight.pace.pause():
    position, metrics = run.program(position, prepared.batch)
  # From here on stopping at once would lose an update.
  run.stop.nothing_to_save = False
  # Cast right behind the update, in all processes in the same order.
  vote = run.wishes.vote(overdue=run.saving.overdue(position.step))
  run.in_flight.add(position.step, tokens=prepared.tokens, metrics=metrics, vote=vote)
  return position


# Between two steps.


def _save_and_validate(run: _Run, position: Position) -> None:
  step, pace = position.step, run.in_flight.pace
  wish = _wish(run, step)
  due = run.stage.saves(step) or wish
  # Not again where it was just restored or saved, nor a fresh start because of a signal: step 0
  # costs nothing to make again.
  if due and step != run.saving.newest and (step > 0 or wish != Wish.STOP):
    run.in_flight.read()  # before the pause: time in which the device still trains is none
    with pace.pause():
      _save(run, position)
  # Asked anew: a signal may have come during the save, and a validation may outlast its grace.
  if _wish(run, step) != Wish.STOP and run.stage.validates(step):
    with pace.pause():
      _validate(run, position)
  # Only at a step that is saved; a stop that came after the save above has the next step saved.
  if _wish(run, step) == Wish.STOP and step in (0, run.saving.newest):
    run.store.wait()
    stopped = errors.Preempted(
      f"Stopped by {run.stop.requested or 'a signal to another process'} at step {step} of"
      f" {run.stage.steps} of stage '{run.stage.name}'{', which is saved' if step else ''}."
      " Repeat the same command to go on."
    )
    raise hosts.of_all(stopped)


def _wish(run: _Run, step: int) -> Wish:
  return run.wishes.now(overdue=run.saving.overdue(step))


def _save(run: _Run, position: Position) -> None:
  run.in_flight.read()
  # A parameter may be infinite before any loss is: such a state must not replace a sound one.
  divergence.require_finite(position.step, position.state)
  if position.step % run.stage.log_period:  # the rest, so that a resume loses nothing
    run.in_flight.tell(position.step)
  run.saving.save(position, run.validations.history)
  run.wishes.saved()


def _validate(run: _Run, position: Position) -> None:
  """Validates the saved position; a kill here loses the validation only."""
  if not run.validations.lacks(position.step):
    return
  # A save that failed is told before a validation, which may take long.
  run.store.poll()
  # While nothing is being written, a kill costs the validation alone, which the next run repeats.
  run.stop.nothing_to_save = not run.store.writing
  model = nnx.merge(run.graphdef, position.state.trainable, run.frozen)
  run.validations.add(position.step, model)


# Ends.


def _save_before_divergence(run: _Run, position: Position, step: int) -> None:
  """Saves what the guard has kept, the state of an earlier step than was dispatched."""
  if step != run.saving.newest:
    _save(run, dataclasses.replace(position, step=step))


def _chosen(run: _Run, position: Position) -> StageResult:
  """Picks the checkpoint that the stage hands on, says so, and marks the stage complete."""
  stage, history = run.stage, run.validations.history
  # The newest parameters are still in memory: restored are only others.
  step, why = choice.choose_step(stage, history, position.step)
  trainable = position.state.trainable
  if step != position.step:
    trainable = choice.restore_trainable(run.store, step, trainable)
  result = StageResult(
    # The frozen parameters as they were given: the stage's cast is its own business.
    model=nnx.merge(run.graphdef, trainable, run.given),
    step=step,
    why=why,
    history=history,
    step_seconds=run.in_flight.pace.step_seconds(),
    stopped=position.step if run.validations.stopped(position.step) else None,
  )
  choice.mark_complete(stage, run.store, result, run.lineage.marker)
  run.events.line(f"stage '{stage.name}' complete: {why}")
  return result


@contextlib.contextmanager
def _nothing_to_save(stop: signals.Stop):
  """Until the first step is done, stopping at once loses nothing; afterwards as before."""
  former, stop.nothing_to_save = stop.nothing_to_save, True
  try:
    yield
  finally:
    stop.nothing_to_save = former
