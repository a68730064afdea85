"""Two models on the same examples: which stored results lie side by side, and how far they are apart.

Reads result folders and nothing else; the statistics are `metrics.paired`'s.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from promot_jax import errors
from promot_jax.evaluation import ways
from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.metrics import metric as metric_lib
from promot_jax.metrics import paired, registry

_TOLERANCE = 1e-6
"""Between a stored score and the same one computed again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
  """The results of one checkpoint in a folder."""

  store: ResultStore
  checkpoint: str
  results: Sequence[TaskResult]

  @property
  def name(self) -> str:
    """In print."""
    return f"{self.store.root} ({self.checkpoint})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
  """A result example by example.

  result: the headline score is what is compared.
  inputs, targets: of each example.
  scores: float64 [examples], the headline metric of each alone.
  metric: makes the score of the whole of `statistics` [examples, statistics]; None where the score is the mean of
    `scores`, or the metric could not be had again.
  """

  result: TaskResult
  inputs: Sequence[str]
  targets: Sequence[object]
  scores: np.ndarray
  metric: metric_lib.Metric | None = None
  statistics: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
  """A comparison of two results; `remarks` say what else is not alike."""

  first: TaskResult
  second: TaskResult
  difference: paired.Difference
  remarks: tuple[str, ...] = ()


def side(folder: str | os.PathLike, *, checkpoint: str = "") -> Side:
  """The results of a model directory, or of a folder that `promot eval` wrote.

  Args:
    checkpoint: whose results; empty: the run's reported one, or the only one.

  Raises:
    ConfigError: no such checkpoint, or several and none is named.
    DataError: there are no results, or those of several runs.
  """
  root = pathlib.Path(folder)
  # A model directory has its results in a folder of its own; `promot eval` writes where it is told.
  places = [place for place in (root, root / "evaluation") if ResultStore(place).checkpoints()]
  if not places:
    runs = sorted(path.parent for path in root.rglob("run.json"))
    several = f"holds several runs; name one: {', '.join(map(str, runs))}" if runs else ""
    raise errors.DataError(
      f"{folder} {several or 'holds no results; run promot eval first, or name the folder that it wrote'}."
    )
  store = ResultStore(places[0])
  there = store.checkpoints()
  recorded = store.read_run().selected if (places[0] / "run.json").exists() else ""
  chosen = checkpoint or (recorded if recorded in there else "")
  if not chosen and len(there) == 1:
    chosen = there[0]
  if chosen not in there:
    what = f"has no results of checkpoint '{chosen}'" if chosen else "has several checkpoints"
    raise errors.ConfigError(f"{folder} {what}; name one with --checkpoints: {', '.join(there)}.")
  return Side(store=store, checkpoint=chosen, results=store.results(chosen))


def alike(first: Side, second: Side) -> list[tuple[TaskResult, TaskResult]]:
  """The results that lie side by side: of one task, split and number of shots.

  A model without a method is compared with every state of the other's method.  Of results that were measured in
  several ways those of one way are taken together, where there are such, of most examples.
  """
  found = []
  for mine, theirs in _matching(first.results, second.results):
    both = {ways.of(result.settings) for result in mine} & {ways.of(r.settings) for r in theirs}
    found += [(_fullest(mine, way), _fullest(theirs, way)) for way in sorted(both) or ("",)]
  return found


def scored(store: ResultStore, checkpoint: str, result: TaskResult) -> Scored:
  """The examples of a result.

  Raises:
    DataError: its predictions were removed, or single examples have no score.
    DamagedRecord: they are not as they were written.
  """
  predictions = list(store.predictions(checkpoint, result))
  if len(predictions) != result.count:
    raise errors.DataError(
      f"{len(predictions)} predictions of {result.count} are there; measure again to compare"
    )
  if any(prediction.score is None for prediction in predictions):
    raise errors.DataError(f"{result.metric} has no score of single examples")
  scores = np.asarray([prediction.score for prediction in predictions], np.float64)
  targets = [prediction.targets for prediction in predictions]
  metric = statistics = None
  # What a metric needs, Java for one, may be missing on the machine that compares.
  with contextlib.suppress(errors.ConfigError, errors.DataError, ImportError):
    if (found := _corpus_metric(result)) is not None:
      counted = found.statistics(targets, [each.prediction for each in predictions])
      again = found.summarize(counted.sum(axis=0))[result.metric]
      # Else references that a file cannot hold, for one.
      if abs(again - result.score) <= _TOLERANCE:
        metric, statistics = found, counted
  return Scored(
    result=result,
    inputs=[prediction.input for prediction in predictions],
    targets=targets,
    scores=scores,
    metric=metric,
    statistics=statistics,
  )


def compare(
  first: Sequence[Scored],
  second: Sequence[Scored],
  *,
  resamples: int = paired.RESAMPLES,
  seed: int = 0,
) -> Pair:
  """How far two models are apart; of several seeds of each, by the mean of what an example has under them.

  Of results of different lengths the examples that all have are compared: the first ones.

  Raises:
    DataError: they are of different metrics or of different examples.
  """
  sample, remarks = side_by_side(first, second)
  difference = paired.difference(
    sample.first, sample.second, summarize=sample.summarize, resamples=resamples, seed=seed
  )
  return Pair(
    first=first[0].result, second=second[0].result, difference=difference, remarks=remarks
  )


