"""Which checkpoint a stage hands on, and the marker of a stage that is complete."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints import policy
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.checkpoints.step_reader import MARKER
from promot_jax.identity import Identity
from promot_jax.training import selection
from promot_jax.training.penalties import Penalty
from promot_jax.training.stages import Stage
from promot_jax.training.teacher_input import TeacherInputs

_SHAPE = {"stage": str, "step": int, "steps": int, "why": str, "history": list}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageResult:
  """What a stage leaves to the next one.

  Attributes:
    model: the given model with the chosen trainable parameters.
    step: the chosen step.
    why: one line that says why this step.
    history: one entry a validation: {'step': int, 'score': float, 'metrics': dict}.
    step_seconds: median time of an update in the process that ended the stage, compilation,
      validation and saving left out; None where it was not measured.
    stopped: the last step, where the stage's patience ended it early; else None.
  """

  model: nnx.Module
  step: int
  why: str
  history: list[dict[str, Any]]
  step_seconds: float | None = None
  stopped: int | None = None


def score(stage: Stage, metrics: Mapping[str, float]) -> float:
  """What a validation is worth to the stage.

  Raises:
    ConfigError: the validation does not give a metric that the choice needs.
  """
  given = sorted(metrics)
  # Checked for all that choose, not only for what scores: a `select` needs its metrics at the end,
  # when a missing one would cost the whole stage.
  for name in stage.asks or ():
    if name not in metrics:
      raise errors.ConfigError(
        f"Stage '{stage.name}' chooses by {described(stage)}, but its validation"
        f" {selection.unknown(name, given)} Set VALIDATION_METRIC."
      )
  if isinstance(stage.metric, str):
    return metrics[stage.metric]
  try:
    # A function that does not list its names shows what it lacks only when it is called.
    return float(stage.metric(metrics))
  except KeyError as missing:
    raise errors.ConfigError(
      f"Stage '{stage.name}': the function of its metrics asks for {missing}, and its validation"
      f" {selection.unknown(str(missing.args[0]), given)}"
    ) from None


def described(stage: Stage) -> str:
  """What chooses a stage's checkpoint: 'the maximum of accuracy'."""
  if stage.select == "last":
    return "the last step"
  if callable(stage.select):
    return selection.describe(stage.select)
  return f"the {stage.optimum}imum of {selection.describe(stage.metric)}"


def choose_step(
  stage: Stage, history: list[dict[str, Any]], last: int | None = None
) -> tuple[int, str]:
  """The step that a stage hands on, and one line that says why.

  Args:
    history: one entry a validation.
    last: the last step that was trained, fewer than the stage's where it stopped early.

  Raises:
    ConfigError: a function chose no step that was validated.
  """
  # Why it ended early belongs into each of the reasons below.
  last = stage.steps if last is None else last
  early = f"; {stop}" if (stop := stopped(stage, history, last)) else ""
  if stage.select == "last":
    return last, f"step {last} is used, the last one, as select='last' asks{early}"
  if not history:
    return last, f"step {last} is used, the last one, because nothing was validated"
  scores = {entry["step"]: entry["score"] for entry in history}
  count = f"over {len(history)} validations"
  # Any function may be given, so its answer is looked at before a restore fails on it.
  if callable(stage.select):
    step = stage.select(history)
    if step not in scores:
      raise errors.ConfigError(
        f"Stage '{stage.name}': {described(stage)} chose step {step!r}, and validated were"
        f" {', '.join(map(str, scores))}; `select` must give one of them."
      )
    why = f"step {step} of {stage.steps} is used, {described(stage)}, {count}{early}"
    return int(step), why
  # The rule by which the store keeps its best one, or that checkpoint could be gone by now.
  best = policy.best(scores, stage.optimum)
  assert best is not None  # the history is not empty
  # Told, because with few examples many validations tie, and the earliest is then a choice.
  ties = [other for other, score in scores.items() if score == scores[best]]
  tied = f"; steps {', '.join(map(str, ties))} tie and the earliest is taken" * (len(ties) > 1)
  return best, (
    f"step {best} of {stage.steps} is used, the {stage.optimum}imum of validation"
    f" {selection.describe(stage.metric)}, {scores[best]:.6g}, {count}{tied}{early}"
  )


def score_at(history: Sequence[Mapping[str, Any]], step: int | None) -> float | None:
  """The score of the validation at a step; None where that step was not validated."""
  return next((entry["score"] for entry in history if entry["step"] == step), None)


def stopped(stage: Stage, history: Sequence[Mapping[str, Any]], step: int) -> str:
  """Why a stage ends after `step` although it asks for more steps; empty where it goes on.

  A function of the validations alone: a run that was killed and repeated stops where it would have.
  """
  if stage.patience is None or step >= stage.steps:
    return ""
  # `best` moves by more than min_delta only: improvements too small one by one count together.
  sign = 1.0 if stage.optimum == "max" else -1.0
  best, without = -math.inf, 0
  for entry in history:
    value = sign * entry["score"]
    better = value - best > stage.min_delta
    best, without = (value, 0) if better else (best, without + 1)
    if without >= stage.patience:
      more = f" by more than {stage.min_delta:g}" if stage.min_delta else ""
      last = f"the last {without} validations were" if without > 1 else "the last validation was"
      return f"stopped after step {step}, as {last} not better{more} (patience {stage.patience})"
  return ""


