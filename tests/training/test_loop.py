"""A stage ends with the same bits however often it is interrupted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from promot_jax import paths
from promot_jax.checkpoints.store import Store
from tiny_loop import Interrupted, Recorder


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
