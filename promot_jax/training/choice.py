"""Which checkpoint a stage hands on, and the marker of a stage that is complete."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints import policy
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.identity import Identity
from promot_jax.training.stages import Stage

MARKER = "stage_complete.json"
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
  """

  model: nnx.Module
  step: int
  why: str
  history: list[dict[str, Any]]
  step_seconds: float | None = None


def choose_step(stage: Stage, history: list[dict[str, Any]]) -> tuple[int, str]:
  """The step that a stage hands on, and one line that says why."""
  if stage.select == "last":
    return stage.steps, f"step {stage.steps} is used, the last one, as select='last' asks"
  if not history:
    return stage.steps, f"step {stage.steps} is used, the last one, because nothing was validated"
  scores = {entry["step"]: entry["score"] for entry in history}
  step = policy.best_step(scores, stage.mode)
  assert step is not None  # the history is not empty
  ties = [other for other, score in scores.items() if score == scores[step]]
  tied = f"; steps {', '.join(map(str, ties))} tie and the earliest is taken" * (len(ties) > 1)
  return step, (
    f"step {step} of {stage.steps} is used, the {stage.mode}imum of validation"
    f" {stage.metric}, {scores[step]:.6g}, over {len(history)} validations{tied}"
  )


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
  if done["steps"] < stage.steps:
    return None
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
  )


def trained_with(stage: Stage) -> dict[str, str]:
  """The settings of a stage that its result depends on and that a user varies, as text."""
  steps = (0, stage.steps // 2, max(0, stage.steps - 1))
  rates = dict.fromkeys(f"{float(stage.learning_rate(step)):.6g}" for step in steps)
  minimized: Any = stage.objective
  if hasattr(minimized, "vocabulary_chunk"):
    minimized = dataclasses.replace(minimized, vocabulary_chunk=None)  # changes memory only
  objective = repr(minimized)
  return {
    "steps": str(stage.steps),
    "learning rate": " to ".join(rates),
    "objective": type(stage.objective).__name__ if " at 0x" in objective else objective,
    "dropout": "of the backbone" if stage.dropout_rate is None else f"{stage.dropout_rate:g}",
  }


DATA = ("training data", "validation data")
BINDING = (*DATA, "start weights", "values")
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


def restore_trainable(store: AnyStore, step: int, trainable: nnx.State) -> nnx.State:
  """The trainable parameters of a step, placed like the given ones."""
  named = {f"trainable/{name}": leaf for name, leaf in paths.named_leaves(trainable).items()}
  leaves = store.restore(step, named, prefix="trainable/").leaves
  return paths.replace_leaves(
    trainable, {name.removeprefix("trainable/"): leaf for name, leaf in leaves.items()}
  )
