"""A stage of the tiny run inside one process: interrupted like by a crash, with all that it tells kept."""

import pathlib
from typing import Any

from flax import nnx

import tiny_run
from promot_jax.checkpoints.store import Store
from promot_jax.training.choice import StageResult
from promot_jax.training.events import Events, Progress, Scalars
from promot_jax.training.loop import train_stage
from promot_jax.training.stages import Stage


class Recorder:
  """A sink that keeps everything."""

  def __init__(self):
    self.lines: list[str] = []
    self.records: list[Scalars] = []
    self.progresses: list[Progress] = []
    self.rewinds: list[tuple[str, int]] = []

  def scalars(self, event):
    self.records.append(event)

  def line(self, text):
    self.lines.append(text)

  def progress(self, event):
    self.progresses.append(event)

  def rewind(self, stage, step):
    self.rewinds.append((stage, step))

  def close(self):
    pass


class Interrupted(Exception):
  """Stands for a crash."""


def train(
  stage: Stage,
  folder: pathlib.Path,
  *,
  crash_at: int | None = None,
  model: nnx.Module | None = None,
  recorder: Recorder | None = None,
  consumed: list[int] | None = None,
  **given: Any,
) -> StageResult:
  """`train_stage` on the tiny model; each call is like a new process.

  Args:
    folder: of the checkpoints.
    crash_at: step whose batch is never read.
    consumed: receives the steps whose batches were read.
    given: other arguments of `train_stage`.
  """

  def batches(step):
    if step == crash_at:
      raise Interrupted
    if consumed is not None:
      consumed.append(step)
    return tiny_run.batch_of(step)

  recorder = recorder or Recorder()
  given = {"batches": batches, "validate": tiny_run.validation, "seed": 3, **given}
  return train_stage(
    stage,
    model if model is not None else tiny_run.TinyModel(nnx.Rngs(0)),
    store=Store(folder, report=recorder.line),
    events=Events([recorder]),
    **given,
  )
