"""Metrics of steps that the device is still at: read late, told once, timed without pauses."""

import json

import numpy as np
import optax
import pytest
from flax import nnx

from promot_jax.checkpoints.store import Store
from promot_jax.training import meter
from promot_jax.training.divergence import NotFinite
from promot_jax.training.events import Events, JsonLines
from promot_jax.training.in_flight import InFlight
from promot_jax.training.loop import train_stage
from tiny_loop import Interrupted, Recorder


def test_no_step_finishes_while_the_pace_is_paused(tiny, run, monkeypatch):
  seen = []

  class Watched(meter.Pace):
    def finished(self, step, tokens, metrics):
      seen.append((step, self._pause))
      super().finished(step, tokens, metrics)

  monkeypatch.setattr(meter, "Pace", Watched)
  run(tiny.make_stage("model", "first/.*", 12, eval_period=6, save_period=4))
  assert seen == [(step, None) for step in range(1, 13)]


def test_metrics_are_means_over_the_log_period_and_validation_has_its_own_series(tiny, run):
  recorder = Recorder()
  run(tiny.make_stage("model", "first/.*", 10, eval_period=10, save_period=None), recorder=recorder)
  train = [event for event in recorder.records if event.kind == "train"]
  assert [event.step for event in train] == [5, 10]
  rates = [float(optax.linear_schedule(0.05, 0.01, 100)(step)) for step in range(10)]
  assert train[0].values["learning_rate"] == pytest.approx(np.mean(rates[:5]), rel=1e-6)
  assert train[1].values["learning_rate"] == pytest.approx(np.mean(rates[5:]), rel=1e-6)
  (validation,) = [event for event in recorder.records if event.kind == "validation"]
  assert validation.step == 10
  assert recorder.progresses[-1].step == 10


def test_the_metrics_file_of_a_resumed_run_has_each_step_once(tiny, run, tmp_path):
  stage = tiny.make_stage("model", "first/.*", 20)
  series = {}
  for folder, crashes in (("reference", ()), ("crashed", (3, 12, 17))):
    path = tmp_path / f"{folder}.jsonl"

    def once(crash_at=None, folder=folder, path=path):
      def batches(step):
        if step == crash_at:
          raise Interrupted
        return tiny.batch_of(step)

      sink = JsonLines(path)
      try:
        train_stage(
          stage,
          tiny.TinyModel(nnx.Rngs(0)),
          batches=batches,
          validate=tiny.validation,
          store=Store(tmp_path / folder, report=lambda line: None),
          seed=3,
          events=Events([sink]),
        )
      finally:
        sink.close()

    for crash_at in crashes:
      with pytest.raises(Interrupted):
        once(crash_at)
    once()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    timing = ("time", "steps_per_second")
    series[folder] = [{k: v for k, v in r.items() if k not in timing} for r in records]
  assert series["crashed"] == series["reference"]


def test_steps_are_read_when_others_are_behind_them_and_the_first_that_is_not_finite_is_named(tiny):
  heard, recorder = [], Recorder()
  stage = tiny.make_stage("model", ".*", 8, log_period=2)
  queue = InFlight(stage, first=0, events=Events([recorder]), hear=heard.append)
  for step in range(1, 7):
    pair = (np.float32(step if step != 5 else np.nan), np.float32(1))
    finite = (np.float32(step != 5), np.float32(1))
    queue.add(step, tokens=3, metrics={"loss": pair, "finite": finite}, vote=step)
  queue.read(3)
  assert heard == [1, 2, 3]
  assert [event.values["loss"] for event in recorder.records] == [1.5]  # 3 waits for 4
  with pytest.raises(NotFinite) as problem:
    queue.read()
  assert (problem.value.step, problem.value.names, heard[-1]) == (5, ["loss"], 5)
  queue.drop()
  queue.read()
  assert heard[-1] == 5
