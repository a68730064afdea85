"""Which checkpoint a stage hands on, and the reason that it gives."""

import numpy as np
import optax
from flax import nnx

from promot_jax.checkpoints.store import Store
from promot_jax.training.choice import choose_step
from promot_jax.training.stages import Stage
from tiny_loop import Recorder


def scripted(scores):
  """A validation that returns the given scores in turn."""
  remaining = list(scores)
  return lambda model: {"accuracy": remaining.pop(0)}


def test_the_earliest_best_checkpoint_is_chosen_and_the_reason_said(tiny, run, tmp_path):
  stage = tiny.make_stage(
    "model", "first/.*", 8, eval_period=2, mode="max", metric="accuracy", keep_last=1
  )
  recorder = Recorder()
  result = run(stage, validate=scripted([0.5, 0.75, 0.75, 0.25]), recorder=recorder)
  assert result.step == 4
  assert result.why == (
    "step 4 of 8 is used, the maximum of validation accuracy, 0.75, over 4 validations;"
    " steps 4, 6 tie and the earliest is taken"
  )
  assert recorder.lines[-1] == f"stage 'model' complete: {result.why}"
  store = Store(tmp_path / "run")
  assert store.steps() == [4, 8]
  kernel = store.restore(4).leaves["trainable/first/kernel"]
  np.testing.assert_array_equal(result.model.first.kernel[...], kernel)


def test_step_zero_can_be_chosen(tiny, run):
  stage = tiny.make_stage(
    "model", "first/.*", 4, eval_period=2, metric="accuracy", mode="max", evaluate_at_start=True
  )
  model = tiny.TinyModel(nnx.Rngs(0))
  result = run(stage, validate=scripted([0.9, 0.5, 0.5]), model=model)
  assert result.step == 0
  assert [entry["step"] for entry in result.history] == [0, 2, 4]
  assert tiny.digest(result.model) == tiny.digest(model)


def test_the_last_checkpoint_is_chosen_where_asked_or_where_nothing_was_validated(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 4, select="last", metric="accuracy")
  assert run(stage, validate=scripted([0.9, 0.8, 0.7, 0.6])).step == 4
  without = run(tiny.make_stage("model", "first/.*", 4), validate=None, folder="other")
  assert without.step == 4
  assert "nothing was validated" in without.why


def test_choice_by_minimum():
  stage = Stage(
    name="s",
    trainable=".*",
    steps=30,
    batch_size=2,
    optimizer=optax.sgd,
    learning_rate=optax.constant_schedule(0.1),
    metric="loss",
    mode="min",
  )
  history = [{"step": s, "score": v, "metrics": {}} for s, v in ((10, 2.0), (20, 1.5), (30, 1.75))]
  step, why = choose_step(stage, history)
  assert step == 20
  assert why == "step 20 of 30 is used, the minimum of validation loss, 1.5, over 3 validations"
