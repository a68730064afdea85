"""How a run was made, for its report: settings, versions, and what tells it from its siblings."""

import dataclasses
import pathlib
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from promot_jax import __version__, guarded_json, paths
from promot_jax.data import low_data
from promot_jax.evaluation import points, published, ways
from promot_jax.evaluation.records import RunRecord, StageRecord, TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import checkpoint, shapes
from promot_jax.experiments.experiment import Experiment, variant_of
from promot_jax.experiments.pretrained_results import backbone_is_untouched
from promot_jax.printable import without_secrets
from promot_jax.training import schedules
from promot_jax.training.stages import Stage
from tasks import catalog

if TYPE_CHECKING:
  from tasks import provenance


def run_record(
  experiment: Experiment,
  *,
  selected: str,
  why: str,
  results: Sequence[TaskResult] = (),
  chosen: Sequence[Mapping[str, Any]] = (),
  validation: float | None = None,
  drift: Mapping[str, Mapping[str, float]] | None = None,
) -> RunRecord:
  """The record of an experiment whose checkpoint `selected` is reported.

  Args:
    results: of the reported checkpoint, as the experiment's plan measured them.
    chosen: the completion marker of each stage.
    validation: of the reported checkpoint.
    drift: of the reported checkpoint, as `drift.measured` gives it.
  """
  tasks = list(dict.fromkeys(map(experiment.unit_of, experiment.tasks)))
  plan, start = experiment.evaluation, experiment.start
  settings: dict[str, Any] = {"strategy": repr(plan.strategy)}
  settings |= {f"network: {name}": value for name, value in start.settings.items()}
  # Only what is not as it always was: runs of earlier versions have no such setting.
  if plan.answers != "auto":
    settings["answers"] = plan.answers
  for stage in experiment.stages:
    settings[f"{stage.name}: steps"] = stage.steps
    settings[f"{stage.name}: batch size"] = stage.batch_size
    if (teacher := stage.own_teacher or experiment.teachers.get(stage.name)) is not None:
      settings[f"{stage.name}: teacher"] = teacher.about
      if stage.teacher_inputs is not None:
        settings[f"{stage.name}: teacher reads"] = str(stage.teacher_inputs)
    if (replay := experiment.replay) is not None and replay.of_stage(stage.name):
      settings[f"{stage.name}: replay"] = f"{', '.join(replay.tasks)}, share {replay.share:g}"
    if stage.penalty is not None:
      anchor = experiment.anchors[stage.name].about
      settings[f"{stage.name}: penalty"] = f"{stage.penalty.settings()} near {anchor}"
    # Six digits: as a float, the 0.3 of a float32 schedule is 0.30000001192092896.
    settings[f"{stage.name}: learning rate"] = float(f"{_rate(stage):.6g}")
  # A row beside those of its parts: of their task, and of the pretrained network that they share.
  made = experiment.is_made_of_trained
  sets = _data_sets(experiment)
  few = low_data.of(experiment.splits_of(experiment.tasks[0]).train) if experiment.stages else None
  own = [task for task, found in sets.items() if not found.published]
  return RunRecord(
    method=experiment.name,
    trained_on="+".join(tasks) if experiment.stages or experiment.probe or made else "none",
    seed=experiment.seed,
    selected=selected,
    why=why,
    backbone=start.pretrained.about if made else start.about,
    parameters=paths.count(paths.distinct(shapes.abstract_model(experiment))),
    data=f"own: {', '.join(f'{task} {sets[task].name}' for task in own)}"
    if own
    else experiment.source,
    data_sets={task: str(found) for task, found in sets.items()},
    own_tasks=tuple(own),
    unseen=tuple(plan.unseen),
    printed=printed(experiment),
    column=experiment.column,
    backbone_trained=_trains_backbone(experiment),
    variant=variant_of(experiment),
    training_examples=few.size if few else None,
    subsample=few.number if few else None,
    kind=type(experiment.method).__name__ if experiment.method else "",
    positions=getattr(experiment.method, "length", None),
    settings=settings,
    templates={} if experiment.templates is None else experiment.templates.units,
    measured=ways.own(results),
    row=experiment.row if experiment.point else "",
    point=dict(experiment.point),
    validation=validation,
    higher_is_better=not experiment.stages or experiment.stages[-1].optimum == "max",
    drift=dict(drift or {}),
    stages=_stages(experiment, [marker.get("step_seconds") for marker in chosen]),
    environment={**environment(), "precision": _precision(experiment)},
    command=without_secrets(" ".join(["promot", *sys.argv[1:]])),
  )


