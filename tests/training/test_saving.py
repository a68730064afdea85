"""What a stage saves, and when."""

import os
import signal
import time

import pytest

from promot_jax import errors
from promot_jax.checkpoints.store import Store
from promot_jax.training.saving import Saving
from tiny_loop import Recorder


def test_only_what_is_trained_is_saved(tiny, run, tmp_path):
  run(tiny.make_stage("prompt", "prompt/.*", 5))
  names = set(Store(tmp_path / "run").restore(5).leaves)
  assert {name for name in names if name.startswith("trainable/")} == {"trainable/prompt/prompt"}
  assert "step" in names
  assert len([name for name in names if name.endswith("prompt/prompt")]) == 3  # and two moments


def test_saving_by_time_saves_between_the_periods(tiny, run, tmp_path):
  stage = tiny.make_stage(
    "model", "first/.*", 6, save_period=None, eval_period=None, save_seconds=0.0, keep_last=None
  )
  run(stage)
  assert Store(tmp_path / "run").steps() == [1, 2, 3, 4, 5, 6]


def test_sigterm_finishes_the_step_saves_and_loses_nothing(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 20, save_period=None, eval_period=None)

  def batches(step):
    time.sleep(0.02 * (step > 4))  # the signal comes between two steps, not before the first
    if step == 9:
      os.kill(os.getpid(), signal.SIGTERM)
    return tiny.batch_of(step)

  recorder = Recorder()
  with pytest.raises(errors.Preempted, match=r"SIGTERM at step \d+ of 20") as caught:
    run(stage, batches=batches, recorder=recorder)
  stopped = int(str(caught.value).split("at step ")[1].split()[0])
  assert 0 < stopped < 20
  assert any(line.startswith(f"saved step {stopped} ") for line in recorder.lines)
  consumed = []
  resumed = run(stage, consumed=consumed)
  assert consumed == list(range(stopped, 20))
  assert tiny.digest(resumed.model) == tiny.digest(run(stage, folder="reference").model)
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_no_checkpoint_is_due_by_time_before_the_first_step_or_where_time_has_no_say(tiny):
  def overdue(step, seconds):
    stage = tiny.make_stage("model", ".*", 8, save_seconds=seconds)
    return Saving(stage, None, metadata={}, newest=None).overdue(step)

  assert overdue(1, 0.0)
  assert not overdue(0, 0.0)
  assert not overdue(1, 60.0)
  assert not overdue(1, None)