def side_by_side(
  first: Sequence[Scored], second: Sequence[Scored]
) -> tuple[paired.Sample, tuple[str, ...]]:
  """What `compare` tests, and its remarks: of several seeds an example's row is their mean.

  Raises:
    DataError: as of `compare`.
  """
  every = [*first, *second]
  one = first[0].result
  if len(metrics := dict.fromkeys(each.result.metric for each in every)) > 1:
    raise errors.DataError(f"they have different metrics: {', '.join(metrics)}")
  count = min(each.result.count for each in every)
  for index in range(count):
    if any(each.targets[index] != every[0].targets[index] for each in every):
      raise errors.DataError(f"they are not of the same examples: the answers of {index} differ")
  remarks = []
  if count < max(each.result.count for each in every):
    remarks.append(f"the first {count} examples, which both have")
  if any(each.inputs[index] != every[0].inputs[index] for each in every for index in range(count)):
    remarks.append("questions are written differently")
  if unlike := sorted({name for each in every for name in _unlike(every[0].result, each.result)}):
    remarks.append(f"measured differently: {', '.join(unlike)}")
  metric = every[0].metric
  # The whole's score only where every side can make it again: else the mean of the examples' own.
  if metric is None or any(each.metric != metric for each in every):
    if any(abs(each.scores.mean() - each.result.score) > _TOLERANCE for each in every):
      remarks.append(f"by the mean of each example's own {one.metric}")
    metric = None
  # Several seeds are one row an example: what is drawn, and exchanged, are examples.
  statistics = [
    np.mean([_rows(each, metric)[:count] for each in side], axis=0) for side in (first, second)
  ]
  summarize = functools.partial(_summary, metric, one.metric) if metric else paired.mean
  sample = paired.Sample(first=statistics[0], second=statistics[1], summarize=summarize)
  return sample, tuple(remarks)


def _matching(
  first: Sequence[TaskResult], second: Sequence[TaskResult]
) -> list[tuple[list[TaskResult], list[TaskResult]]]:
  """The results of one task, split and shots in two states of the method that may be compared."""
  groups: list[dict[tuple, dict[tuple[str, int], list[TaskResult]]]] = []
  for results in (first, second):
    group: dict[tuple, dict[tuple[str, int], list[TaskResult]]] = {}
    for result in results:
      states = group.setdefault((result.task, result.split, result.shots), {})
      row = result.bank_row if result.method == "attached" else 0
      states.setdefault((result.method, row), []).append(result)
    groups.append(group)
  found = []
  for key, mine in groups[0].items():
    theirs = groups[1].get(key, {})
    for state, results in mine.items():
      for other, others in theirs.items():
        # On with on and off with off; what never had a method lies beside either.
        if state == other or "none" in (state[0], other[0]):
          found.append((results, others))
  return found


def _fullest(results: Sequence[TaskResult], way: str = "") -> TaskResult:
  """That of most examples, of a way of measuring or of all."""
  return max(
    (result for result in results if way in ("", ways.of(result.settings))),
    key=lambda result: (result.limit is None, result.count),
  )


def _unlike(first: TaskResult, second: TaskResult) -> list[str]:
  """Names of the settings that two results do not share."""
  if ways.of(first.settings) == ways.of(second.settings):
    return []
  names = {*first.settings, *second.settings} - {"options"}
  return [name for name in names if first.settings.get(name) != second.settings.get(name)]


def _corpus_metric(result: TaskResult) -> metric_lib.Metric | None:
  """The metric of a headline score that is more than the mean of the examples', by its description."""
  if result.metric == registry.MACRO_F1:
    labels = [name.removeprefix("f1_") for name in result.scores if name.startswith("f1_")]
    return registry.find(registry.MACRO_F1, labels=labels) if len(labels) > 1 else None
  described = result.settings.get("metrics", ())
  listed = (*registry.METRICS.values(), *(m for own in registry.OFFICIAL.values() for m in own))
  for metric in listed:
    if result.metric in metric.names and metric_lib.describe(metric) in described:
      return None if isinstance(metric, metric_lib.Mean) else metric
  return None


def _rows(scored: Scored, metric: metric_lib.Metric | None) -> np.ndarray:
  """Statistics [examples, statistics] of the metric, or of the mean of the examples' scores."""
  if metric is not None and scored.statistics is not None:
    return scored.statistics
  return metric_lib.mean_statistics(scored.scores[None])


def _summary(metric: metric_lib.Metric, name: str, totals: np.ndarray) -> np.ndarray:
  """A score of summed statistics: [..., statistics] -> [...]."""
  rows = totals.reshape(-1, totals.shape[-1])
  return np.asarray([metric.summarize(row)[name] for row in rows]).reshape(totals.shape[:-1])
