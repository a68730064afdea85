"""A validation is made once for each saved step, and must give what the stage chooses by."""

import pytest

from promot_jax import errors
from tiny_loop import Interrupted


def test_validation_is_repeated_after_a_crash_in_it_and_training_is_not(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 8, eval_period=4)

  def crash(model):
    raise Interrupted

  with pytest.raises(Interrupted):
    run(stage, validate=crash)
  consumed = []
  resumed = run(stage, consumed=consumed)
  assert consumed == [4, 5, 6, 7]
  assert [entry["step"] for entry in resumed.history] == [4, 8]


def test_a_metric_that_validation_does_not_give_is_a_config_error(tiny, run):
  with pytest.raises(errors.ConfigError, match="gives no 'bleu' but error"):
    run(tiny.make_stage("model", "first/.*", 4, metric="bleu"))
