"""What a run needs of the machine, for its plan: chips, vocabulary, data and room on the disk.

Looks at folders and names only: nothing is fetched, opened or allocated.
"""

import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence

import jax

from promot_jax.checkpoints import disk
from promot_jax.data import vocabularies, vocabulary_files
from promot_jax.experiments.comparison import Comparison
from promot_jax.experiments.experiment import Experiment
from promot_jax.training.stages import Stage
from tasks import catalog

_COUNTED = 1_000_000  # steps of a stage that a plan looks through


def chips_text(mesh: Mapping[str, int]) -> str:
  """'64 chips: 1 are here, 63 are missing': what a mesh needs beside what this process has."""
  needed, present = math.prod(mesh.values()), len(jax.devices())
  missing = f"; {needed - present} are missing here" if needed > present else ""
  of = f" of {present}" if present > needed else ""
  return f"{needed}{of} needed for mesh data={mesh['data']} x model={mesh['model']}{missing}"


def vocabulary_text(experiment: Experiment) -> str:
  """The vocabulary, where it comes from and whether it is on this machine."""
  name = experiment.vocabulary
  if experiment.source == "micro" and vocabularies.reference(name) is None:
    return "the micro world's own words, part of the package"
  if vocabularies.reference(name) is None:
    return f"{name}: {_file_text(vocabulary_files.path(name))}"
  return f"{name}: {_file_text(name.partition(':')[2].partition('?')[0])}"


def data_text(experiment: Experiment, task: str) -> str:
  """Where a task's data are, and whether they are there."""
  return catalog.find(task).source(experiment.place).origin.state()


def unseen_data_text(experiment: Experiment) -> str:
  """How many of the unseen tasks' data sets are prepared, and which are not."""
  names = [
    task
    for task in experiment.unseen_tasks
    if task not in experiment.tasks and data_text(experiment, task).startswith("tfds ")
  ]
  missing = [task for task in names if not data_text(experiment, task).endswith(": prepared")]
  if not missing:
    return f"unseen tasks: all {len(names)} data sets are prepared"
  return (
    f"unseen tasks: {len(names) - len(missing)} of {len(names)} data sets are prepared; TFDS will"
    f" download {', '.join(missing)}"
  )


def write_lines(
  run: Experiment | Comparison, experiments: Sequence[Experiment], sizes: Sequence[Sequence[int]]
) -> Iterator[str]:
  """What a run will write, its size, and the room there is.

  Args:
    sizes: bytes of a checkpoint of each stage of each experiment.
  """
  total, parts = 0, []
  for experiment, stage_sizes in zip(experiments, sizes, strict=True):
    for stage, size in zip(experiment.stages, stage_sizes, strict=True):
      # Of a stage that is taken over only the chosen checkpoint is copied.
      count = 1 if stage.name in experiment.imported_stages else checkpoints_kept(stage, size)
      total += count * size
      label = stage.name if len(experiments) == 1 else f"{experiment.name}/{stage.name}"
      parts.append(f"{label} {count} x {disk.size_text(size)}")
  results = sum(evaluations(experiment) for experiment in experiments)
  yield f"writes    {run.model_dir} ({room_text(run.model_dir, total)})"
  if parts:
    yield f"          checkpoints: {', '.join(parts)}; {disk.size_text(total)} in all"
  yield (
    f"          scores and predictions of {results} evaluations, metrics, configuration, and the report"
    " (html, md, csv, json, png)"
  )


def checkpoints_kept(stage: Stage, nbytes: int) -> int:
  """Most checkpoints of a stage that lie on the disk at once, the one being written included."""
  last = stage.keep.last
  # Billions of steps are allowed; a plan answers at once.
  saved = sum(stage.saves(step) for step in range(1, min(stage.steps, _COUNTED) + 1))
  # Small checkpoints, such as those of a prompt, are all kept.
  if last is None or nbytes <= stage.keep_small_bytes:
    return saved
  return min(saved, last + 2)  # the newest, the best, and one that is being written


def room_text(model_dir: str, needed: int = 0) -> str:
  """Whether a directory can be written, and the free space beside the bytes that are needed."""
  if "://" in model_dir:
    return "remote: not looked at in a plan"
  # The directory need not be there: its nearest ancestor tells of rights and room.
  folder = os.path.abspath(model_dir)
  while not os.path.exists(folder):
    folder = os.path.dirname(folder)
  if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
    return f"NOT writable: {folder}"
  free = shutil.disk_usage(folder).free
  short = ", TOO LITTLE for the checkpoints" if free < needed else ""
  return f"writable, {disk.size_text(free)} free{short}"


def evaluations(experiment: Experiment) -> int:
  """Of one checkpoint: tasks x shots x states of the method, as `data.report_tasks` lists them."""
  plan, method = experiment.evaluation, experiment.method
  unseen = sum(len(experiment.shots_of(task)) for task in experiment.unseen_tasks)
  # Without a method, or with a row for each of several tasks, there is nothing to attach.
  attaches = method is not None and method.tasks == 1
  states = [state for state in plan.unseen_method if state == "off" or attaches]
  return unseen * len(states) + plan.tuned * len(experiment.tasks)


def _file_text(place: str) -> str:
  """A file, folder, bucket or hub name, and whether it is here."""
  if place.startswith("gs://"):
    cached = vocabulary_files.cached(place)
    if cached.is_file():
      return f"{place} (on this machine: {cached})"
    return f"{place} (not on this machine: it is fetched once when data are read)"
  if pathlib.Path(place).expanduser().exists():
    return f"{place} (on this machine)"
  if vocabulary_files.is_hub_name(place):
    return f"{place} (no folder here: a name on the Hugging Face hub, asked for when data are read)"
  return f"{place} (NOT on this machine)"
