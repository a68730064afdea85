"""What a stage and a model were made from, as identities that lie beside checkpoints and results.

Process 0 looks, and all processes get what it found: they must decide alike.
"""

import pathlib
from collections.abc import Callable, Sequence

from promot_jax import hosts, identity
from promot_jax.checkpoints import manifest, sources
from promot_jax.data.examples import Examples
from promot_jax.errors import DamagedCheckpoint
from promot_jax.evaluation.task import EvalTask
from promot_jax.experiments.data import Reader
from promot_jax.experiments.experiment import Experiment
from promot_jax.identity import Identity, Part
from promot_jax.training import choice
from promot_jax.training.stages import Stage
from tasks import catalog


def of_start(experiment: Experiment) -> Identity:
  """Of the initial weights, where they can be told without reading them, and of the code."""

  def look() -> Identity:
    parts = {"code": identity.of_code()}
    if content := sources.content(experiment.initial_checkpoint):
      parts["start weights"] = Part(digest=content, about=experiment.initial_checkpoint)
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
  training = [
    reader.examples(
      experiment,
      task,
      experiment.splits_of(task).train,
      experiment.lengths_of(stage.name),
      experiment.train_limit,
    )
    for task in catalog.members(experiment.task_of(stage.name))
  ]
  settings = {**choice.trained_with(stage), "batch size": stage.batch_size, "seed": experiment.seed}

  def look() -> Identity:
    content = sources.content(experiment.initial_checkpoint)
    return Identity(
      parts={
        "training data": _joined(training),
        "validation data": _joined([task.examples for task in validation]),
        "start weights": identity.part([start, content], about=experiment.initial_checkpoint),
        "settings": identity.part(settings),
        "code": identity.of_code(),
        "values": identity.of_values(),
      }
    )

  return _of_first(look)


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


def _of_first(look: Callable[[], Identity]) -> Identity:
  found = Identity.from_json(hosts.first(lambda: look().to_json()))
  assert found is not None
  return found


def _joined(examples: Sequence[Examples]) -> Part:
  parts = [each.content for each in examples]
  if len(parts) == 1:
    return parts[0]
  return identity.part([p.digest for p in parts], about=", ".join(p.about for p in parts))
