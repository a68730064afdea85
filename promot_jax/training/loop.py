"""Runs one stage: from wherever it was interrupted, to its chosen checkpoint.

A run that was killed and repeated ends with the same bits as one that was not: everything that
changes is in the checkpoint (step, trainable parameters, optimizer state), and everything else is a
function of the step (batch, dropout key, learning rate).

With several processes (`hosts.py`) all of them run this loop.  What only one of them knows (a signal,
the clock) becomes a vote that travels with the step, so that all stop and save after the same one.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from promot_jax import errors, hosts, partitioning, paths, signals
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.checkpoints.store import Checkpoint
from promot_jax.identity import Identity
from promot_jax.training import choice, guard, meter, prefetch, schedules, selection, stage_dropout
from promot_jax.training import events as events_lib
from promot_jax.training import state as state_lib
from promot_jax.training import step as step_lib
from promot_jax.training.choice import StageResult
from promot_jax.training.stages import Stage

_IN_FLIGHT = 4  # steps dispatched beyond the newest whose metrics were fetched
_ORIGIN = "made_from"  # field of a checkpoint's metadata and of the marker
_SAVE, _STOP = 1, 2  # votes: a checkpoint is due by time; a signal asks to stop

Validate = Callable[[nnx.Module], Mapping[str, float]]


def train_stage(
  stage: Stage,
  model: nnx.Module,
  *,
  batches: Callable[[int], prefetch.HostBatch],
  store: AnyStore,
  seed: int,
  validate: Validate | None = None,
  mesh: Mesh | None = None,
  events: events_lib.Events | None = None,
  teacher: Any = None,
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
  events = events or events_lib.Events()
  schedules.require_usable(stage.learning_rate, steps=stage.steps, owner=f"stage '{stage.name}'")
  store.keep = stage.keep
  graphdef, trainable, frozen = paths.split(model, stage.trainable)
  identity = choice.identity(stage, seed)
  fixed = choice.identity(stage, seed, allow_change=allow_change)
  done = choice.completed(stage, store, seed, allow_change=allow_change)
  if done is not None:
    if made_from is not None:
      where = str(store.directory)
      for line in choice.compare_complete(
        stage.name, made_from, done, where=where, allow_change=allow_change
      ):
        events.line(line)
    trainable = choice.restore_trainable(store, done["step"], trainable)
    events.line(f"stage '{stage.name}' was complete: {done['why']}; its training is skipped")
    return choice.result_of(nnx.merge(graphdef, trainable, frozen), done)
  store.check_writable(paths.nbytes(trainable))
  with (
    signals.catch(
      report=events.line, grace_seconds=grace_seconds, at_once=not hosts.several()
    ) as stop,
    _nothing_to_save(stop),
  ):
    run = _Run(
      stage=stage,
      graphdef=graphdef,
      trained_graphdef=stage_dropout.graphdef(model, stage),
      given=frozen,
      frozen=state_lib.cast(frozen, stage.frozen_dtype),
      batches=batches,
      validate=validate,
      store=store,
      seed=seed,
      mesh=mesh,
      events=events,
      teacher=teacher,
      identity=identity,
      fixed=fixed,
      metadata={**(metadata or {}), **_origin(made_from), **identity, **choice.record(stage)},
      made_from=made_from,
      allow_change=allow_change,
      stop=stop,
    )
    run.start(trainable)
    accepted()
    run.train()
    return run.choose()


@dataclasses.dataclass(kw_only=True)
class _Run:
  """The moving parts of one stage in one process."""

  stage: Stage
  graphdef: nnx.GraphDef
  trained_graphdef: nnx.GraphDef  # with the stage's own dropout
  given: nnx.State  # the frozen parameters as the model had them
  frozen: nnx.State  # in the stage's frozen_dtype
  batches: Callable[[int], prefetch.HostBatch]
  validate: Validate | None
  store: AnyStore
  seed: int
  mesh: Mesh | None
  events: events_lib.Events
  teacher: Any
  identity: dict[str, Any]  # of this run, stored with every checkpoint
  fixed: dict[str, Any]  # the part of it that a checkpoint must share
  metadata: dict[str, Any]
  made_from: Identity | None
  allow_change: bool
  stop: signals.Stop
  step: int = 0  # updates dispatched
  saved: int | None = None  # newest step given to the store
  saved_at: float = dataclasses.field(default_factory=time.monotonic)
  votes: hosts.Votes | None = dataclasses.field(
    default_factory=lambda: hosts.Votes() if hosts.several() else None
  )
  voted: int = 0  # what all processes decided with the newest step that was fetched
  history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  in_flight: collections.deque = dataclasses.field(default_factory=collections.deque)
  compiled: set[tuple] = dataclasses.field(default_factory=set)  # shapes of batches seen so far
  window: meter.Window = dataclasses.field(default_factory=meter.Window)

  # Start.

  def start(self, trainable: nnx.State) -> None:
    """Makes the state, or restores the newest sound one."""
    stage = self.stage
    optimizer = stage.optimizer(stage.learning_rate)
    state = state_lib.create_state(trainable, optimizer, mesh=self.mesh)
    leaves = paths.named_leaves(state)
    checkpoint = self.store.restore_latest(leaves)
    if checkpoint is None:
      # Committed to their devices, as restored arrays are: both starts compile the same program.
      leaves = {name: partitioning.put(leaf, leaf.sharding) for name, leaf in leaves.items()}
      self.events.line(f"stage '{stage.name}': starting at step 0 of {stage.steps}")
    else:
      self._check_same_run(checkpoint)
      leaves = checkpoint.leaves
      self._resume_at(checkpoint)
    self.state = paths.replace_leaves(state, leaves)
    self.events.rewind(stage.name, self.step)
    if self.history and self.history[-1]["step"] == self.step:
      self._tell_validation(self.history[-1])
    self.pace = meter.Pace(stage.name, first=self.step, steps=stage.steps)
    shardings = state_lib.shardings_of(self.state)
    train_step = step_lib.make_train_step(
      self.trained_graphdef,
      stage.objective,
      optimizer,
      stage.learning_rate,
      microbatches=stage.microbatches,
      shardings=shardings,
    )
    self.train_step = guard.guarded(train_step, shardings)
    self.sound = partitioning.put(np.asarray(True), self.state.step.sharding)
    # A stage's dropout differs from another's under the same seed.
    self.key = jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(stage.name.encode()))

  def _resume_at(self, checkpoint: Checkpoint) -> None:
    self.step = self.saved = checkpoint.step
    self.history = list(checkpoint.metadata["history"])
    entry = self.store.score(checkpoint.step)
    if entry is not None:
      self.history.append({"step": checkpoint.step, **entry})
    self.events.line(
      f"stage '{self.stage.name}': resumed from step {self.step} of {self.stage.steps}"
      f" ({len(checkpoint.leaves)} arrays, checksums verified) in {self.store.directory}"
    )

  def _check_same_run(self, checkpoint: Checkpoint) -> None:
    where = str(self.store.path(checkpoint.step))
    choice.require_same_run(self.fixed, checkpoint.metadata, where=where)
    if self.made_from is not None:
      stored = checkpoint.metadata.get(_ORIGIN)
      for line in choice.compare(
        self.made_from, stored, where=where, allow_change=self.allow_change
      ):
        self.events.line(line)
    if checkpoint.metadata["history"] or self.store.score(checkpoint.step):
      choice.require_same_choice(self.stage, checkpoint.metadata, where=where)
    if checkpoint.step > self.stage.steps:
      raise errors.ConfigError(
        f"{where} is beyond the {self.stage.steps} steps of stage"
        f" '{self.stage.name}'; give at least {checkpoint.step} steps or use another directory."
      )

  # Training.

  def train(self) -> None:
    """Steps until the end of the stage; saves and validates where they are due."""
    place = functools.partial(partitioning.global_batch, mesh=self.mesh)
    ahead = prefetch.Prefetcher(self.batches, first=self.step, last=self.stage.steps, place=place)
    with ahead:
      try:
        self._save_and_validate()
        while self.step < self.stage.steps and not self._stopped():
          self._update(next(ahead))
          self._save_and_validate()
        self.store.wait()
      except _NotFinite as problem:
        raise hosts.of_all(self._diverged(problem)) from None

  def _update(self, prepared: prefetch.Prepared) -> None:
    assert prepared.step == self.step
    shapes = tuple(leaf.shape for leaf in jax.tree.leaves(prepared.batch))
    known = shapes in self.compiled
    if not known:
      self._fetch(0)  # or steps in flight would seem to be done while the host compiles
      self.compiled.add(shapes)
    with contextlib.nullcontext() if known else self.pace.pause():
      self.state, self.sound, metrics = self.train_step(
        self.state, self.sound, self.frozen, prepared.batch, self.key, self.teacher
      )
    self.step += 1
    self.stop.nothing_to_save = False
    vote = self.votes.cast(self._own_wish()) if self.votes else 0
    self.in_flight.append((self.step, prepared.tokens, metrics, vote))
    self._fetch(_IN_FLIGHT)
    self.store.poll()

  def _stopped(self) -> str:
    """Why the stage's patience is at its end; empty where it goes on."""
    return choice.stopped(self.stage, self.history, self.step)

  def _fetch(self, remaining: int) -> None:
    """Reads the metrics of all but the newest `remaining` steps, waiting for them if needed."""
    while len(self.in_flight) > remaining:
      step, tokens, metrics, vote = self.in_flight.popleft()
      metrics = jax.device_get(metrics)
      self.voted = int(vote)
      if not metrics["finite"][0]:
        raise _NotFinite(step, metrics)
      self.window.add({name: pair for name, pair in metrics.items() if name != "finite"})
      self.pace.finished(step, tokens, metrics)
      if step % self.stage.log_period == 0:
        self._tell_training(step)
      self.events.progress(self.pace.progress())

  def _tell_training(self, step: int) -> None:
    values = self.window.take()
    rate = self.pace.progress()
    for name in ("steps_per_second", "tokens_per_second"):
      if getattr(rate, name) is not None:
        values[name] = getattr(rate, name)
    if values:
      self.events.scalars(
        events_lib.Scalars(stage=self.stage.name, kind="train", step=step, values=values)
      )

  # Between two steps.

  def _save_and_validate(self) -> None:
    wish = self._wish()
    due = self.stage.saves(self.step) or wish
    if due and self.step != self.saved and (self.step > 0 or wish != _STOP):
      self._fetch(0)  # before the pause: time in which the device still trains is none
      with self.pace.pause():
        self._save()
    if self._wish() != _STOP and self.stage.validates(self.step):
      with self.pace.pause():
        self._validate()
    if self._wish() == _STOP and self.step in (0, self.saved):
      self.store.wait()
      stopped = errors.Preempted(
        f"Stopped by {self.stop.requested or 'a signal to another process'} at step {self.step} of"
        f" {self.stage.steps} of stage '{self.stage.name}'{', which is saved' if self.step else ''}."
        " Repeat the same command to go on."
      )
      raise hosts.of_all(stopped)

  def _wish(self) -> int:
    """What is to be done besides training: the same in all processes."""
    return self.voted if self.votes else self._own_wish()

  def _own_wish(self) -> int:
    if self.stop.requested:
      return _STOP
    return _SAVE if hosts.is_first() and self._overdue() else 0

  def _overdue(self) -> bool:
    seconds = self.stage.save_seconds
    waited = time.monotonic() - self.saved_at
    return seconds is not None and self.step > 0 and waited >= seconds

  def _save(self) -> None:
    self._fetch(0)
    if not guard.all_finite(self.state):
      raise _NotFinite(self.step, {})
    if self.step % self.stage.log_period:  # the rest of the window, so that a resume loses nothing
      self._tell_training(self.step)
    self.store.save(
      self.step, paths.named_leaves(self.state), {**self.metadata, "history": self.history}
    )
    self.saved, self.saved_at = self.step, time.monotonic()
    self.voted = self.voted if self.voted == _STOP else 0

  def _validate(self) -> None:
    """Validates the saved state; a kill here loses the validation only."""
    if self.validate is None or any(entry["step"] == self.step for entry in self.history):
      return
    self.store.poll()
    self.stop.nothing_to_save = not self.store.writing
    model = nnx.merge(self.graphdef, self.state.trainable, self.frozen)
    metrics = {name: float(value) for name, value in self.validate(model).items()}
    metrics = hosts.first(lambda: metrics)
    score = choice.score(self.stage, metrics)
    if not math.isfinite(score):
      name = selection.describe(self.stage.metric)
      self.events.line(f"validation {name} is {score} at step {self.step}: ignored")
      return
    self.store.record_score(self.step, score, metrics)
    self.history.append({"step": self.step, "score": score, "metrics": metrics})
    self._tell_validation(self.history[-1])

  def _tell_validation(self, entry: dict[str, Any]) -> None:
    self.events.scalars(
      events_lib.Scalars(
        stage=self.stage.name, kind="validation", step=entry["step"], values=entry["metrics"]
      )
    )

  # Ends.

  def _diverged(self, problem: "_NotFinite") -> errors.Diverged:
    """Saves the offending batch and the state before it; the guard has kept that state."""
    self.in_flight.clear()
    good = int(self.state.step)
    sound = bool(guard.all_finite(self.state))
    # Where the state before it is not finite, the update that led there is what went wrong.
    step = problem.step if sound else max(good, 1)
    batch_file = self.store.directory / f"diverged_step_{step}.npz"
    with contextlib.suppress(OSError):  # the divergence is the news, also on a full disk
      self.store.directory.mkdir(parents=True, exist_ok=True)
      batch: dict[str, Any] = dict(self.batches(step - 1))
      if hosts.is_first():
        np.savez(batch_file, **batch)
    if good != self.saved and good < problem.step and sound:
      self.step = good
      self._save()
    self.store.wait()
    what = " and ".join(problem.names) if sound and problem.names else "a parameter"
    rate = float(self.stage.learning_rate(jax.numpy.asarray(step - 1)))
    latest = self.store.latest()
    kept = (
      "no state was saved before" if latest is None else f"the newest sound state is step {latest}"
    )
    return errors.Diverged(
      f"{what} became NaN or infinite at step {step} of stage '{self.stage.name}'. Its batch is in"
      f" {batch_file}; {kept}. {guard.advice(what, step=step, sound=sound, rate=rate)} Repeating the"
      " command ends here again."
    )

  def choose(self) -> StageResult:
    """Picks the checkpoint that the stage hands on, says so, and marks the stage complete."""
    stage = self.stage
    step, why = choice.choose_step(stage, self.history, self.step)
    stopped = self.step if self._stopped() else None
    trainable = self.state.trainable
    if step != self.step:
      trainable = choice.restore_trainable(self.store, step, trainable)
    model = nnx.merge(self.graphdef, trainable, self.given)
    pace = self.pace.step_seconds()
    result = StageResult(
      model=model, step=step, why=why, history=self.history, step_seconds=pace, stopped=stopped
    )
    choice.mark_complete(stage, self.store, result, {**self.identity, **_origin(self.made_from)})
    self.events.line(f"stage '{stage.name}' complete: {why}")
    return result


def _origin(made_from: Identity | None) -> dict[str, Any]:
  return {} if made_from is None else {_ORIGIN: made_from.to_json()}


@contextlib.contextmanager
def _nothing_to_save(stop: signals.Stop):
  """Until the first step is done, stopping at once loses nothing; afterwards as before."""
  former, stop.nothing_to_save = stop.nothing_to_save, True
  try:
    yield
  finally:
    stop.nothing_to_save = former


class _NotFinite(Exception):
  """Metrics of the first step that is not finite."""

  def __init__(self, step: int, metrics: Mapping[str, Any]) -> None:
    super().__init__(step)
    self.step = step
    self.names = [
      name
      for name in ("loss", "grad_norm")
      if name in metrics and not np.isfinite(metrics[name][0])
    ]
