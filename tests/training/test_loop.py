"""A stage ends with the same bits however often it is interrupted, and says what it chose."""

import dataclasses
import json
import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from promot_jax import errors, paths
from promot_jax.checkpoints.store import Store
from promot_jax.training import meter
from promot_jax.training.choice import choose_step
from promot_jax.training.events import Events, JsonLines, Progress, Scalars
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


@pytest.fixture
def run(tiny, tmp_path):
  """train_stage on the tiny model; each call is like a new process."""

  def call(
    stage, *, folder="run", crash_at=None, model=None, recorder=None, consumed=None, **given
  ):
    def batches(step):
      if step == crash_at:
        raise Interrupted
      if consumed is not None:
        consumed.append(step)
      return tiny.batch_of(step)

    recorder = recorder or Recorder()
    given = {"batches": batches, "validate": tiny.validation, "seed": 3, **given}
    store = Store(tmp_path / folder, report=recorder.line)
    return train_stage(
      stage,
      model if model is not None else tiny.TinyModel(nnx.Rngs(0)),
      store=store,
      events=Events([recorder]),
      **given,
    )

  return call


def test_an_interrupted_run_repeated_ends_with_the_bits_of_an_uninterrupted_one(
  tiny, run, tmp_path
):
  stage = tiny.make_stage("model", "(first|second)/.*", 20)
  reference = run(stage, folder="reference")
  consumed = []
  for crash_at in (3, 7, 8, 14):
    with pytest.raises(Interrupted):
      run(stage, crash_at=crash_at, consumed=consumed)
  resumed = run(stage, consumed=consumed)
  assert tiny.digest(resumed.model) == tiny.digest(reference.model)
  assert resumed.history == reference.history
  last = [Store(tmp_path / folder).restore(20).leaves for folder in ("run", "reference")]
  assert tiny.digest(last[0]) == tiny.digest(last[1])
  # Nothing is skipped: what a crash lost is consumed again, in order.
  assert sorted(set(consumed)) == list(range(20))


def test_a_complete_stage_is_not_taken_for_one_with_another_learning_rate(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 6, learning_rate=optax.constant_schedule(0.05))
  first = run(stage)
  changed = dataclasses.replace(stage, learning_rate=optax.constant_schedule(0.02))
  with pytest.raises(errors.ConfigError) as refused:
    run(changed)
  assert "learning rate 0.05, and this run asks for 0.02" in str(refused.value)
  assert "--allow_config_change" in str(refused.value)
  kept = run(changed, allow_change=True)
  assert tiny.digest(kept.model) == tiny.digest(first.model)
  with pytest.raises(errors.ConfigError, match="steps 6, and this run asks for 4"):
    run(dataclasses.replace(stage, steps=4))


def test_an_incomplete_stage_goes_on_with_another_learning_rate(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 12, learning_rate=optax.constant_schedule(0.05))
  with pytest.raises(Interrupted):
    run(stage, crash_at=9)
  recorder = Recorder()
  run(dataclasses.replace(stage, learning_rate=optax.constant_schedule(0.02)), recorder=recorder)
  assert any("resumed from step" in line for line in recorder.lines)


def test_frozen_parameters_are_cast_for_the_stage_and_handed_on_as_they_were(tiny, run):
  seen = []

  def validate(model):
    seen.append({name: str(leaf.dtype) for name, leaf in paths.named_leaves(model).items()})
    return {"accuracy": 1.0}

  stage = dataclasses.replace(
    tiny.make_stage("model", "first/.*", 4), frozen_dtype="bfloat16", metric="accuracy"
  )
  before = paths.named_leaves(tiny.TinyModel(nnx.Rngs(0)))
  after = paths.named_leaves(run(stage, validate=validate).model)
  frozen = [name for name in before if not name.startswith("first/")]
  assert frozen and len(frozen) < len(before)
  for types in seen:
    for name, dtype in types.items():
      assert dtype == ("bfloat16" if name in frozen else "float32")
  for name in frozen:
    np.testing.assert_array_equal(after[name], before[name])
  again = paths.named_leaves(run(stage, validate=validate).model)  # from the finished stage
  assert all(again[name].dtype == jnp.float32 for name in frozen)


def test_another_batch_size_is_refused_unless_the_change_is_allowed(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 8)
  with pytest.raises(Interrupted):
    run(stage, crash_at=6)
  with pytest.raises(errors.ConfigError, match="seed=3"):
    run(stage, seed=4)
  assert run(stage, seed=4, allow_change=True).step <= 8


