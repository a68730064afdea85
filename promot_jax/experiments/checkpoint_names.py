"""Checkpoints of an experiment as a command line names them."""

from promot_jax.errors import ConfigError
from promot_jax.experiments import checkpoint
from promot_jax.experiments.checkpoint import PRETRAINED, Checkpoint
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.training import choice

CHOSEN = "chosen"


def named(directory: ModelDirectory, text: str, *, method_file: str | None = None) -> Checkpoint:
  """The checkpoint that 'chosen', 'pretrained', 'STAGE' or 'STAGE:STEP' names.

  Args:
    method_file: of a method, or a PEFT adapter, that 'chosen' then means: it is put onto the pretrained model.

  Raises:
    ConfigError: there is no such stage, step or file, or the stage is not complete.
    DamagedCheckpoint: the file cannot be read, or the record of the stage's choice.
  """
  experiment = directory.experiment
  stages = experiment.stages
  if method_file is not None and text == CHOSEN:
    return checkpoint.of_method_file(experiment, method_file)
  if text == PRETRAINED or (text == CHOSEN and not stages):
    return checkpoint.pretrained(experiment)
  if method_file is not None:
    raise ConfigError(
      f"--checkpoint={text} and --method={method_file}: the method of a file is put onto the pretrained"
      " model, not onto a stage's; leave one of the two out."
    )
  names = [stage.name for stage in stages]
  wanted, _, number = (names[-1] if text == CHOSEN else text).partition(":")
  if wanted not in names:
    raise ConfigError(
      f"--checkpoint={text} names no stage of '{experiment.name}'. Use chosen, pretrained"
      f"{''.join(f', {name}, {name}:STEP' for name in names)}."
    )
  position = names.index(wanted)
  store = directory.store(stages[position])
  # A step that is named needs no marker: it is also the way past a damaged one.
  marker = None if number else choice.marker(store)
  steps = store.steps()
  if not number and marker is None:
    raise ConfigError(
      f"stage '{wanted}' in {directory.folder} is not complete. Finish it with promot train, or name "
      f"--checkpoint={' or '.join([*(f'{wanted}:{step}' for step in steps), PRETRAINED])}."
    )
  step = marker["step"] if marker is not None else int(number) if number.isdigit() else -1
  if step not in steps:
    raise ConfigError(
      f"--checkpoint={text}: {store.directory} has no such step. It has: "
      f"{', '.join(map(str, steps)) or 'none'}."
    )
  return checkpoint.after(experiment, position + 1, step)
