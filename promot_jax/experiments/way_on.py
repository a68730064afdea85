"""What can be used in place of a chosen checkpoint that is damaged.

A stage keeps several steps, and its marker the validation score of each: the best sound one of the
others takes the place of the damaged one, said loudly, and is evaluated anew.  Where a later stage was
trained on top of the damaged step no other one fits, and that is said.
"""

from collections.abc import Sequence

from promot_jax.checkpoints import policy
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.errors import DamagedCheckpoint
from promot_jax.training import choice
from promot_jax.training.stages import Stage


class ChoiceDamaged(DamagedCheckpoint):
  """The step that a stage hands on is damaged.

  position: of the stage.
  """

  def __init__(self, text: str, position: int) -> None:
    super().__init__(text)
    self.position = position


def explain(
  damage: DamagedCheckpoint, stages: Sequence[Stage], position: int, step: int, store: AnyStore
) -> DamagedCheckpoint:
  """The error with what can be done; a `ChoiceDamaged` if the step is the stage's choice."""
  name = stages[position].name
  done = choice.marker(store)
  if done is None or done["step"] != step:
    return damage
  other = next_best(stages[position], store, step)
  if other is None:
    hope = f"No other step of stage '{name}' is sound: restore it from a copy, or move"
    hope += f" {store.directory} away to train the stage again."
  elif position + 1 < len(stages):
    hope = f"Restore it from a copy; step {other} of stage '{name}' is the next best one."
  else:
    hope = (
      f"The next best sound step is {other}: promot train takes it and evaluates it; promot eval,"
    )
    hope += f" infer and convert take --checkpoint={name}:{other}."
  return ChoiceDamaged(f"{damage} {hope}", position)


def next_best(stage: Stage, store: AnyStore, damaged: int) -> int | None:
  """The sound step with the best validation score, else the newest sound one; None if none is."""
  done = choice.marker(store)
  # Checksums of all of them, which takes reading them: to offer a second damaged step would be no
  # help.
  steps = [step for step in store.steps() if step != damaged and not store.verify(step)]
  scores = {entry["step"]: entry["score"] for entry in (done["history"] if done else ())}
  known = {step: scores[step] for step in steps if step in scores}
  return policy.best(known, stage.optimum) if known else max(steps, default=None)


def choose_again(
  stages: Sequence[Stage], stores: Sequence[AnyStore], damage: ChoiceDamaged, *, imported: bool
) -> None:
  """Puts another step in the place of a damaged choice, or frees its place for another copy.

  Args:
    stages, stores: of the experiment.
    damage: which choice, and what is wrong.
    imported: whether the stage was taken over from another experiment, which still has it.

  Raises:
    DamagedCheckpoint: there is none, or a later stage was trained on top of the damaged one.
  """
  position = damage.position
  stage, store = stages[position], stores[position]
  done = choice.marker(store)
  assert done is not None
  reasons = {done["step"]: store.verify(done["step"])}
  # The other experiment still has the stage: freeing its place is enough, and the next look copies
  # it.
  if imported:
    store.set_aside_json(choice.MARKER, f"stage '{stage.name}' is taken over again:")
    store.set_aside(reasons, instead=done["step"])
    return
  begun = [
    stages[later].name for later in range(position + 1, len(stages)) if stores[later].steps()
  ]
  other = next_best(stage, store, done["step"])
  if begun:
    raise DamagedCheckpoint(
      f"{damage} Stage '{begun[0]}' was trained on top of it, and fits no other step: move"
      f" {stores[position + 1].directory} away to train it again."
    )
  if other is None:
    raise damage
  # Set aside before the marker is written: a kill in between leaves a marker that names a missing
  # step, which is found damaged again.
  store.set_aside(reasons, instead=other)
  why = f"step {other} is used, the next best one, because step {done['step']} is damaged"
  store.write_json(choice.MARKER, {**done, "step": other, "why": why})
