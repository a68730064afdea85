"""The course of an experiment: its stages one after the other, each found complete, taken over or trained."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from promot_jax import hosts
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.evaluation.task import EvalTask
from promot_jax.experiments import (
  anchors,
  checkpoint,
  data,
  epochs,
  imported_stages,
  origin,
  progress,
  restored,
  teaching,
  validation,
)
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.networks import trained_methods
from promot_jax.training import choice, loop
from promot_jax.training.stages import Stage

Marker = Mapping[str, Any]
"""What is noted of a complete stage (`training.choice`)."""


def run(directory: ModelDirectory) -> tuple[ModelDirectory, list[Marker]]:
  """Completes every stage.

  Returns:
    (the directory of the experiment with the steps that its stages in epochs have, the marker of each
    stage).

  Raises:
    PromotError: of data, weights or checkpoints that do not fit, a signal, a loss that is not finite.
  """
  markers: list[Marker] = []
  model = None  # of the stage before, where this process trained it
  for position, stage in enumerate(directory.experiment.stages):
    store, session = directory.store(stage), directory.session
    # Counted when its turn comes: what a stage trains on need not be read while it is complete.
    experiment = epochs.counted(directory.experiment, position, store, session.reader)
    directory = dataclasses.replace(directory, experiment=experiment)
    marker = _found(directory, position, store)
    if marker is not None:
      model = None
    else:
      model = _train(directory, position, store, begun=model)
      store.close()
      session.stop.nothing_to_save = True
      # Read back, not taken from the loop: a run that finds the stage complete sees the same.
      marker = _completed(directory, position, store)
      assert marker is not None
    markers.append(marker)
  return directory, markers


def _completed(directory: ModelDirectory, position: int, store: AnyStore) -> Marker | None:
  experiment, change = directory.experiment, directory.session.allow_change
  return choice.completed(experiment.stages[position], store, experiment.seed, allow_change=change)


def _found(directory: ModelDirectory, position: int, store: AnyStore) -> Marker | None:
  """The marker of a stage that is complete, here or where it is taken over from; None if it is not."""
  experiment, session = directory.experiment, directory.session
  stage = experiment.stages[position]
  done = _completed(directory, position, store)
  # A marker of its own goes before: another training of the source since then changes nothing
  # here.
  if done is None and stage.name in experiment.imported_stages:
    imported_stages.take_over(experiment, stage.name, store)
    done = _completed(directory, position, store)
  if done is None:
    return None
  directory.events.line(f"stage '{stage.name}' is complete: {done['why']}")
  for line in origin.changes_since(
    experiment, stage, done, reader=session.reader, store=store, allow_change=session.allow_change
  ):
    directory.events.line(line)
  return done


def _train(
  directory: ModelDirectory, position: int, store: AnyStore, *, begun: nnx.Module | None
) -> nnx.Module:
  """Trains a stage; gives its model, with the parameters that it chose.

  Args:
    begun: what it begins with; None: that is restored.
  """
  experiment, session, events = directory.experiment, directory.session, directory.events
  stage = experiment.stages[position]
  # Data first: they are cheaper than weights, and where they cannot be used nothing is restored.
  held_out = data.validation_tasks(experiment, stage.name, session.reader)
  batches = data.train_batches(experiment, stage.name, stage.batch_size, session.reader)
  events.line(
    f"batches   {stage.batch_size} x inputs {'/'.join(map(str, batches.buckets.inputs))}, targets "
    f"{'/'.join(map(str, batches.buckets.targets))}: {batches.padding_ratio(100):.2f} computed "
    "tokens for each needed one"
  )
  session.stop_if_asked()
  # Before the model too: what is asked of a teacher is kept, and the teacher need not stay.
  taught = teaching.of_stage(directory, stage, held_out)
  # The model of the stage before is handed on in memory; in a repeated run it comes from the disk.
  model = restored.Restored(directory).before(position) if begun is None else begun
  data.check_prompts(model, batches.prompt_ids, held_out)
  # Only under the first stage is the backbone the pretrained one.  Of several processes none has
  # all the values that a fingerprint is made of.
  if position == 0 and not hosts.several():
    trained_methods.remember_backbone(store, session.pretrained(experiment))
  result = loop.train_stage(
    stage,
    model,
    teacher=taught.model,
    held=anchors.held(directory, stage, model),
    batches=taught.batches(batches),
    store=store,
    seed=experiment.seed,
    validate=functools.partial(_validate, directory, stage, held_out, taught),
    mesh=directory.mesh,
    events=events,
    metadata={"experiment": experiment.name, "start": experiment.start.identity()},
    made_from=origin.of_stage(
      experiment,
      stage,
      start=restored.identity(directory, checkpoint.after(experiment, position)),
      validation=held_out,
      reader=session.reader,
    ),
    allow_change=session.allow_change,
    accepted=session.accept,
  )
  return result.model


def _validate(
  directory: ModelDirectory,
  stage: Stage,
  tasks: Sequence[EvalTask],
  taught: teaching.Teaching,
  model: nnx.Module,
) -> dict[str, float]:
  # A process that is alone may end at once while it validates (see signals); several agree.
  stop = directory.session.stop_if_asked if hosts.several() else lambda: None
  return validation.measure(
    directory.experiment,
    stage,
    tasks,
    model,
    teacher=taught.model,
    beside=taught.validated,
    place=directory.place,
    progress=progress.reporter(directory.events, f"{stage.name} validation", stop=stop),
  )
