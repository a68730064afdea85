"""Several experiments that make one table, run one after the other in folders of one directory.

What they share is done once: an experiment may take a finished stage over from an earlier one
(`Experiment.imported_stages`), and examples and the pretrained weights are read once.
"""

import dataclasses
import os
from collections.abc import Sequence

from promot_jax.errors import ConfigError
from promot_jax.experiments.experiment import Experiment

RECIPE_VALUES = ("Comparison",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """Experiments in the order in which they run; each writes to `model_dir/<its name>`.

  rows: names of those that run, with the ones whose stages they take over; None: all.  The others may
    run later in the same directory.
  """

  model_dir: str
  experiments: Sequence[Experiment]
  rows: Sequence[str] | None = None

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
    _check_files(experiments)
    _check_templates(experiments)
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
  return tuple(experiment for experiment in experiments if experiment.name in wanted)


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
