"""What a stage and a model were made from, as identities that lie beside checkpoints and results.

Process 0 looks, and all processes get what it found: they must decide alike.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promot_jax import hosts, identity, paths
from promot_jax.checkpoints import manifest, step_files
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.checkpoints.step_reader import PARAMETERS
from promot_jax.data.pool import Split
from promot_jax.errors import ConfigError, DamagedCheckpoint, DataError
from promot_jax.evaluation.task import EvalTask
from promot_jax.experiments import data, shapes
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.reader import Reader
from promot_jax.identity import Identity, Part
from promot_jax.networks import network
from promot_jax.networks.network import AnyNetwork
from promot_jax.training import choice
from promot_jax.training.stages import Stage
from tasks import catalog


def of_start(experiment: Experiment) -> Identity:
  """Of the initial weights, where they can be told without reading them, and of the code."""

  def look() -> Identity:
    parts = {"code": identity.of_code()}
    if content := experiment.start.content():
      parts["start weights"] = content
    return Identity(parts=parts)

  return _of_first(look)


def of_stage(
  experiment: Experiment,
  stage: Stage,
  *,
  start: str,
  validation: Sequence[EvalTask],
  reader: Reader,
) -> Identity:
  """Of the training of a stage.

  Args:
    start: tells the model apart that the stage begins with.
    validation: what it is validated on.
    reader: gives the examples it is trained on, which have been read.
  """
  # Every process reads, outside of `look`: to read takes the processes in turn, so all must call
  # it.
  training = data.train_examples(experiment, stage.name, reader)
  anchor = experiment.anchors.get(stage.name)
  settings = {**choice.trained_with(stage), "batch size": stage.batch_size, "seed": experiment.seed}

  def look() -> Identity:
    content = experiment.start.content()
    return Identity(
      parts={
        "training data": joined(training),
        "validation data": joined([task.examples for task in validation]),
        # Name and content: a path may have got other weights, and of some places no content is
        # known.
        "start weights": identity.part(
          [start, content.digest if content else ""], about=experiment.start.about
        ),
        "teacher": of_teacher(experiment.teachers.get(stage.name), stage),
        "anchor": Part(digest="none") if anchor is None else network.part(anchor),
        "settings": identity.part(settings),
        "code": identity.of_code(),
        "values": identity.of_values(),
      }
    )

  return _of_first(look)


def changes_since(
  experiment: Experiment,
  stage: Stage,
  done: Mapping[str, Any],
  *,
  reader: Reader,
  store: AnyStore,
  allow_change: bool,
) -> list[str]:
  """What is to be said of a complete stage's data, a line for each.

  Args:
    done: its marker.
    reader: reads what it would be trained on today.
    store: of its checkpoints.
    allow_change: whatever changed may.

  Raises:
    ConfigError: it was trained or validated on other data, or trained other parameters.
  """
  # Parameters first, as they lie in the checkpoint; the data are only compared where they can be
  # read.
  if not allow_change:
    _require_same_parameters(experiment, stage, store, done["step"])
  if stage.name in experiment.imported_stages:  # another experiment's, and compared there
    return []
  try:
    now = of_data(experiment, stage, reader=reader)
  except DataError as error:  # they may be gone, and what was trained is there
    return [f"data of stage '{stage.name}' cannot be read and are not compared: {error}"]
  where = str(store.directory)
  return choice.compare_complete(stage.name, now, done, where=where, allow_change=allow_change)


def of_data(experiment: Experiment, stage: Stage, *, reader: Reader) -> Identity:
  """Of what a stage is trained and validated on, as it is now; reads it."""
  lengths, limit = experiment.lengths_of(stage.name), experiment.validation_limit
  tasks = catalog.members(experiment.task_of(stage.name))
  selection = [
    reader.examples(experiment, task, experiment.splits_of(task).select, lengths, limit)
    for task in tasks
  ]
  training = data.train_examples(experiment, stage.name, reader)
  return _of_first(
    lambda: Identity(parts=dict(zip(choice.DATA, (joined(training), joined(selection)))))
  )


def of_teacher(teacher: AnyNetwork | None, stage: Stage) -> Part:
  """Of what a stage is taught: the network, and what it reads where that is no example's input.

  Args:
    teacher: None: the stage is taught by none, or by an average of its own.
  """
  own, reads = stage.own_teacher, stage.teacher_inputs
  if own is not None:
    found = identity.part(own.identity(), about=own.about)
  elif teacher is not None:
    found = network.part(teacher)
  else:
    return Part(digest="none")
  if reads is None:
    return found
  # The name of a feature as it always was.
  told = (f"'{reads}'", reads) if isinstance(reads, str) else (str(reads), repr(reads))
  return identity.part([found.digest, told[1]], about=f"{found.about}, which reads {told[0]}")


def of_step(path: pathlib.Path) -> str:
  """Tells a checkpoint apart, by its manifest.

  Raises:
    DamagedCheckpoint: it is not there.
  """

  def look() -> str:
    try:
      return identity.of_file(path / manifest.FILE)
    except OSError as error:
      raise DamagedCheckpoint(
        f"{path} is damaged ({manifest.FILE} cannot be read: {error.strerror})."
      ) from None

  return hosts.first(look)


def _require_same_parameters(
  experiment: Experiment, stage: Stage, store: AnyStore, step: int
) -> None:
  """Raises ConfigError where a complete stage trained other parameters than it would today.

  By their names in the checkpoint: a pattern may be spelt in many ways.
  """

  def look() -> list[str]:
    try:
      table = step_files.describe(store.path(step))[1]
    except DamagedCheckpoint:  # whoever restores it says so
      return []
    return [name.removeprefix(PARAMETERS) for name in table if name.startswith(PARAMETERS)]

  found = set(hosts.first(look))
  names = paths.parameter_names(shapes.abstract_model(experiment))
  wanted = set(paths.match(stage.trainable, names))
  # One name stands for all of them: a pattern that differs selects hundreds.
  if found and (other := min(found ^ wanted, default=None)):
    has, asks = ("has", "does not train") if other in found else ("lacks", "trains")
    raise ConfigError(
      f"Stage '{stage.name}' in {store.directory} is complete: its checkpoint {has} '{other}', which"
      f" trainable={stage.trainable!r} {asks}. Use another model directory to train it so, or pass"
      " --allow_config_change to keep what was trained."
    )


def _of_first(look: Callable[[], Identity]) -> Identity:
  found = Identity.from_json(hosts.first(lambda: look().to_json()))
  assert found is not None
  return found


def joined(examples: Sequence[Split]) -> Part:
  """The data of several tasks together."""
  parts = [each.content for each in examples]
  # As it is, so that the sentence about a change has the task's own words for it.
  if len(parts) == 1:
    return parts[0]
  return identity.part([p.digest for p in parts], about=", ".join(p.about for p in parts))
