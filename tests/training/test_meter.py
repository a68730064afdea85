"""Means are ratios of sums, and the pace leaves compilation out."""

import pytest

from promot_jax.training.meter import Pace, Window


def test_means_weigh_steps_by_their_tokens():
  window = Window()
  window.add({"accuracy": (3.0, 4.0)})
  window.add({"accuracy": (1.0, 16.0), "loss": (2.0, 1.0)})
  assert window.take() == {"accuracy": 4.0 / 20.0, "loss": 2.0}
  assert window.take() == {}


def test_pace_starts_at_the_first_finished_step_and_skips_pauses():
  now = [0.0]
  pace = Pace("model", first=100, steps=200, clock=lambda: now[0])
  assert pace.progress().seconds_left is None
  now[0] = 60.0  # compilation
  pace.finished(101, 50, {"loss": (3.0, 2.0)})
  assert pace.progress().steps_per_second is None
  for step in range(102, 112):
    now[0] += 0.5
    pace.finished(step, 50, {"loss": (3.0, 2.0)})
  with pace.pause():
    now[0] += 5.0
  progress = pace.progress()
  assert progress.step == 111
  assert progress.loss == 1.5
  assert progress.steps_per_second == pytest.approx(2.0)
  assert progress.tokens_per_second == pytest.approx(100.0)
  assert progress.seconds_left == pytest.approx(89 * 1.0)  # pauses count for the time left


def test_the_step_time_is_the_median_between_two_steps_without_pauses():
  now = [0.0]
  pace = Pace("model", first=0, steps=9, clock=lambda: now[0])
  assert pace.step_seconds() is None
  now[0] = 60.0  # compilation
  pace.finished(1, 50, {})
  assert pace.step_seconds() is None
  for step, seconds in ((2, 0.25), (3, 0.5), (4, 7.0)):  # another length is compiled
    now[0] += seconds
    pace.finished(step, 50, {})
  with pace.pause():
    now[0] += 5.0
  now[0] += 3.0
  pace.finished(5, 50, {})  # from before the pause: no step
  for step, seconds in ((6, 0.25), (7, 0.5)):
    now[0] += seconds
    pace.finished(step, 50, {})
  assert pace.step_seconds() == pytest.approx(0.5)  # of 0.25, 0.5, 7, 0.25, 0.5