def printed(experiment: Experiment) -> str:
  """What the report calls a run: as its recipe says, or as the method that it trains alone."""
  if experiment.point:
    # As the row is called, and where in it: a point has no name of its own in the paper's tables.
    row = dataclasses.replace(experiment, name=experiment.row, point={})
    name = printed(row) or published.ROWS.get(row.name, row.name.replace("_", " "))
    return f"{name} ({points.told(experiment.point)})"
  method = experiment.method
  if experiment.printed or method is None or not experiment.stages:
    return experiment.printed
  # A method beside a trained backbone (ProMoT's prompt) is no row of its own name.
  return "" if _trains_backbone(experiment) else method.printed


def _trains_backbone(experiment: Experiment) -> bool:
  return bool(experiment.stages) and not backbone_is_untouched(
    experiment, checkpoint.last(experiment)
  )


def unguarded(folders: Iterable[str]) -> str:
  """A sentence about records in model directories that carry no digest; empty where all do."""
  return guarded_json.remark(
    path
    for folder in map(pathlib.Path, folders)
    for path in (
      *sorted(folder.glob("stages/*/*.json")),
      *sorted(folder.glob("stages/*/checkpoint_*/score.json")),
      *ResultStore(folder / "evaluation").records(),
    )
  )


def _stages(
  experiment: Experiment, step_seconds: Sequence[float | None]
) -> tuple[StageRecord, ...]:
  """What each stage trains, and at which pace."""
  model = shapes.abstract_model(experiment)
  backbone = experiment.start.abstract()
  seconds = [*step_seconds, *([None] * len(experiment.stages))]
  return tuple(
    StageRecord(
      name=stage.name,
      trained=paths.count(paths.split(model, stage.trainable)[1]),
      backbone=paths.count(backbone),
      step_seconds=known,
    )
    for stage, known in zip(experiment.stages, seconds)
  )


def _data_sets(experiment: Experiment) -> "dict[str, provenance.DataSet]":
  """What every measured or tuned task was read from; of the micro world there is but one of each."""
  names = [*experiment.tasks, *experiment.unseen_tasks]
  bases = {experiment.unit_of(name): catalog.split_shots(name)[0] for name in names}
  read = {
    unit: base
    for unit, base in bases.items()
    if experiment.source != "micro" or not catalog.is_ours(experiment.records_of(base))
  }
  if not read:
    return {}
  # Imported here, since it brings seqio and TensorFlow.
  from tasks import provenance

  return {
    unit: provenance.data_set(experiment.records_of(base), experiment.place)
    for unit, base in read.items()
  }


def _rate(stage: Stage) -> float:
  return schedules.largest(stage.learning_rate, steps=stage.steps)


def _precision(experiment: Experiment) -> str:
  config = experiment.backbone
  frozen = [
    f"frozen ones {stage.frozen_dtype} in stage '{stage.name}'"
    for stage in experiment.stages
    if stage.frozen_dtype
  ]
  return ", ".join([f"{config.param_dtype} parameters", *frozen, f"{config.dtype} activations"])


def environment() -> dict[str, Any]:
  """Versions and device, for the record of a run."""
  import flax

  return {
    "promot_jax": __version__,
    "jax": jax.__version__,
    "flax": flax.__version__,
    "python": platform.python_version(),
    "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
  }