def identity(stage: Stage, seed: int, *, allow_change: bool = False) -> dict[str, Any]:
  """What a continued run must share with its start; with `allow_change` only the stage's name."""
  if allow_change:
    return {"stage": stage.name}
  return {"stage": stage.name, "seed": seed, "batch_size": stage.batch_size}


def marker(store: AnyStore) -> dict[str, Any] | None:
  """What `mark_complete` wrote; None where the stage is not complete.

  Raises:
    DamagedRecord: it is not as it was written.
  """
  return store.read_json(
    MARKER,
    shape=_SHAPE,
    advice="The checkpoints beside it are safe: promot train makes it again from them, and promot"
    " eval, infer and convert take --checkpoint=STAGE:STEP until then.",
  )


def chosen_step(store: AnyStore) -> int:
  """The step that a complete stage hands on.

  Raises:
    ConfigError: the stage is not complete.
    DamagedRecord: its marker is not as it was written.
  """
  done = marker(store)
  if done is None:
    raise errors.ConfigError(
      f"the stage in {store.directory} is not complete: it has no {MARKER}. Finish it with promot"
      " train."
    )
  return done["step"]


def completed(
  stage: Stage, store: AnyStore, seed: int, *, allow_change: bool = False
) -> dict[str, Any] | None:
  """What `mark_complete` wrote, if it covers all steps of the stage.

  A damaged marker is set aside: the checkpoints say what it said.

  A stage that is not complete may go on with another learning rate; what a complete one was trained
  with is a fact, and results under other settings would be called by a wrong name.

  Args:
    allow_change: take it whatever it was trained with.

  Raises:
    ConfigError: the store belongs to another run, or the stage was trained with other settings.
  """
  try:
    done = marker(store)
  except errors.DamagedRecord as damage:
    store.set_aside_json(MARKER, str(damage))
    return None
  if done is None:
    return None
  fixed = identity(stage, seed, allow_change=allow_change)
  require_same_run(fixed, done, where=f"{store.directory / MARKER}")
  # Asked for more steps than it was complete with, it goes on from its last checkpoint.
  if done["steps"] < stage.steps:
    return None
  # A stage that its patience ended is complete with fewer steps, while the patience is the same.
  early = done.get("stopped")
  if early is not None and not stopped(stage, done["history"], early):
    return None  # with more patience it goes on from where it stopped
  # Only what both know is compared: a later version may record more settings.
  wanted = trained_with(stage)
  changed = [
    f"{name} {value}, and this run asks for {wanted[name]}"
    for name, value in done.get("trained_with", {}).items()  # absent in what 0.1.0 began with
    if wanted.get(name, value) != value
  ]
  if changed and not allow_change:
    raise errors.ConfigError(
      f"Stage '{stage.name}' in {store.directory} is complete: it was trained with"
      f" {'; '.join(changed)}. Use another model directory to train it so, delete this one and those"
      " of later stages to train again, or pass --allow_config_change to keep what was trained."
    )
  return done


def mark_complete(
  stage: Stage, store: AnyStore, result: StageResult, identity: Mapping[str, Any]
) -> None:
  """Writes the marker that lets a repeated command skip the stage.

  Raises:
    CannotWrite: the disk refuses.
  """
  choice = {"step": result.step, "why": result.why, "history": result.history}
  content = {
    **identity,
    "steps": stage.steps,
    **choice,
    "step_seconds": result.step_seconds,
    "trained_with": trained_with(stage),
    **({} if result.stopped is None else {"stopped": result.stopped}),
    **({} if stage.examples is None else {"examples": stage.examples}),
  }
  store.write_json(MARKER, content)


def result_of(model: nnx.Module, done: Mapping[str, Any]) -> StageResult:
  """The result of a stage whose marker is `done` and whose chosen parameters `model` has."""
  return StageResult(
    model=model,
    step=done["step"],
    why=done["why"],
    history=done["history"],
    step_seconds=done.get("step_seconds"),  # absent in what 0.1.0 began with
    stopped=done.get("stopped"),
  )


