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


class Device:
  """Does steps one after the other, each in `seconds`, while the host goes on; a clock for both."""

  def __init__(self, seconds):
    self.now, self.seconds, self.free = 0.0, seconds, 0.0
    self.in_flight = []

  def dispatch(self, step):
    self.free = max(self.free, self.now) + self.seconds
    self.in_flight.append((step, self.free))

  def fetch(self, pace, remaining):
    while len(self.in_flight) > remaining:
      step, end = self.in_flight.pop(0)
      self.now = max(self.now, end)
      pace.finished(step, 10, {})


@pytest.mark.parametrize("period", [2, 5, 40])
def test_rates_are_those_of_a_device_that_works_behind_the_host(period):
  device = Device(0.2)
  pace = Pace("model", first=0, steps=40, clock=lambda: device.now)
  for step in range(1, 41):
    if step == 1:
      device.now += 30.0  # compilation
    device.dispatch(step)
    device.fetch(pace, 4)
    if step % period == 0:
      device.fetch(pace, 0)
      with pace.pause():
        device.now += 3.0
  assert pace.progress().steps_per_second == pytest.approx(5.0)
  assert pace.progress().tokens_per_second == pytest.approx(50.0)
  if period > 2:
    assert pace.step_seconds() == pytest.approx(0.2)


def test_steps_that_finish_in_a_pause_give_no_absurd_rate():
  now = [0.0]
  pace = Pace("model", first=0, steps=9, clock=lambda: now[0])
  with pace.pause():
    now[0] = 7.0
    for step in (1, 2, 3):
      pace.finished(step, 50, {})
    now[0] = 9.0
    assert pace.progress().steps_per_second is None
  progress = pace.progress()
  assert progress.steps_per_second is None and progress.tokens_per_second is None
  now[0] = 10.0
  pace.finished(4, 50, {})
  assert pace.progress().steps_per_second == pytest.approx(3.0)


def test_a_rate_is_not_told_while_a_pause_goes_on_as_if_it_were_work():
  now = [0.0]
  pace = Pace("model", first=0, steps=9, clock=lambda: now[0])
  for step in (1, 2, 3):
    now[0] += 0.5
    pace.finished(step, 50, {})
  with pace.pause():
    now[0] += 60.0
    assert pace.progress().steps_per_second == pytest.approx(2.0)
