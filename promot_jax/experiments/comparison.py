"""Several experiments that make one table, run one after the other in folders of one directory.

What they share is done once: an experiment may take a finished stage over from an earlier one
(`Experiment.imported_stages`), and examples and the pretrained weights are read once.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promot_jax.errors import ConfigError
from promot_jax.experiments import epochs
from promot_jax.experiments.experiment import Experiment, point_suffix, variant_of
from promot_jax.networks import run

RECIPE_VALUES = ("Comparison",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """Experiments in the order in which they run; each writes to `model_dir/<its name>`.

  rows: names of those that run, with the ones whose stages they take over; None: all.  The others may
    run later in the same directory.
  axes: row -> settings (macros of its recipe) -> their values: the row is there once for each combination of
    them (`expanded`), in a folder of its own.
  """

  model_dir: str
  experiments: Sequence[Experiment]
  rows: Sequence[str] | None = None
  axes: Mapping[str, Mapping[str, Sequence[Any]]] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    experiments = tuple(
      # Whatever an experiment's own says: a report looks for its rows below one folder.
      dataclasses.replace(experiment, model_dir=os.path.join(self.model_dir, experiment.name))
      for experiment in self.experiments
    )
    object.__setattr__(self, "experiments", experiments)
    names = [experiment.name for experiment in experiments]
    if not names or len(set(names)) != len(names):
      raise ConfigError(
        f"a comparison needs experiments of different names, not: {', '.join(names) or 'none'}."
      )
    experiments = _beside(experiments)
    object.__setattr__(self, "experiments", experiments)
    _check_files(experiments)
    _check_templates(experiments)
    _check_axes(self.axes, names)
    # Order matters: a stage can only be taken over from what has run before.
    for position, experiment in enumerate(experiments):
      for stage, source in experiment.imported_stages.items():
        if os.sep not in source and source not in names[:position]:
          raise ConfigError(
            f"'{experiment.name}' takes stage '{stage}' over from '{source}', which does not run "
            f"before it. Earlier ones: {', '.join(names[:position]) or 'none'}."
          )
    if self.rows is not None:
      object.__setattr__(self, "experiments", _rows(experiments, self.rows))

  def expanded(self, at: Callable[[Mapping[str, Any]], "Comparison"]) -> "Comparison":
    """The comparison whose rows with axes are there at each of their points.

    Args:
      at: the same comparison with these settings in place of its own.

    Raises:
      ConfigError: a row takes a stage over from one that has axes: which of its points is not known.
    """
    for experiment in self.experiments:
      needed = {*experiment.imported_stages.values(), *_made_of(experiment, self.experiments)}
      if several := sorted(needed & set(self.axes)):
        raise ConfigError(
          f"'{experiment.name}' is made of '{several[0]}', which has axes, so there are several of it; name"
          " a row without axes."
        )
    rows: list[Experiment] = []
    for experiment in self.experiments:
      if experiment.name not in self.axes:
        rows.append(experiment)
      for point in points(self.axes.get(experiment.name, {})):
        (row,) = (row for row in at(point).experiments if row.name == experiment.name)
        name = f"{row.name}{point_suffix(point)}"
        # In the table of the row itself, although a point may have another learning rate.
        own, table = (variant_of(epochs.planned(each)) for each in (row, experiment))
        variant = row.variant if own == table else table
        rows.append(dataclasses.replace(row, name=name, point=point, variant=variant))
    return dataclasses.replace(self, experiments=rows, rows=None, axes={})


def points(axis: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
  """Every combination of the values of the settings, the last setting changing fastest; of none, none."""
  if not axis:
    return []
  return [dict(zip(axis, values, strict=True)) for values in itertools.product(*axis.values())]


def _check_axes(axes: Mapping[str, Mapping[str, Sequence[Any]]], rows: Sequence[str]) -> None:
  for row, axis in axes.items():
    if row not in rows:
      raise ConfigError(
        f"Comparison.axes has '{row}', which is no row; they are {', '.join(rows)}."
      )
    for name, values in axis.items() if isinstance(axis, Mapping) else [("", axis)]:
      if not name or isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ConfigError(
          f"Comparison.axes of '{row}' is {axis!r}; it must be settings and lists of their values:"
          " {'LEARNING_RATE': [1e-3, 1e-4]}."
        )
    suffixes = [point_suffix(point) for point in points(axis)]
    if twice := sorted({suffix for suffix in suffixes if suffixes.count(suffix) > 1}):
      raise ConfigError(f"Comparison.axes of '{row}' has '{twice[0].strip('-')}' twice.")


def _rows(experiments: Sequence[Experiment], rows: Sequence[str]) -> tuple[Experiment, ...]:
  """The experiments of these names and those before them whose stages they take over, in their order."""
  names = [experiment.name for experiment in experiments]
  unknown = [] if isinstance(rows, str) else [row for row in rows if row not in names]
  if isinstance(rows, str) or not rows or unknown:
    said = f"has {', '.join(map(repr, unknown))}" if unknown else f"is {rows!r}"
    raise ConfigError(
      f"Comparison.rows {said}; it must be None or a list of names (a recipe's ROWS) among:"
      f" {', '.join(names)}."
    )
  wanted = set(rows)
  # Backwards: what is taken over may itself have been taken over from an earlier one.
  for experiment in reversed(experiments):
    if experiment.name in wanted:
      wanted |= set(experiment.imported_stages.values())
      wanted |= _made_of(experiment, experiments)
  return tuple(experiment for experiment in experiments if experiment.name in wanted)


def _beside(experiments: Sequence[Experiment]) -> tuple[Experiment, ...]:
  """The experiments, whose networks and teachers may be runs of earlier ones, by their bare names."""
  runs: dict[str, run.Run] = {}
  found = []
  for experiment in experiments:
    teachers = {
      stage.name: stage.own_teacher or run.beside(stage.teacher, runs)
      for stage in experiment.stages
      if stage.teacher
    }
    network = run.beside(experiment.network, runs)
    if network is not experiment.network or any(
      teachers.get(stage.name) is not stage.teacher for stage in experiment.stages
    ):
      stages = tuple(
        dataclasses.replace(stage, teacher=teachers.get(stage.name)) for stage in experiment.stages
      )
      experiment = dataclasses.replace(experiment, network=network, stages=stages)
    found.append(experiment)
    to_come = run.ToCome(
      start=experiment.start,
      method=experiment.method,
      stages=[stage.name for stage in experiment.stages],
      seed=experiment.seed,
      trains=[stage.trainable for stage in experiment.stages],
    )
    runs[experiment.name] = run.Run(directory=experiment.model_dir, to_come=to_come)
  return tuple(found)


def _made_of(experiment: Experiment, others: Sequence[Experiment]) -> set[str]:
  """Names of the others whose runs its network or its teachers are made of."""
  networks = [experiment.network, *experiment.teachers.values()]
  there = {directory for network in networks for directory in run.directories(network)}
  return {other.name for other in others if other.model_dir in there}


def _check_files(experiments: Sequence[Experiment]) -> None:
  """Tables are found by the names of their tasks, which must mean one thing."""
  settings: dict[str, dict] = {}
  for files in (each for experiment in experiments for each in experiment.files):
    own = dataclasses.asdict(files)
    if settings.setdefault(files.name, own) != own:
      raise ConfigError(
        f"two experiments have different tables under the name '{files.name}'; give each its own"
        " OwnFiles.name."
      )


def _check_templates(experiments: Sequence[Experiment]) -> None:
  """The same of data sets with templates."""
  settings: dict[str, dict] = {}
  for tasks in (each.templates for each in experiments if each.templates is not None):
    for data in tasks.data_sets:
      own = dataclasses.asdict(data)
      if settings.setdefault(data.name, own) != own:
        raise ConfigError(
          f"two experiments have different data sets with templates under the name '{data.name}'; give"
          " each its own TemplatedData.name."
        )


def experiments_of(run: Experiment | Comparison) -> tuple[Experiment, ...]:
  """The experiments of either kind of run.

  Raises:
    ConfigError: it is neither, such as a pretraining.
  """
  if isinstance(run, Experiment):
    return (run,)
  if isinstance(run, Comparison):
    return tuple(run.experiments)
  raise ConfigError(
    f"EXPERIMENT is a {type(run).__name__}, which promot train can run or plan (--dry_run); this "
    "command needs an Experiment or a Comparison."
  )