def trained_with(stage: Stage) -> dict[str, str]:
  """The settings of a stage that its result depends on and that a user varies, as text."""
  # A schedule is a function, whose text tells nothing: three of its values stand for it.
  steps = (0, stage.steps // 2, max(0, stage.steps - 1))
  rates = dict.fromkeys(f"{float(stage.learning_rate(step)):.6g}" for step in steps)
  objective = repr(stage.objective.whole())
  return {
    "steps": str(stage.steps),
    "learning rate": " to ".join(rates),
    # An address differs in every process, and the stage would never be recognised again.
    "objective": type(stage.objective).__name__ if " at 0x" in objective else objective,
    "dropout": "of the backbone" if stage.dropout_rate is None else f"{stage.dropout_rate:g}",
    "checkpoint choice": described(stage),
    "patience": "none" if stage.patience is None else f"{stage.patience} > {stage.min_delta:g}",
    **({"teacher": stage.teacher.identity()} if stage.reads_teacher else {}),
    **({} if stage.teacher_inputs is None else {"teacher's inputs": _told(stage.teacher_inputs)}),
    **({"teacher's tokens": str(stage.kept_tokens)} if stage.kept_tokens else {}),
    **({} if stage.penalty is None else _penalty(stage.penalty)),
  }


def _told(inputs: TeacherInputs) -> str:
  return inputs if isinstance(inputs, str) else repr(inputs)


def _penalty(penalty: Penalty) -> dict[str, str]:
  return {"penalty": penalty.settings(), "anchor": penalty.anchor.identity()}


DATA = ("training data", "validation data")
BINDING = (*DATA, "start weights", "teacher", "anchor", "values")
"""Parts of a training's identity that its continuation must share; others are only shown."""


def compare(
  made_from: Identity, stored: Any, *, where: str, allow_change: bool = False
) -> list[str]:
  """What changed since a checkpoint was made, a line for each part that may.

  Args:
    made_from: of this run.
    stored: JSON of the checkpoint's, None of earlier versions.
    where: the checkpoint, for messages.
    allow_change: whatever changed may.

  Raises:
    ConfigError: what is trained on, or started from, is another one.
  """
  earlier = Identity.from_json(stored)
  if earlier is None:
    return [f"{where} is of a version that did not record its data: they are not compared"]
  changed = made_from.changes(earlier, BINDING)
  if changed and not allow_change:
    raise errors.ConfigError(
      f"{where} cannot go on: {'; '.join(changed)}. Bring back what it was begun with, use another"
      " model directory, or pass --allow_config_change to go on with what is there now."
    )
  return [*changed, *made_from.changes(earlier, ["code"])]


def compare_complete(
  stage: str,
  made_from: Identity,
  done: Mapping[str, Any],
  *,
  where: str,
  allow_change: bool = False,
) -> list[str]:
  """What changed of the data since a stage was completed, a line for each part.

  The start is not looked at: the chosen values are there, and a copied folder has other times.

  Args:
    stage: its name.
    made_from: of the data as they are now.
    done: the stage's marker; one of an earlier version records no data.
    where: the folder of the stage, for messages.
    allow_change: whatever changed may.

  Raises:
    ConfigError: the data are others than those it was trained or validated on.
  """
  earlier = Identity.from_json(done.get("made_from"))
  if earlier is None:
    return [f"stage '{stage}' is of a version that did not record its data: they are not compared"]
  changed = made_from.changes(earlier, DATA)
  if changed and not allow_change:
    raise errors.ConfigError(
      f"Stage '{stage}' in {where} is complete, and {'; '.join(changed)}. Bring the data back, use"
      " another model directory to train on these, or pass --allow_config_change to keep what was"
      " trained."
    )
  return changed


def require_same_run(identity: Mapping[str, Any], stored: Mapping[str, Any], *, where: str) -> None:
  """Compares what may not change between an interrupted run and its continuation.

  Raises:
    ConfigError: something changed.
  """
  for field, new in identity.items():
    old = stored.get(field)
    if old != new:
      raise errors.ConfigError(
        f"{where} was made with {field}={old!r}, but this run has {field}={new!r}. Go on with the"
        " old value or use another directory."
      )


def record(stage: Stage) -> dict[str, str]:
  """What chooses, for the metadata of a checkpoint."""
  return {"checkpoint choice": described(stage)}


def require_same_choice(stage: Stage, metadata: Mapping[str, Any], *, where: str) -> None:
  """Scores of two metrics cannot be compared, nor checkpoints chosen that were given up meanwhile.

  Args:
    metadata: of a checkpoint that has validations.

  Raises:
    ConfigError: its validations were to choose by something else.
  """
  former, now = metadata.get("checkpoint choice"), described(stage)
  if former not in (None, now):  # None: of earlier versions
    raise errors.ConfigError(
      f"{where} was validated to choose by {former}, and this run chooses by {now}: its validations"
      " cannot be compared. Go on with the former, or use another model directory."
    )


def restore_trainable(store: AnyStore, step: int, trainable: nnx.State) -> nnx.State:
  """The trainable parameters of a step, placed like the given ones."""
  # The names of a whole state; moments are left on the disk, as nothing is trained further.
  named = {f"trainable/{name}": leaf for name, leaf in paths.named_leaves(trainable).items()}
  leaves = store.restore(step, named, prefix="trainable/").leaves
  return paths.replace_leaves(
    trainable, {name.removeprefix("trainable/"): leaf for name, leaf in leaves.items()}
  )
