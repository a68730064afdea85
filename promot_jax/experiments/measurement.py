"""Measuring the checkpoints of an experiment; what is stored already is not run again."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

from flax import nnx

from promot_jax import partitioning
from promot_jax.evaluation import evaluator
from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import (
  classes,
  data,
  origin,
  pretrained_results,
  progress,
  restored,
  shapes,
)
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.experiments.reader import decoder
from promot_jax.experiments.restored import Restored
from promot_jax.networks import network
from promot_jax.probing import scores
from promot_jax.probing.features import FeatureStore
from promot_jax.token_ids import TokenIds
from promot_jax.training import loop
from promot_jax.training.choice import StageResult
from promot_jax.training.stages import Stage


class Models(Protocol):
  """What gives the models of checkpoints, such as `restored.Restored`."""

  def model(self, checkpoint: Checkpoint) -> nnx.Module:
    """With its method attached, if it has one."""


def measure(
  directory: ModelDirectory,
  checkpoint: Checkpoint,
  tasks: Sequence[evaluator.EvalTask],
  *,
  models: Models,
  store: ResultStore | None = None,
) -> list[TaskResult]:
  """Scores of one checkpoint on each task.

  Args:
    models: of the directory.
    store: where results are kept and found; None: the experiment's own.

  Raises:
    PromotError: of a checkpoint that cannot be restored, data that do not fit, or a signal.
  """
  experiment, session, events = directory.experiment, directory.session, directory.events
  name = checkpoint.name
  setting = setting_of(experiment)
  kept = evaluator.Kept(store=store or directory.results(), checkpoint=name)
  subject = subject_of(directory, checkpoint, models)
  # Before what is left is counted: results that are copied here are not run.
  if pretrained_results.backbone_is_untouched(experiment, checkpoint):
    copied = pretrained_results.take_over(
      tasks,
      subject=subject,
      setting=setting,
      kept=kept,
      folders=(directory.folder / "evaluation", *session.pretrained_results),
      pretrained_identity=experiment.start.identity(),
    )
    if copied:
      events.line(
        f"evaluated {name}: {copied} results without the method are the pretrained model's, whose "
        "backbone it has; not run again"
      )
  left = evaluator.unfinished(subject, tasks, setting=setting, kept=kept)
  if not left:
    session.accept()
    events.line(f"evaluated {name}: {len(tasks)} results are there, none to run")
  else:
    events.line(f"evaluating {name}: {len(left)} of {len(tasks)} results to run")
  # Looked at as shapes, before weights are restored: data that name no row end the command at
  # once.
  if checkpoint.method is not None and any(task.method == "attached" for task in tasks):
    data.check_prompts(shapes.abstract_checkpoint(experiment, checkpoint), None, tasks)

  begun = False

  def stop_if_asked() -> None:
    nonlocal begun
    # Once a batch is done, the next one is finished too; the first call comes before any.
    session.stop.nothing_to_save = not begun
    begun = True
    session.stop_if_asked()

  told = evaluator.Tokens()
  show = progress.reporter(events, f"{experiment.name} {name}", stop=stop_if_asked)

  def tell(state: evaluator.Progress) -> None:
    nonlocal told
    told = state.tokens
    show(state)

  results = evaluator.evaluate(
    subject,
    tasks,
    setting=setting,
    batching=batching_of(directory),
    kept=kept,
    progress=tell,
  )
  # What follows until the next step or batch may be ended at once by a signal.
  session.stop.nothing_to_save = True
  if told.ratio is not None:
    events.line(f"evaluated {name}: {told.ratio:.2f} tokens computed for each needed one")
  return results


def probed(
  directory: ModelDirectory,
  checkpoint: Checkpoint,
  results: Sequence[TaskResult],
  *,
  models: Restored,
) -> tuple[str, list[TaskResult]]:
  """(name, results) of a checkpoint with the probe of its experiment in place of its answers.

  Args:
    results: of the checkpoint, as `measure` gives them.
    models: of the directory.
  """
  experiment = directory.experiment
  assert experiment.probe is not None
  # The identity names the start by its path, under which other weights may have come to lie.
  start = origin.of_start(experiment).part("start weights") or ""
  features = FeatureStore(
    folder=directory.folder / "features",
    identity=f"{restored.identity(directory, checkpoint)} {start}",
    batch_size=experiment.evaluation.batch_size,
    place=directory.place,
    fetch=partitioning.fetch,
    report=directory.events.line,
  )

  def train(stage: Stage, model: nnx.Module, **given: Any) -> StageResult:
    store = directory.store(stage)
    result = loop.train_stage(
      stage,
      network.placed(model, directory.mesh),
      store=store,
      seed=experiment.seed,
      mesh=directory.mesh,
      events=directory.events,
      metadata={"experiment": experiment.name, "start": experiment.start.identity()},
      allow_change=directory.session.allow_change,
      accepted=directory.session.accept,
      **given,
    )
    store.close()
    directory.session.stop.nothing_to_save = True
    return result

  # All training examples are one batch, whatever their number: it is filled up to what the devices
  # can share.
  share = 1 if directory.mesh is None else directory.mesh.shape["data"]
  return scores.probed(
    experiment.probe,
    results,
    classes=classes.different,
    train=train,
    rows=lambda count: -(-count // share) * share,
    tuned=data.probe_splits(experiment, directory.session.reader),
    seed=experiment.seed,
    name=checkpoint.name,
    model=functools.partial(models.model, checkpoint),
    features=features,
    kept=directory.results(),
  )


def setting_of(experiment: Experiment) -> evaluator.Setting:
  """How an experiment measures."""
  plan = experiment.evaluation
  return evaluator.Setting(
    special=TokenIds.of(experiment.backbone),
    strategy=plan.strategy,
    max_target_length=plan.feature_lengths["targets"],
    format_metric=data.format_metric(experiment),
    seed=experiment.seed,
  )


def batching_of(directory: ModelDirectory) -> evaluator.Batching:
  """How an experiment's evaluations are put into batches on its devices."""
  plan, mesh = directory.experiment.evaluation, directory.mesh
  return evaluator.Batching(
    batch_size=plan.batch_size,
    buckets=plan.buckets,
    multiple=1 if mesh is None else mesh.shape[partitioning.DATA],
  )


def subject_of(
  directory: ModelDirectory, checkpoint: Checkpoint, models: Models
) -> evaluator.Subject:
  """One checkpoint as what is evaluated."""

  def make() -> nnx.Module:
    made = models.model(checkpoint)
    directory.session.accept()  # data were read before, and the weights are there
    return made

  method = checkpoint.method
  return evaluator.Subject(
    make=make,
    decode=decoder(directory.experiment),
    detach=None if method is None else method.detach,
    identity=restored.identity(directory, checkpoint),
    made_from=origin.of_start(directory.experiment),
    place=directory.place,
    fetch=partitioning.fetch,
  )
