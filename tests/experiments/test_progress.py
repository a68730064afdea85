"""The pace of an evaluation, on a clock of the test's own."""

from promot_jax.evaluation import evaluator
from promot_jax.experiments import progress
from promot_jax.training.events import Events


class Seen:
  def __init__(self):
    self.events = []

  def progress(self, event):
    self.events.append(event)


def test_rate_and_time_left_are_measured_from_the_first_finished_batch_on():
  seen, times = Seen(), iter([0.0, 60.0, 62.0, 64.0])  # a minute of compilation, then 4 a second
  asked = []
  report = progress.reporter(
    Events([seen]), "m", clock=lambda: next(times), stop=lambda: asked.append(1)
  )
  for done, tasks in ((8, 1), (16, 1), (24, 2), (32, 2)):
    report(evaluator.Progress(done=done, total=40, tasks_done=tasks, tasks=3))
  rates = [(event.steps_per_second, event.seconds_left) for event in seen.events]
  assert rates == [(None, None), (None, None), (4.0, 4.0), (4.0, 2.0)]
  assert [event.tasks for event in seen.events] == [(1, 3), (1, 3), (2, 3), (2, 3)]
  assert (seen.events[0].step, seen.events[0].steps, seen.events[0].unit) == (8, 40, "example")
  assert len(asked) == 4
