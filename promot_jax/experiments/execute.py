"""Runs experiments: stages, the choice of checkpoints, evaluation, results.

A repeated command does only what is left: finished stages and finished evaluations are found on
disk, and nothing is loaded that nobody needs.  Layout of a model directory:

    stages/NAME/checkpoint_N/      checkpoints of a stage, and the marker of its completion
    evaluation/                    run.json, scores and predictions (evaluation/results.py)
    train/                         metrics.jsonl and TensorBoard events
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence

from promot_jax import hosts, partitioning, signals
from promot_jax.checkpoints.lease import Lease
from promot_jax.checkpoints.shared import open_store
from promot_jax.errors import ConfigError, DamagedCheckpoint
from promot_jax.evaluation.records import TaskResult
from promot_jax.experiments import (
  course,
  data,
  drift,
  measurement,
  record,
  reported,
  shapes,
  sweep,
  value_choice,
  way_on,
)
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.comparison import Comparison, experiments_of
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.experiments.reader import text_vocabulary
from promot_jax.experiments.reported import Outcome
from promot_jax.experiments.restored import Restored
from promot_jax.experiments.session import Session
from promot_jax.training import choice
from promot_jax.training.events import Events, JsonLines, Sink
from promot_jax.training.tensorboard import TensorBoard


def execute(
  run: Experiment | Comparison,
  *,
  sinks: Sequence[Sink] = (),
  started: Callable[[], None] = lambda: None,
  allow_change: bool = False,
) -> list[Outcome]:
  """Runs everything that is not finished yet.

  Args:
    run: one experiment or several.
    sinks: where progress and lines go, besides the metrics files of each model directory; of several
      processes the first one's only.
    started: called (by the first process) once nothing can be refused any more: the directory is ours
      and writable, the plan is sound, data, weights and checkpoints fit.
    allow_change: go on with checkpoints of another seed or batch size.

  Raises:
    PromotError: any of `promot_jax.errors`; everything finished before it is on disk.
  """
  sinks = sinks if hosts.is_first() else ()
  console = Events(sinks)
  folder = pathlib.Path(run.model_dir)
  _check_local(run.model_dir)
  experiments = experiments_of(run)
  hosts.together(lambda: _check(run))  # before the directory is made
  # The lease before anything of the directory is read: to a second process, steps that a run is
  # just writing or deleting would look damaged.
  with (
    _lease(folder, console),
    signals.catch(report=console.line, at_once=not hosts.several()) as stop,
  ):
    open_store(folder).check_writable()
    hosts.check_shared(folder)
    session = Session(
      stop=stop,
      console=console,
      allow_change=allow_change,
      experiments=experiments,
      started=started,
    )
    outcomes = []
    for number, experiment in enumerate(experiments):
      if len(experiments) > 1:
        console.line(f"=== {number + 1} of {len(experiments)}: {experiment.name}")
      own = pathlib.Path(experiment.model_dir)
      # `promot eval` of one experiment knows that experiment's folder only.
      with _lease(own, console, whole=folder) if own != folder else contextlib.nullcontext():
        outcomes.append(_outcome(experiment, session, sinks))
    # Counted over all experiments at the end: old records are many, and a line for each says no
    # more.
    if hosts.is_first() and (remark := record.unguarded(each.model_dir for each in experiments)):
      console.line(remark)
  return outcomes


def _outcome(experiment: Experiment, session: Session, sinks: Sequence[Sink]) -> Outcome:
  """Trains what is not trained, evaluates what is not evaluated; writes the record of the run."""
  with _metrics_files(pathlib.Path(experiment.model_dir), session.console) as files:
    directory = ModelDirectory(
      experiment=experiment, session=session, events=Events([*sinks, *files])
    )
    # A choice that turns out to be damaged is replaced on disk by the next best step, and the
    # course is looked at from its beginning: every stage is found complete then, so nothing trains
    # twice.
    while True:
      try:
        outcome, chosen = _trained_and_measured(directory)
        break
      except way_on.ChoiceDamaged as damage:
        stores = [directory.store(stage) for stage in experiment.stages]
        imported = experiment.stages[damage.position].name in experiment.imported_stages
        way_on.choose_again(experiment.stages, stores, damage, imported=imported)
  # Last: to a report, a folder without run.json is no finished run.
  directory.results().write_run(
    record.run_record(
      outcome.experiment,
      selected=outcome.selected,
      why=outcome.why,
      results=outcome.results,
      chosen=chosen,
      validation=outcome.validation,
      drift=outcome.drift,
    )
  )
  return outcome


def _trained_and_measured(directory: ModelDirectory) -> tuple[Outcome, list[course.Marker]]:
  """The outcome, and the completion markers of all stages."""
  directory, chosen = course.run(directory)
  directory, settled = sweep.settle(directory)
  experiment = directory.experiment
  reported.note_network(experiment)
  selected, why = reported.selected(experiment, chosen)
  models = Restored(directory)
  results = _measured(directory, chosen, selected, models)
  name = selected.name
  if experiment.probe is not None:
    name, results = measurement.probed(directory, selected, results, models=models)
  return (
    Outcome(
      experiment=experiment,
      selected=name,
      why=settled or why,
      results=results,
      validation=_validation(directory, chosen, selected, models),
      drift=drift.measured(directory, selected, models=models),
    ),
    chosen,
  )


def _validation(
  directory: ModelDirectory,
  chosen: Sequence[course.Marker],
  selected: Checkpoint,
  models: Restored,
) -> float | None:
  """The score by which a report chooses among the points of a row; None where there is none.

  Of what was trained it is that of the step that was chosen.  What is made of other rows has no such step, and is
  measured on the selection split, beside the results that are reported.
  """
  experiment = directory.experiment
  if chosen:
    return choice.score_at(chosen[-1].get("history", ()), chosen[-1]["step"])
  if not experiment.point:
    return None
  tasks = data.selection_tasks(experiment, directory.session.reader)
  store = directory.results(directory.folder / "selection")
  found = measurement.measure(directory, selected, tasks, models=models, store=store)
  return value_choice.candidate(0.0, found).score


def _measured(
  directory: ModelDirectory,
  chosen: Sequence[course.Marker],
  selected: Checkpoint,
  models: Restored,
) -> list[TaskResult]:
  """Measures every checkpoint of the plan; returns the results of the selected one."""
  experiment, session = directory.experiment, directory.session
  tasks = data.report_tasks(experiment, session.reader)
  if missing := data.left_out(experiment):
    directory.events.line(missing)
  results: list[TaskResult] = []
  for checkpoint in reported.evaluated(
    experiment, chosen, lambda stage: directory.store(stage).steps()
  ):
    session.stop_if_asked()
    try:
      found = measurement.measure(directory, checkpoint, tasks, models=models)
    except DamagedCheckpoint as damage:
      # What is reported cannot be missing.  Of steps that were only kept beside it
      # (checkpoints='all') the sound ones are worth having.
      if checkpoint.name == selected.name or isinstance(damage, way_on.ChoiceDamaged):
        raise
      directory.events.line(f"{damage} It is not evaluated.")
      continue
    if checkpoint.name == selected.name:
      results = found
  return results


@contextlib.contextmanager
def _metrics_files(folder: pathlib.Path, console: Events) -> Iterator[list[Sink]]:
  """The sinks that write into a model directory."""
  files: list[Sink] = []
  if hosts.is_first():
    train = folder / "train"
    files = [JsonLines(train / "metrics.jsonl", report=console.line), TensorBoard(train)]
  try:
    yield files
  finally:
    Events(files).close()


def _check(run: Experiment | Comparison) -> None:
  """What can be refused without a model and without data."""
  # Shapes first: nothing is read for them, and they find most mistakes within seconds.
  shapes.check(run)
  for experiment in experiments_of(run):
    partitioning.make_mesh(experiment.mesh.data, experiment.mesh.model)
    # A finished experiment only finds its results again; to read a checkpoint for NaN takes as
    # long as to load it.
    if not pathlib.Path(experiment.model_dir, "evaluation", "run.json").exists():
      text_vocabulary(experiment)
      experiment.start.check()
      for beside in (*experiment.teachers.values(), *experiment.anchors.values()):
        # Equal networks are one model, and that has just been checked.
        if beside != experiment.start:
          beside.check()


def _lease(
  folder: pathlib.Path, console: Events, *, whole: pathlib.Path | None = None
) -> contextlib.AbstractContextManager:
  return hosts.held_by_first(lambda: Lease(folder, report=console.line, whole=whole))


def _check_local(model_dir: str) -> None:
  if "://" in model_dir:
    raise ConfigError(
      f"--model_dir={model_dir} is remote; this release writes to local or mounted directories."
    )