def test_the_resumed_run_equals_plain_optax_without_any_loop(tiny, run):
  """Dropout off: a loop written by hand is the independent source."""

  @dataclasses.dataclass(frozen=True)
  class NoDropout(tiny.LeastSquares):
    def __call__(self, model, batch, *, teacher=None, key=None):
      return super().__call__(model, batch, teacher=teacher, key=None)

  stage = tiny.make_stage("model", "first/.*", 9, objective=NoDropout(), select="last")
  with pytest.raises(Interrupted):
    run(stage, crash_at=7)
  found = run(stage).model

  model = tiny.TinyModel(nnx.Rngs(0))
  others = (model.prompt.prompt[...], model.second.kernel[...])
  kernel = model.first.kernel[...]
  optimizer = optax.adam(stage.learning_rate)
  opt_state = optimizer.init(kernel)
  for step in range(9):
    batch = tiny.batch_of(step)

    def loss(kernel, batch=batch):
      output = jnp.tanh((batch["x"] + others[0]) @ kernel) @ others[1]
      return jnp.mean(jnp.square(output[:, 0] - batch["y"]))

    updates, opt_state = optimizer.update(jax.grad(loss)(kernel), opt_state, kernel)
    kernel = optax.apply_updates(kernel, updates)
  np.testing.assert_allclose(found.first.kernel[...], kernel, rtol=2e-5, atol=1e-6)


def test_frozen_parameters_and_the_given_model_do_not_move(tiny, run):
  model = tiny.TinyModel(nnx.Rngs(0))
  before = {name: np.array(leaf) for name, leaf in paths.named_leaves(model).items()}
  result = run(tiny.make_stage("prompt", "prompt/.*", 6, select="last"), model=model)
  after = paths.named_leaves(result.model)
  for name, value in before.items():
    np.testing.assert_array_equal(paths.named_leaves(model)[name], value)
    assert np.array_equal(after[name], value) == (name != "prompt/prompt")


def test_only_what_is_trained_is_saved(tiny, run, tmp_path):
  run(tiny.make_stage("prompt", "prompt/.*", 5))
  names = set(Store(tmp_path / "run").restore(5).leaves)
  assert {name for name in names if name.startswith("trainable/")} == {"trainable/prompt/prompt"}
  assert "step" in names
  assert len([name for name in names if name.endswith("prompt/prompt")]) == 3  # and two moments


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


def test_a_complete_stage_is_skipped_and_gives_the_same_model(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 8)
  first = run(stage)

  def never(*_):
    raise AssertionError("a complete stage reads no batch and validates nothing")

  recorder = Recorder()
  again = run(stage, batches=never, validate=never, recorder=recorder)
  assert tiny.digest(again.model) == tiny.digest(first.model)
  assert (again.step, again.why, again.history) == (first.step, first.why, first.history)
  assert recorder.lines == [f"stage 'model' was complete: {first.why}; its training is skipped"]


def test_more_steps_continue_a_complete_stage(tiny, run):
  run(tiny.make_stage("model", "first/.*", 4, eval_period=4))
  consumed = []
  longer = run(tiny.make_stage("model", "first/.*", 8, eval_period=4), consumed=consumed)
  assert consumed == [4, 5, 6, 7]
  direct = run(tiny.make_stage("model", "first/.*", 8, eval_period=4), folder="direct")
  assert tiny.digest(longer.model) == tiny.digest(direct.model)


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"seed": 4}, "seed=3"),
    ({"name": "other"}, "stage='model'"),
    ({"batch_size": 8}, "batch_size=4"),
  ],
)
def test_a_changed_run_is_refused(tiny, run, change, named):
  stage = tiny.make_stage("model", "first/.*", 8)
  with pytest.raises(Interrupted):
    run(stage, crash_at=7)
  fields = {field: value for field, value in change.items() if field != "seed"}
  seed = change.get("seed", 3)
  with pytest.raises(errors.ConfigError, match=named):
    run(dataclasses.replace(stage, **fields), seed=seed)
  run(stage)
  with pytest.raises(errors.ConfigError, match=named):
    run(dataclasses.replace(stage, **fields), seed=seed)


def test_a_checkpoint_of_another_size_is_refused_with_a_table(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 8)
  with pytest.raises(Interrupted):
    run(stage, crash_at=7)
  with pytest.raises(
    errors.ConfigError, match=r"trainable/first/kernel +float32\[5,9\] +float32\[5,7\]"
  ):
    run(stage, model=tiny.TinyModel(nnx.Rngs(0), hidden=9))


def test_fewer_steps_than_the_checkpoint_are_refused(tiny, run):
  with pytest.raises(Interrupted):
    run(tiny.make_stage("model", "first/.*", 8), crash_at=7)
  with pytest.raises(errors.ConfigError, match="beyond the 2 steps"):
    run(tiny.make_stage("model", "first/.*", 2))


@pytest.mark.parametrize("poison", [0, 6])
def test_divergence_keeps_the_parameters_before_it_and_saves_the_batch(tiny, run, tmp_path, poison):
  stage = tiny.make_stage("model", "first/.*", 20, eval_period=20, save_period=4)
  clean = tiny.make_stage("model", "first/.*", poison, eval_period=20, save_period=4)
  for _ in range(2):  # the repeated command ends at the same place
    with pytest.raises(errors.Diverged, match=f"loss and grad_norm .* at step {poison + 1} of"):
      run(stage, batches=lambda step: tiny.batch_of(step, poison=poison))
  saved = np.load(tmp_path / "run" / f"diverged_step_{poison + 1}.npz")
  np.testing.assert_array_equal(saved["y"], tiny.batch_of(poison, poison=poison)["y"])
  store = Store(tmp_path / "run")
  assert store.latest() == poison
  for step in store.steps():
    assert all(np.isfinite(leaf).all() for leaf in store.restore(step).leaves.values())
  run(clean, folder="clean")
  expected = Store(tmp_path / "clean").restore(poison).leaves
  assert tiny.digest(store.restore(poison).leaves) == tiny.digest(expected)


