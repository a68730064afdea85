"""Which checkpoint of a finished experiment is reported, and which others are evaluated beside it."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from promot_jax import hosts
from promot_jax.evaluation import whole_files
from promot_jax.evaluation.records import TaskResult
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.pretrained_results import PRETRAINED
from promot_jax.networks import network, run
from promot_jax.training.stages import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """What an experiment left: the chosen checkpoint and its scores."""

  experiment: Experiment
  selected: str
  why: str
  results: Sequence[TaskResult]


def note_network(experiment: Experiment) -> None:
  """Writes what the network of a trained experiment is, so that others can start from it (`Run`)."""
  note = run.Note(
    start=experiment.start,
    method=experiment.method,
    stages=[stage.name for stage in experiment.stages],
    seed=experiment.seed,
  )
  path = pathlib.Path(experiment.model_dir) / run.NOTE
  hosts.only_first(lambda: whole_files.write_text(path, note.text()))


def selected(experiment: Experiment, chosen: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
  """(name of the reported checkpoint, why it is the one).

  Args:
    chosen: the completion marker of each stage.
  """
  if not chosen:
    start = experiment.start
    name = "the pretrained model" if isinstance(start, network.Network) else start.about
    return PRETRAINED, f"{name}, nothing was trained"
  stage = experiment.stages[-1]
  return f"{stage.name}-{chosen[-1]['step']}", chosen[-1]["why"]


def evaluated(
  experiment: Experiment,
  chosen: Sequence[Mapping[str, Any]],
  kept: Callable[[Stage], Sequence[int]],
) -> Iterator[tuple[str, int, int | None]]:
  """(name, number of stages, step of the last one) of what the plan evaluates, the reported one first.

  Args:
    chosen: the completion marker of each stage.
    kept: the steps of a stage that are on the disk.
  """
  count = len(experiment.stages)
  if not count:
    yield PRETRAINED, 0, None
    return
  stage, choice = experiment.stages[-1], chosen[-1]["step"]
  yield f"{stage.name}-{choice}", count, choice
  steps: Sequence[int] = []
  if "all" in experiment.evaluation.checkpoints:
    steps = kept(stage)
  elif "last" in experiment.evaluation.checkpoints:
    steps = [chosen[-1].get("stopped") or stage.steps]
  for step in steps:
    if step != choice:
      yield f"{stage.name}-{step}", count, step
