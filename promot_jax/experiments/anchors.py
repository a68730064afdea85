"""What a stage's penalty holds its weights by: the anchor's values, and how much each of them matters."""

import dataclasses
from collections.abc import Mapping

from flax import nnx

from promot_jax import identity, paths
from promot_jax.checkpoints.policy import Keep
from promot_jax.checkpoints.shared import open_store
from promot_jax.data.batches import TrainBatches
from promot_jax.data.pool import Split
from promot_jax.experiments import origin
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.identity import Identity
from promot_jax.networks import network
from promot_jax.token_ids import TokenIds
from promot_jax.training import fisher, penalties
from promot_jax.training.penalties import Fisher, Held
from promot_jax.training.stages import Stage
from promot_jax.types import Array
from tasks import catalog

FOLDER = "fisher"
"""Of a model directory: what was summed up, a folder for each stage."""


def held(directory: ModelDirectory, stage: Stage, model: nnx.Module) -> Held | None:
  """What the penalty of a stage that begins with `model` is given; None: it has none.

  Raises:
    ConfigError: the anchor has none of what is trained; or the importance was measured on other data.
  """
  if stage.penalty is None:
    return None
  anchor = directory.session.anchor(directory.experiment, stage.name)
  assert anchor is not None  # a penalty has one
  _, trainable, _ = paths.split(model, stage.trainable)
  found = Held(values=penalties.held_by(anchor, trainable, owner=f"stage '{stage.name}'"))
  if stage.penalty.fisher is None:
    return found
  importance = _importance(directory, stage, stage.penalty.fisher, anchor, found.values)
  return dataclasses.replace(found, importance=importance)


def _importance(
  directory: ModelDirectory,
  stage: Stage,
  settings: Fisher,
  anchor: nnx.Module,
  values: Mapping[str, Array],
) -> dict[str, Array]:
  experiment, session = directory.experiment, directory.session
  examples = _examples(directory, stage, settings)
  batches = TrainBatches(
    examples if len(examples) > 1 else examples[0],
    batch_size=settings.batch_size,
    seed=experiment.seed,
    bucket_counts=(1, 1),
    special=TokenIds.of(experiment.backbone),
  )
  store = open_store(
    directory.folder / FOLDER / stage.name,
    keep=Keep(last=1, small_bytes=0),
    report=lambda line: None,
  )
  # Told before a pass, which takes as long as several hundred steps.
  store.check_writable(4 * paths.count(values))
  name = experiment.anchors[stage.name]
  made_from = Identity(
    parts={
      "training data": origin.joined(examples),
      "anchor": identity.part(
        [network.part(name).digest, str(settings), experiment.seed, sorted(values)],
        about=f"{name.about} with {settings}",
      ),
      "code": identity.of_code(),
    }
  )
  try:
    return fisher.measure(
      settings,
      anchor,
      list(values),
      batches=lambda number: directory.place(batches(number)),
      store=store,
      seed=experiment.seed,
      made_from=made_from,
      allow_change=session.allow_change,
      report=directory.events.line,
      stop_if_asked=session.stop_if_asked,
    )
  finally:
    store.close()


def _examples(directory: ModelDirectory, stage: Stage, settings: Fisher) -> list[Split]:
  experiment, reader = directory.experiment, directory.session.reader
  tasks = settings.tasks or catalog.members(experiment.task_of(stage.name))
  lengths = experiment.lengths_of(stage.name)
  return [reader.training(experiment, task, lengths) for task in tasks]
