"""A stage that ends early ends at the same step with the same bits however often it is interrupted."""

import dataclasses

import pytest
from flax import nnx

from promot_jax import errors
from promot_jax.checkpoints.store import Store
from promot_jax.training import choice
from promot_jax.training.events import Events
from promot_jax.training.loop import train_stage
from tiny_experiments import Lines
from tiny_loop import Interrupted

SCORES = {0: 0.1, 2: 0.5, 4: 0.9, 6: 0.8, 8: 0.7, 10: 0.95}
"""The validation at each step: without patience the best is at 10, with a patience of 2 it is at 4."""


@pytest.fixture
def run(tiny, tmp_path):
  """train_stage with the scripted scores; each call is like a new process."""

  def call(stage, *, folder="run", crash_at=None, crash_in_validation_at=None):
    sink, store = Lines(), Store(tmp_path / folder)
    consumed = []

    def batches(step):
      consumed.append(step)
      if step == crash_at:
        raise Interrupted
      return tiny.batch_of(step)

    def validate(model):
      step = store.latest()
      if step == crash_in_validation_at:
        raise Interrupted
      return {"accuracy": SCORES[step], **tiny.validation(model)}

    sink.result = train_stage(
      stage,
      tiny.TinyModel(nnx.Rngs(0)),
      batches=batches,
      store=store,
      seed=3,
      validate=validate,
      events=Events([sink]),
    )
    sink.consumed, sink.store = consumed, store
    return sink

  return call


@pytest.fixture
def stage(tiny):
  return tiny.make_stage(
    "model", "first/.*", 10, eval_period=2, save_period=1, metric="accuracy", mode=None, patience=2
  )


def test_a_stage_stops_after_its_patience_and_says_so(run, stage):
  done = run(stage)
  assert (done.result.step, done.result.stopped) == (4, 8)
  assert [entry["step"] for entry in done.result.history] == [2, 4, 6, 8]
  assert done.lines[-1] == (
    "stage 'model' complete: step 4 of 10 is used, the maximum of validation accuracy, 0.9, over 4"
    " validations; stopped after step 8, as the last 2 validations were not better (patience 2)"
  )
  assert choice.marker(done.store)["stopped"] == 8


def test_an_early_stop_is_the_same_after_any_interruption(tiny, run, stage):
  reference = run(stage, folder="reference")
  for crash in ({"crash_at": 3}, {"crash_in_validation_at": 6}, {"crash_at": 7}):
    with pytest.raises(Interrupted):
      run(stage, **crash)
  with pytest.raises(Interrupted):
    run(stage, crash_in_validation_at=8)
  resumed = run(stage)
  assert (resumed.result.step, resumed.result.stopped, resumed.result.why) == (
    reference.result.step,
    reference.result.stopped,
    reference.result.why,
  )
  assert resumed.result.history == reference.result.history
  assert tiny.digest(resumed.result.model) == tiny.digest(reference.result.model)
  last = [sink.store.restore(8).leaves for sink in (resumed, reference)]
  assert tiny.digest(last[0]) == tiny.digest(last[1])


def test_a_kill_after_the_last_validation_trains_no_further(run, stage, monkeypatch):
  with monkeypatch.context() as patched:
    patched.setattr(choice, "mark_complete", lambda *_: (_ for _ in ()).throw(Interrupted()))
    with pytest.raises(Interrupted):
      run(stage)
  again = run(stage)
  assert again.result.stopped == 8
  assert again.store.latest() == 8


def test_a_stage_that_stopped_early_is_complete(tiny, run, stage):
  first = run(stage)
  again = run(stage)
  assert again.consumed == []
  assert again.lines == [f"stage 'model' was complete: {first.result.why}; its training is skipped"]
  assert again.result.stopped == 8
  assert tiny.digest(again.result.model) == tiny.digest(first.result.model)


@pytest.mark.parametrize("patience", [3, None])
def test_with_more_patience_it_goes_on_as_if_it_had_never_stopped(tiny, run, stage, patience):
  run(stage)
  patient = dataclasses.replace(stage, patience=patience)
  longer = run(patient)
  assert longer.consumed == [8, 9]
  assert (longer.result.step, longer.result.stopped) == (10, None)
  direct = run(patient, folder="direct")
  assert longer.result.history == direct.result.history
  assert tiny.digest(longer.result.model) == tiny.digest(direct.result.model)


def test_less_patience_than_a_complete_stage_had_is_explained(run, stage):
  run(dataclasses.replace(stage, patience=None))
  with pytest.raises(errors.ConfigError, match="patience none, and this run asks for 2 > 0"):
    run(stage)


def test_the_last_step_of_a_stage_that_stopped_is_where_it_stopped(run, stage):
  done = run(dataclasses.replace(stage, select="last"))
  assert done.result.step == 8
  assert "step 8 is used, the last one" in done.result.why


def test_a_stage_under_way_keeps_to_what_it_chooses_by(run, stage):
  with pytest.raises(Interrupted):
    run(stage, crash_at=5)
  other = dataclasses.replace(stage, metric="error", mode="min")
  with pytest.raises(errors.ConfigError, match=r"the maximum of accuracy, and .* minimum of error"):
    run(other)
  assert run(dataclasses.replace(stage, patience=1)).result.stopped == 6  # patience may change


def test_a_misspelt_metric_can_be_mended(run, stage):
  with pytest.raises(errors.ConfigError, match=r"no 'acuracy' but .* Did you mean 'accuracy'"):
    run(dataclasses.replace(stage, metric="acuracy"))
  assert run(stage).result.step == 4
