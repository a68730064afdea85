"""Which checkpoint of a finished experiment is reported, and which others are evaluated beside it."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from promot_jax import hosts
from promot_jax.evaluation import whole_files
from promot_jax.evaluation.records import TaskResult
from promot_jax.experiments import checkpoint
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.experiment import Experiment
from promot_jax.networks import network, run
from promot_jax.training.stages import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """What an experiment left: the chosen checkpoint and its scores."""

  experiment: Experiment
  selected: str
  why: str
  results: Sequence[TaskResult]
  validation: float | None = None
  drift: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


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


def selected(experiment: Experiment, chosen: Sequence[Mapping[str, Any]]) -> tuple[Checkpoint, str]:
  """(the reported checkpoint, why it is the one).

  Args:
    chosen: the completion marker of each stage.
  """
  if not chosen:
    start = experiment.start
    name = "the pretrained model" if isinstance(start, network.Network) else start.about
    return checkpoint.pretrained(experiment), f"{name}, nothing was trained"
  return checkpoint.after(experiment, len(chosen), chosen[-1]["step"]), chosen[-1]["why"]


def evaluated(
  experiment: Experiment,
  chosen: Sequence[Mapping[str, Any]],
  kept: Callable[[Stage], Sequence[int]],
) -> Iterator[Checkpoint]:
  """What the plan evaluates, the reported one first.

  Args:
    chosen: the completion marker of each stage.
    kept: the steps of a stage that are on the disk.
  """
  first, _ = selected(experiment, chosen)
  yield first
  if not chosen:
    return
  stage = experiment.stages[-1]
  steps: Sequence[int] = []
  if "all" in experiment.evaluation.checkpoints:
    steps = kept(stage)
  elif "last" in experiment.evaluation.checkpoints:
    # The last step is where patience ended the stage, if it did.
    steps = [chosen[-1].get("stopped") or stage.steps]
  for step in steps:
    if step != first.step:
      yield checkpoint.after(experiment, len(chosen), step)