def test_no_step_finishes_while_the_pace_is_paused(tiny, run, monkeypatch):
  seen = []

  class Watched(meter.Pace):
    def finished(self, step, tokens, metrics):
      seen.append((step, self._pause))
      super().finished(step, tokens, metrics)

  monkeypatch.setattr(meter, "Pace", Watched)
  run(tiny.make_stage("model", "first/.*", 12, eval_period=6, save_period=4))
  assert seen == [(step, None) for step in range(1, 13)]


def test_an_update_that_is_not_finite_is_named_and_not_the_batch_after_it(tiny, run, tmp_path):
  bad = optax.scale_by_schedule(lambda count: jnp.where(count == 6, jnp.nan, -1e-3))
  stage = tiny.make_stage("model", "first/.*", 20, eval_period=20, save_period=4)
  stage = dataclasses.replace(stage, optimizer=lambda rate: bad)
  words = "a parameter became NaN or infinite at step 7 of .* its update did it: look at the optim"
  with pytest.raises(errors.Diverged, match=words):
    run(stage)
  saved = np.load(tmp_path / "run" / "diverged_step_7.npz")
  np.testing.assert_array_equal(saved["y"], tiny.batch_of(6)["y"])
  assert Store(tmp_path / "run").latest() == 4


def test_a_loss_that_is_not_finite_from_the_start_is_not_blamed_on_the_learning_rate(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 20)
  with pytest.raises(errors.Diverged, match="the learning rate is not the reason"):
    run(stage, batches=lambda step: tiny.batch_of(step, poison=0))


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), -1.0])
def test_a_rate_that_cannot_be_is_refused_before_the_first_step(tiny, run, rate):
  stage = tiny.make_stage("model", "first/.*", 20)
  stage = dataclasses.replace(stage, learning_rate=lambda step: rate)
  with pytest.raises(errors.ConfigError, match="the learning rate at step 0 is"):
    run(stage)


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


def test_saving_by_time_saves_between_the_periods(tiny, run, tmp_path):
  stage = tiny.make_stage(
    "model", "first/.*", 6, save_period=None, eval_period=None, save_seconds=0.0, keep_last=None
  )
  run(stage)
  assert Store(tmp_path / "run").steps() == [1, 2, 3, 4, 5, 6]


def test_resume_on_several_devices_equals_the_uninterrupted_run(tiny, run, tmp_path):
  devices = np.array(jax.devices())
  if len(devices) < 4:
    pytest.skip("needs 4 simulated devices")
  mesh = Mesh(devices[:4].reshape(2, 2), ("data", "model"))

  def placed():
    model = tiny.TinyModel(nnx.Rngs(0), hidden=8)
    specs = {"first/kernel": (None, "model"), "second/kernel": ("model",)}
    leaves = {
      name: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*specs.get(name, ()))))
      for name, leaf in paths.named_leaves(model).items()
    }
    return paths.replace_leaves(model, leaves)

  stage = tiny.make_stage("model", "(first|second)/.*", 12)
  reference = run(stage, folder="reference", model=placed(), mesh=mesh)
  with pytest.raises(Interrupted):
    run(stage, crash_at=8, model=placed(), mesh=mesh)
  resumed = run(stage, model=placed(), mesh=mesh)
  assert tiny.digest(resumed.model) == tiny.digest(reference.model)
  assert resumed.model.first.kernel[...].sharding.spec == PartitionSpec(None, "model")
  # Another mesh: the restored values are exact.
  restored = run(stage, folder="reference", model=tiny.TinyModel(nnx.Rngs(0), hidden=8))
  assert tiny.digest(restored.model) == tiny.digest(reference.model)


def test_a_resumed_run_traces_the_step_once(tiny, run):
  stage = tiny.make_stage("model", "first/.*", 8)
  with pytest.raises(Interrupted):
    run(stage, crash_at=7)
  traced = []

  @dataclasses.dataclass(frozen=True)
  class Counting(tiny.LeastSquares):
    def __call__(self, model, batch, *, teacher=None, key=None):
      traced.append(1)
      return super().__call__(model, batch, teacher=teacher, key=key)

  run(dataclasses.replace(stage, objective=Counting()))
  assert len(traced) == 1


def test_wrong_values_of_a_stage_are_config_errors(tiny):
  for change, message in (
    ({"name": "a/b"}, "name='a/b'"),
    ({"steps": -1}, "steps=-1"),
    ({"microbatches": 3}, "microbatches=3 must be a divisor of batch_size=4"),
    ({"select": "first"}, "select='first' must be 'best', 'last', or a function"),
    ({"mode": "up"}, "mode='up'"),
    ({"eval_period": 0}, "eval_period=0"),
  ):
    fields = {"name": "x", "trainable": ".*", "steps": 3, **change}
    with pytest.raises(errors.ConfigError, match=message):
      tiny.make_stage(**fields)
