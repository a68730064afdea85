"""The train step: what moves, what does not, microbatches, keys, shardings, recompilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from promot_jax import errors, partitioning, paths
from promot_jax.models.t5 import T5
from promot_jax.models.t5_config import T5Config
from promot_jax.training import optimizers, schedules
from promot_jax.training.objectives import Supervised, mean_metrics
from promot_jax.training.state import create_state, shardings_of
from promot_jax.training.step import make_train_step

B, S, T, V = 8, 5, 3, 48
CONFIG = T5Config(
  vocab_size=V, width=16, heads=2, head_width=6, mlp_width=24, encoder_layers=1, decoder_layers=1
)
DECODER = "decoder/.*"
KEY = jax.random.key(7)


def batch_of(seed=0, size=B):
  generator = np.random.default_rng(seed)
  inputs = generator.integers(1, V, (size, S)).astype(np.int32)
  targets = generator.integers(1, V, (size, T)).astype(np.int32)
  lengths = generator.integers(1, T + 1, (size, 1))
  targets *= np.arange(T) < lengths  # microbatches differ in their number of real tokens
  return {
    "encoder_input_tokens": inputs,
    "decoder_input_tokens": np.roll(targets, 1, axis=1) * (np.arange(T) > 0).astype(np.int32),
    "decoder_target_tokens": targets,
    "decoder_loss_weights": (targets > 0).astype(np.float32),
  }


def setting(patterns=DECODER, *, optimizer=optimizers.adafactor, rate=0.01, config=CONFIG, **step):
  """(step function, fresh state, frozen)"""
  graphdef, trainable, frozen = paths.split(T5(config, nnx.Rngs(0)), patterns)
  schedule = schedules.constant(rate)
  optimizer = optimizer(schedule)
  objective = step.pop("objective", Supervised())
  function = make_train_step(graphdef, objective, optimizer, schedule, **step)
  return function, create_state(trainable, optimizer), frozen


def host(tree):
  return {name: np.asarray(leaf) for name, leaf in paths.named_leaves(tree).items()}


def assert_close(one, other, **tolerances):
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_allclose(one[name], other[name], err_msg=name, **tolerances)


def test_frozen_parameters_do_not_move_and_have_no_optimizer_state():
  step, state, frozen = setting()
  before, frozen_before = host(state.trainable), host(frozen)
  for seed in range(3):
    state, _ = step(state, frozen, batch_of(seed), KEY)
  after = host(state.trainable)
  assert all(name.startswith("decoder/") for name in after)
  assert all(np.any(after[name] != before[name]) for name in after)
  assert_close(host(frozen), frozen_before, rtol=0)
  assert not any("encoder/layers" in name for name in host(state.opt_state))


def test_gradients_exist_for_trainable_parameters_only():
  """The compiled step has no value of the shape of a frozen parameter but that parameter itself."""
  config = T5Config(
    vocab_size=53, width=16, heads=2, head_width=6, mlp_width=24, encoder_layers=1, decoder_layers=1
  )
  step, state, frozen = setting("decoder/decoder_norm/scale", config=config)
  frozen_only = step.lower(state, frozen, batch_of(), KEY).compile()
  everything, full_state, nothing = setting(".*", config=config)
  full = everything.lower(full_state, nothing, batch_of(), KEY).compile()
  assert frozen_only.cost_analysis()["flops"] < 0.6 * full.cost_analysis()["flops"]
  parameters, scale = paths.count(frozen), 16
  outputs = frozen_only.memory_analysis().output_size_in_bytes
  assert outputs < 4 * (3 * scale + 100) < 4 * parameters


def test_the_update_is_the_optimizers_answer_to_the_gradient_of_the_mean_loss():
  step, state, frozen = setting(".*", optimizer=optimizers.sgd, rate=0.5)
  model, batch = T5(CONFIG, nnx.Rngs(0)), batch_of()
  graphdef, parameters = nnx.split(model)

  def mean_loss(parameters):
    model = nnx.merge(graphdef, parameters)
    log_p = jax.nn.log_softmax(model.logits(model.hidden(batch)))
    picked = jnp.take_along_axis(log_p, batch["decoder_target_tokens"][..., None], -1)[..., 0]
    weights = batch["decoder_loss_weights"]
    return -(picked * weights).sum() / weights.sum()

  loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(parameters)
  expected = host(jax.tree.map(lambda p, g: p - 0.5 * g, parameters, gradient))
  norm = np.sqrt(sum((g**2).sum() for g in host(gradient).values()))
  state, metrics = step(state, frozen, batch, None)
  assert_close(host(state.trainable), expected, rtol=1e-5, atol=1e-6)
  means = mean_metrics(metrics)
  assert means["loss"] == pytest.approx(float(loss), rel=1e-5)
  assert means["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
  assert means["learning_rate"] == pytest.approx(0.5) and means["finite"] == 1.0
  assert int(state.step) == 1


@pytest.mark.parametrize(
  "microbatches, factor",
  [
    (2, "NUM_REAL_TARGET_TOKENS"),
    (4, "AVERAGE_PER_SEQUENCE"),
    pytest.param(4, None, marks=pytest.mark.slow),
  ],
)
def test_microbatches_equal_one_batch(microbatches, factor):
  results = []
  for parts in (1, microbatches):
    step, state, frozen = setting(
      optimizer=optimizers.sgd,
      microbatches=parts,
      objective=Supervised(loss_normalizing_factor=factor, z_loss=1e-3, vocabulary_chunk=16),
    )
    state, metrics = step(state, frozen, batch_of(), None)
    results.append((host(state.trainable), mean_metrics(metrics)))
  assert_close(*(state for state, _ in results), rtol=1e-5, atol=1e-6)
  assert_close(*(metrics for _, metrics in results), rtol=1e-5)


def test_accumulators_are_as_large_as_the_trainable_parameters_only():
  step, state, frozen = setting("decoder/decoder_norm/scale", microbatches=2)
  jaxpr = jax.make_jaxpr(step)(state, frozen, batch_of(), KEY).jaxpr.eqns[0].params["jaxpr"]
  (scan,) = [
    equation
    for equation in jaxpr.eqns
    if equation.primitive.name == "scan" and equation.params["length"] == 2
  ]
  carried = scan.outvars[: scan.params["num_carry"]]
  assert [variable.aval.shape for variable in carried] == [(16,)]


def test_dropout_follows_the_step_and_the_key_and_nothing_else():
  config = T5Config(**{**vars(CONFIG), "dropout_rate": 0.4})
  options = {"config": config, "rate": 0.0, "optimizer": optimizers.sgd}
  step, _, frozen = setting(**options)

  def losses(key):
    _, state, _ = setting(**options)
    found = []
    for _ in range(2):
      state, metrics = step(state, frozen, batch_of(), key)
      found.append(mean_metrics(metrics)["loss"])
    return found

  first = losses(KEY)
  assert first[0] != first[1]  # the rate is 0, so only the masks differ
  assert losses(KEY) == first
  assert losses(jax.random.key(8))[0] != first[0]
  without = losses(None)
  assert without[0] == without[1]


def test_microbatches_have_dropout_masks_of_their_own():
  config = T5Config(**{**vars(CONFIG), "dropout_rate": 0.4})
  step, state, frozen = setting(config=config, rate=0.0, optimizer=optimizers.sgd, microbatches=2)
  single = {name: value[:1] for name, value in batch_of().items()}
  model = T5(config, nnx.Rngs(0))

  def mean_loss(key):
    return Supervised()(model, single, key=key)[0] / Supervised().normalizer(single)

  keys = [jax.random.fold_in(jax.random.fold_in(KEY, 0), index) for index in (0, 1)]
  expected = [float(loss) for loss in map(jax.jit(mean_loss), keys)]
  assert expected[0] != expected[1]
  twice = {name: np.repeat(value, 2, axis=0) for name, value in single.items()}
  _, metrics = step(state, frozen, twice, KEY)
  assert mean_metrics(metrics)["loss"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_steps_and_batches_of_equal_shape_do_not_recompile():
  step, state, frozen = setting(microbatches=2)
  for seed in range(4):
    state, _ = step(state, frozen, batch_of(seed), jax.random.key(seed))
  assert step._cache_size() == 1
  for leaf in jax.tree.leaves(state):
    assert not leaf.weak_type


def test_only_the_state_is_donated():
  step, state, frozen = setting()
  teacher = T5(CONFIG, nnx.Rngs(3))
  old, _ = jax.tree.leaves(state), step(state, frozen, batch_of(), KEY, teacher)
  assert all(leaf.is_deleted() for leaf in old)
  kept = [*jax.tree.leaves(frozen), *jax.tree.leaves(nnx.state(teacher))]
  assert not any(leaf.is_deleted() for leaf in kept)


def test_the_model_that_was_split_keeps_its_arrays():
  model = T5(CONFIG, nnx.Rngs(0))
  graphdef, trainable, frozen = paths.split(model, DECODER)
  schedule = schedules.constant(0.1)
  optimizer = optimizers.adafactor(schedule)
  step = make_train_step(graphdef, Supervised(), optimizer, schedule)
  step(create_state(trainable, optimizer), frozen, batch_of(), KEY)
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(nnx.state(model)))


def test_a_teacher_module_reaches_the_objective():
  class AgainstTeacher:
    def __call__(self, model, batch, *, teacher=None, key=None):
      student = model.logits(model.hidden(batch, key=key))
      difference = student - teacher.logits(teacher.hidden(batch))
      return (difference**2).sum(), {}

    def normalizer(self, batch):
      return 1.0

  step, state, frozen = setting(objective=AgainstTeacher())
  teacher = T5(CONFIG, nnx.Rngs(3))
  state, metrics = step(state, frozen, batch_of(), None, teacher)
  assert mean_metrics(metrics)["loss"] > 0
  step, state, frozen = setting(objective=AgainstTeacher())
  _, metrics = step(state, frozen, batch_of(), None, T5(CONFIG, nnx.Rngs(0)))
  assert mean_metrics(metrics)["loss"] == pytest.approx(0, abs=1e-6)


def test_bfloat16_frozen_parameters_serve_float32_trainable_ones():
  config = T5Config(**{**vars(CONFIG), "dtype": "bfloat16"})
  step, state, frozen = setting("decoder/decoder_norm/scale", config=config, microbatches=2)
  frozen = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), frozen)
  state, metrics = step(state, frozen, batch_of(), KEY)
  assert mean_metrics(metrics)["finite"] == 1.0
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.trainable))


def test_a_nan_is_reported():
  step, state, frozen = setting()
  frozen = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), frozen)
  _, metrics = step(state, frozen, batch_of(), KEY)
  assert mean_metrics(metrics)["finite"] == 0.0


@pytest.mark.parametrize(
  "axes, optimizer",
  [
    ({"data": 4, "model": 2}, optimizers.adafactor),
    ({"data": 8, "model": 1}, optimizers.adamw),
  ],
)
def test_sharded_on_eight_devices_equals_a_single_device(axes, optimizer):
  options = {
    "optimizer": lambda rate: (
      optimizer(rate, min_dim_size_to_factor=12)
      if optimizer is optimizers.adafactor
      else optimizer(rate, eps=1e-3)  # keeps rounding of tiny gradients out of the comparison
    ),
    "objective": Supervised(vocabulary_chunk=24),
  }
  step, state, frozen = setting(**options, microbatches=2)
  for seed in range(2):
    state, metrics = step(state, frozen, batch_of(seed, 16), None)

  mesh = partitioning.make_mesh(**axes)
  graphdef, trainable, frozen = paths.split(T5(CONFIG, nnx.Rngs(0)), DECODER)
  trainable, frozen = (partitioning.place(tree, mesh) for tree in (trainable, frozen))
  schedule = schedules.constant(0.01)
  optimizer = options["optimizer"](schedule)
  sharded = create_state(trainable, optimizer, mesh=mesh)
  shardings = shardings_of(sharded)
  sharded_step = make_train_step(
    graphdef, options["objective"], optimizer, schedule, microbatches=2, shardings=shardings
  )
  for seed in range(2):
    batch = partitioning.global_batch(batch_of(seed, 16), mesh)
    sharded, sharded_metrics = sharded_step(sharded, frozen, batch, None)

  assert_close(host(sharded.trainable), host(state.trainable), rtol=1e-4, atol=1e-5)
  assert_close(mean_metrics(sharded_metrics), mean_metrics(metrics), rtol=1e-5)
  assert sharded_step._cache_size() == 1
  before, after = paths.named_leaves(shardings), paths.named_leaves(sharded)
  for name, leaf in after.items():
    assert isinstance(leaf.sharding, NamedSharding) and leaf.sharding.mesh == mesh, name
    assert leaf.sharding.is_equivalent_to(before[name], leaf.ndim), name
  if axes["model"] == 2:
    kernel = after["trainable/decoder/logits_dense/kernel"]
    assert kernel.addressable_shards[0].data.shape == (16, V // 2)


def test_impossible_microbatches_are_refused():
  with pytest.raises(errors.ConfigError, match="microbatches=0"):
    setting(microbatches=0)
  step, state, frozen = setting(microbatches=3)
  with pytest.raises(errors.ConfigError, match="8 examples cannot be cut into 3"):
    step(state, frozen, batch_of(), KEY)
