"""Evaluated models found on disk, and their scores averaged over seeds.

Reads result folders (`results.py`) and nothing else.
"""

import collections
import dataclasses
import functools
import logging
import math
import os
import pathlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from promot_jax import errors
from promot_jax.evaluation import averages, medians, points, published, uncertainty, ways
from promot_jax.evaluation.points import Points
from promot_jax.evaluation.records import RunRecord, TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.evaluation.tables import Cell
from promot_jax.printable import visible

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """One evaluated model: how it was made, where it lies, its results by checkpoint.

  others: results by checkpoint that were measured in another way than the run's own plan.
  """

  record: RunRecord
  directory: pathlib.Path
  results: Mapping[str, Sequence[TaskResult]]
  others: Mapping[str, Sequence[TaskResult]] = dataclasses.field(default_factory=dict)

  @property
  def selected(self) -> str:
    """The reported checkpoint: the recorded one, or the last if none is recorded."""
    return self.record.selected or list(self.results)[-1]

  @property
  def reported(self) -> Sequence[TaskResult]:
    """Results of the reported checkpoint."""
    return self.results[self.selected]

  @property
  def unseen(self) -> tuple[str, ...]:
    """The tasks of its Norm. Avg."""
    return averages.ordered(self.record.unseen)

  @property
  def keeps_method_on(self) -> bool:
    """Whether its plan measured the unseen tasks only with the method attached, as the tuned one is."""
    planned = self.record.measured  # empty of earlier versions
    own = [each for each in self.reported if not planned or ways.name(each) in planned]
    return {each.method for each in own if each.task in self.unseen} == {"attached"}

  @property
  def store(self) -> ResultStore:
    return ResultStore(self.directory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
  """Runs that make one table: equal in training task and number of examples, variant, backbone, data and unseen tasks."""

  trained_on: str
  variant: str
  backbone: str
  data: str
  unseen: tuple[str, ...] = averages.PUBLISHED
  training_examples: int | None = None
  runs: Mapping[str, Sequence[Run]]
  """Method -> its runs, one a seed, in column order; `pretrained` comes first.  Of a row's points the chosen one."""
  points: Sequence[Points] = ()
  """The rows that were run at several values of settings."""
  tried: Mapping[str, Sequence[Run]] = dataclasses.field(default_factory=dict)
  """Method -> its runs, of every point of those rows."""

  def name(self, method: str) -> str:
    """A method's name in print, which no other one of the group has."""
    return self._names[method]

  @functools.cached_property
  def _names(self) -> Mapping[str, str]:
    names = {method: method_name(runs[0].record) for method, runs in self.runs.items()}
    # Columns are found by their names: two methods of one name would be read as one.
    often = {name for name, count in collections.Counter(names.values()).items() if count > 1}
    return {
      method: f"{name} ({visible(method)})" if name in often else name
      for method, name in names.items()
    }

  @property
  def tuned_tasks(self) -> list[str]:
    """Names of the tasks that were trained on."""
    return published.plus_joined(self.trained_on).split("+")

  @property
  def templates(self) -> dict[str, list[str]]:
    """Data set -> its tasks, one a template."""
    found: dict[str, list[str]] = {}
    for run in (run for runs in self.runs.values() for run in runs):
      for name, tasks in run.record.templates.items():
        found[name] = list(dict.fromkeys((*found.get(name, ()), *tasks)))
    return found

  @property
  def own_tasks(self) -> set[str]:
    """Tasks whose data sets are not the published ones."""
    return {task for runs in self.runs.values() for run in runs for task in run.record.own_tasks}

  @property
  def shots(self) -> list[int]:
    """Numbers of shots at which unseen tasks were evaluated."""
    return sorted(
      {
        result.shots
        for runs in self.runs.values()
        for run in runs
        for result in run.reported
        if result.task in self.unseen
      }
    )

  @property
  def questions(self) -> list[tuple[str, int | None]]:
    """What the methods were asked, in order: (task, shots), the tuned tasks first and with None for shots."""
    tuned: list[tuple[str, int | None]] = [(task, None) for task in self.tuned_tasks]
    return tuned + [(task, shots) for task in self.unseen for shots in self.shots]


def metric_name(group: Group, task: str) -> str:
  """The score of an unseen task that enters the average."""
  results = (each for runs in group.runs.values() for run in runs for each in run.reported)
  return next((averages.metric_of(each) for each in results if each.task == task), "")


def method_name(record: RunRecord) -> str:
  """How a model was made, in print: as the paper has it, or as the record says."""
  own = record.printed or record.method.replace("_", " ")
  return published.ROWS.get(record.method, visible(own))


def collect(
  directories: Iterable[str | os.PathLike], *, report: Callable[[str], None] = _log.warning
) -> list[Run]:
  """Every evaluated model at or below the given folders.

  Args:
    report: receives a line about each run, or part of one, that is left out because it is damaged.

  Raises:
    DataError: a folder holds none, or the only record names a checkpoint that was not evaluated.
    DamagedRecord: the only one is damaged.
  """
  found: dict[pathlib.Path, Run] = {}
  left_out: list[errors.PromotError] = []
  for directory in directories:
    records = sorted(pathlib.Path(directory).rglob("run.json"))
    before = len(found) + len(left_out)
    for path in records:
      try:
        run = _read(path.parent, report)
      except (errors.DataError, errors.DamagedRecord) as error:
        left_out.append(error)
        continue
      if run:
        # By the folder itself: one that is named twice, or below another, counts once.
        found[path.parent.resolve()] = run
    # A folder may add nothing because another one has led to its runs already: that is no mistake.
    nothing = len(found) + len(left_out) == before
    if nothing and not any(path.parent.resolve() in found for path in records):
      raise errors.DataError(
        f"No evaluated model at or below {directory}; run `promot eval` first, or name the folder "
        "that holds run.json."
      )
  if left_out and not found:
    raise left_out[0]
  for each in left_out:
    report(str(each))
  return _of_different_seeds(found.values(), report)


def group(runs: Iterable[Run]) -> list[Group]:
  """Runs sorted into tables; pretrained models join every table of their backbone and data.

  What leaves the backbone alone, as prompt tuning does, has no variant: it joins every table.
  Tables follow the paper's order.  Runs of pretrained models alone give one of their own.
  """
  runs = list(runs)
  # Three kinds: pretrained models, what leaves their backbone alone, and what changes it.
  bases = [run for run in runs if run.record.method == "pretrained"]
  tuned = [run for run in runs if run.record.method != "pretrained"]
  joining = [run for run in tuned if _leaves_the_backbone(run.record)]
  tuned = [run for run in tuned if run not in joining]
  keys = list(dict.fromkeys(_key(run) for run in tuned))
  # A table for each variant of what is tuned, and for what would join if there is none to join.
  joined = {_apart(key) for key in keys}
  keys += [key for run in joining if _apart(key := _key(run)) not in joined]
  keys = list(dict.fromkeys(keys))
  keys.sort(key=lambda key: (published.home_table(key[0]) or 99, *key[:2], key[2] or 0, *key[3:]))
  if not keys:
    keys = list(dict.fromkeys(_key(run) for run in bases))
  return [
    Group(
      trained_on=trained_on,
      variant=variant,
      backbone=backbone,
      data=data,
      unseen=unseen,
      training_examples=key[2],
      **_columns(
        [run for run in bases if _world(run) == (backbone, data, unseen)]
        + [run for run in joining if _apart(_key(run)) == _apart(key)]
        + [run for run in tuned if _key(run) == key]
      ),
    )
    for key in keys
    for trained_on, variant, _, backbone, data, unseen in [key]
  ]


def task_cell(
  runs: Sequence[Run], *, task: str, shots: int, attached: bool | None = None, metric: str = ""
) -> Cell | None:
  """The mean headline score over runs, or None if no run has it.

  Args:
    attached: take results with the method attached, or those without one; None: as `Run.keeps_method_on`.
    metric: another score than the headline one, such as `format_share`.
  """
  found = list(
    task_results(runs, task=task, shots=shots, attached=attached, metric=metric).values()
  )
  if not found:
    return None
  scores = [result.scores[metric or result.metric] for result in found]
  cell = _cell(scores, [uncertainty.of_result(result, metric) for result in found])
  first = min((result.limit for result in found if result.limit), default=None)
  return dataclasses.replace(cell, first=first)


def task_results(
  runs: Sequence[Run], *, task: str, shots: int, attached: bool | None = None, metric: str = ""
) -> dict[int, TaskResult]:
  """Position of a run -> its result that is shown; as `task_cell`."""
  found = {}
  for position, run in enumerate(runs):
    on = run.keeps_method_on if attached is None else attached
    matching = [
      result
      for result in run.reported
      if (result.task, result.shots) == (task, shots)
      and (result.method == "attached") == on
      and (not metric or metric in result.scores)
    ]
    # A run may also hold scores on the split that chose its checkpoint; the test split reports.
    if matching:
      found[position] = sorted(matching, key=lambda result: result.split == "test")[-1]
  return found


def form_of(shots: int | None) -> str:
  """The form of one of `Group.questions` in print."""
  return "tuned task" if shots is None else f"{shots}-shot"


def answering(
  runs: Sequence[Run], *, task: str, shots: int | None, method: str
) -> dict[int, TaskResult]:
  """Position of a run of a method -> its result of one of `Group.questions`, in the form that is shown."""
  for number, attached in tuned_ways(method) if shots is None else [(shots, None)]:
    if found := task_results(runs, task=task, shots=number, attached=attached):
      return found
  return {}


def tuned_cell(runs: Sequence[Run], *, task: str, method: str, metric: str = "") -> Cell | None:
  """The tuned task's score: method attached where there is one, in the form it was tuned in.

  Models tuned with a demonstration are scored with one if such a result exists.

  Args:
    metric: another score than the headline one.
  """
  for shots, attached in tuned_ways(method):
    cell = task_cell(runs, task=task, shots=shots, attached=attached, metric=metric)
    if cell:
      return dataclasses.replace(cell, note=f"{shots}-shot") if shots else cell
  return None


def tuned_ways(method: str) -> list[tuple[int, bool]]:
  """(shots, whether the method is attached) in which a tuned task's score is looked for, in order."""
  # Of a point of a row the row's name comes first.
  shots = (1, 0) if method.endswith("_1shot") or "_1shot-" in method else (0,)
  # Attached first, the form in which the task was tuned; fine-tuning has nothing attached.
  return [(number, attached) for number in shots for attached in (True, False)]


def average_cell(
  runs: Sequence[Run], *, shots: int, pretrained: Sequence[Run] = (), attached: bool | None = None
) -> Cell | None:
  """Norm. Avg over runs that have all of their unseen tasks, the same of each, with its difference from the pretrained mean.

  `attached` is that of `task_cell`.
  """
  cell = _average(runs, shots, attached)
  base = _average(pretrained, shots, None) if pretrained else None
  if cell and base:
    return dataclasses.replace(cell, difference=cell.value - base.value)
  return cell


def _average(runs: Sequence[Run], shots: int, attached: bool | None) -> Cell | None:
  found = []
  for run in runs:
    on = run.keeps_method_on if attached is None else attached
    found.append(averages.average(run.reported, shots=shots, attached=on, unseen=run.unseen))
  known = [(a.value, a.interval) for a in found if a.value is not None]
  if not known:
    return None
  cell = _cell([value for value, _ in known], [limits for _, limits in known])
  first = min((a.first for a in found if a.value is not None and a.first), default=None)
  return dataclasses.replace(cell, first=first)


def _cell(scores: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> Cell:
  """Mean with the seeds' sample standard deviation, or one score with its interval."""
  if len(scores) > 1:
    return Cell(
      value=statistics.fmean(scores),
      spread=statistics.stdev(scores),
      kind="sd",
      count=len(scores),
    )
  low, high = intervals[0] or (None, None)
  return Cell(value=scores[0], low=low, high=high, kind="" if low is None else "ci")


def _read(folder: pathlib.Path, report: Callable[[str], None]) -> Run | None:
  store = ResultStore(folder, report=report)
  record = store.read_run()
  # Of each checkpoint what the run's own plan measured, and the medians of that.
  found = {checkpoint: store.results(checkpoint) for checkpoint in store.checkpoints()}
  chosen = {checkpoint: ways.reported(each, record) for checkpoint, each in found.items()}
  results = {
    checkpoint: [*shown, *medians.over_templates(shown, record.templates)]
    for checkpoint, (shown, _) in chosen.items()
    if shown
  }
  if not results:
    return None
  others = {checkpoint: others for checkpoint, (_, others) in chosen.items() if others}
  if count := sum(map(len, others.values())):
    report(
      f"{folder}: {count} result{'s' * (count > 1)} measured in another way (decoding, lengths,"
      " split) than the run's own plan; promot eval with the same settings prints them."
    )
  # Another checkpoint in its place would be a choice that nobody has made.
  if record.selected and record.selected not in results:
    raise errors.DataError(
      f"{folder} says that checkpoint '{record.selected}' is reported, but only "
      f"{', '.join(results)} were evaluated; evaluate it, or correct run.json."
    )
  return Run(record=record, directory=folder, results=results, others=others)


def _of_different_seeds(runs: Iterable[Run], report: Callable[[str], None]) -> list[Run]:
  """The runs without those that repeat another one's seed: a spread over seeds would be too small."""
  kept: dict[tuple, Run] = {}
  for run in runs:
    record = run.record
    # Other settings are other runs, of which the report warns by itself; of a pretrained model, which
    # has no seed, only one that measured the same is a repetition, whose spread of zero says nothing.
    settings = (record.seed, record.subsample, repr(sorted(record.settings.items())))
    same: tuple = (record.method, _key(run), *settings)
    if record.method == "pretrained":
      same = (
        *_world(run),
        *sorted((ways.name(each), each.split, each.count) for each in run.reported),
      )
    first = kept.setdefault(same, run)
    if first is not run:
      report(
        f"{run.directory} repeats '{record.method}' with seed {record.seed} of {first.directory}:"
        " it is left out, because a copy or a repetition is no further seed."
      )
  return list(kept.values())


Key = tuple[str, str, int | None, str, str, tuple[str, ...]]


def _key(run: Run) -> Key:
  record = run.record
  return record.trained_on, record.variant, record.training_examples, *_world(run)


def _world(run: Run) -> tuple[str, str, tuple[str, ...]]:
  """What a pretrained model shares with what was made of it."""
  return run.record.backbone, run.record.data, run.unseen


def _apart(key: Key) -> tuple:
  """A key without its variant."""
  return key[0], *key[2:]


def _leaves_the_backbone(record: RunRecord) -> bool:
  """Whether nothing of the backbone was trained; earlier versions told only the rate of its stage."""
  if record.backbone_trained is None:
    return not record.variant
  return not record.backbone_trained


def _columns(runs: Sequence[Run]) -> dict[str, Any]:
  """Fields of a group: its columns, and the points among which they were chosen."""
  methods = in_columns(runs)
  chosen = points.choose({name: [run.record for run in found] for name, found in methods.items()})
  tried = {name: methods[name] for row in chosen for name in row.methods}
  shown = {row.chosen for row in chosen}
  return {
    "runs": {name: found for name, found in methods.items() if name not in tried or name in shown},
    "points": tuple(chosen),
    "tried": tried,
  }


def in_columns(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """The paper's rows first, then those with a column of their own, then the others by name."""
  methods: dict[str, list[Run]] = {}
  for run in runs:
    methods.setdefault(run.record.method, []).append(run)
  rows = {method: number for number, method in enumerate(published.ROWS)}

  def place(method: str) -> tuple[float, float, str]:
    column = methods[method][0].record.column
    own = math.inf if column is None else column
    return rows.get(method, math.inf), own, method

  return {
    method: sorted(methods[method], key=lambda run: run.record.seed)
    for method in sorted(methods, key=place)
  }
