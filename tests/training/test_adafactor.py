"""Adafactor: against a plain numpy version, T5X's stored state, and optax's own Adafactor."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.training.adafactor import adafactor
from promot_jax.training.optimizers import prompt_adafactor

KERNEL, SCALE, SMALL = "mlp/wi/kernel", "norm/scale", "attention/out/kernel"
WIDE, PROMPT = "logits/kernel", "encoder/prompt/prompt"
SHAPES = {KERNEL: (9, 6), SCALE: (7,), SMALL: (3, 8), WIDE: (6, 11), PROMPT: (6, 10)}
LIMIT = 5  # min_dim_size_to_factor in these tests


def rms(array):
  return np.sqrt(np.mean(np.square(array)))


def decay_of(step, exponent):
  """1 - step^-exponent, rounded to float32 as T5X does: after a million steps it matters."""
  return float(np.float32(1) - np.float32(step) ** np.float32(-exponent))


class PlainAdafactor:
  """One parameter's Adafactor after the paper's pseudo-code, in float64 numpy, no factoring tricks.

  The factored second moment is formed as the full matrix row * column / total.
  """

  def __init__(
    self, factored, rate, *, relative=True, decay=0.8, clip=1.0, beta1=None, weight=None
  ):
    self.factored, self.rate, self.relative = factored, rate, relative
    self.decay, self.clip, self.beta1, self.weight = decay, clip, beta1, weight
    self.step, self.second, self.rows, self.columns, self.momentum = 0, 0.0, 0.0, 0.0, 0.0

  def __call__(self, parameter, gradient):
    self.step += 1
    keep = decay_of(self.step, self.decay)
    square = gradient**2 + 1e-30
    if self.factored:
      self.rows = keep * self.rows + (1 - keep) * square.sum(axis=1)
      self.columns = keep * self.columns + (1 - keep) * square.sum(axis=0)
      second = np.outer(self.rows, self.columns) / self.rows.sum()
    else:
      second = self.second = keep * self.second + (1 - keep) * square
    update = gradient / np.sqrt(second)
    update = update / max(1.0, rms(update) / self.clip)
    update = update * self.rate * (max(rms(parameter), 1e-3) if self.relative else 1.0)
    if self.beta1 is not None:
      update = self.momentum = self.beta1 * self.momentum + (1 - self.beta1) * update
    return parameter * (1 - (self.weight or 0.0)) - update


def parameters(seed=0, shapes=SHAPES):
  generator = np.random.default_rng(seed)
  return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def run(optimizer, params, gradients):
  """Parameters after one update for each tree of gradients, and the last state."""
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


@pytest.mark.parametrize(
  "options, plain",
  [
    ({}, {}),
    ({"beta1": 0.9}, {"beta1": 0.9}),
    ({"weight_decay_rate": 1e-2, "decay_rate": 0.6}, {"weight": 1e-2, "decay": 0.6}),
    (
      {"weight_decay_rate": 0.5, "weight_decay_rate_lr_exponent": 2.0},
      {"weight": 0.5 * 0.05**2},
    ),
    (
      {"multiply_by_parameter_scale": False, "clipping_threshold": None},
      {"relative": False, "clip": np.inf},
    ),
  ],
)
def test_updates_equal_plain_numpy(options, plain):
  params = parameters()
  gradients = [parameters(seed) for seed in (1, 2, 3)]
  got, _ = run(adafactor(0.05, min_dim_size_to_factor=LIMIT, **options), params, gradients)
  for name, value in params.items():
    reference = PlainAdafactor(name in (KERNEL, WIDE), 0.05, **plain)
    value = value.astype(np.float64)
    for gradient in gradients:
      value = reference(value, gradient[name].astype(np.float64))
    np.testing.assert_allclose(got[name], value, rtol=2e-5, atol=1e-6, err_msg=name)


def test_prompt_preset_is_absolute_slow_and_decayed():
  params, gradients = parameters(), [parameters(seed) for seed in (1, 2)]
  got, _ = run(prompt_adafactor(0.3), params, gradients)
  reference = PlainAdafactor(False, 0.3, relative=False, weight=1e-5)
  value = params[PROMPT].astype(np.float64)
  for gradient in gradients:
    value = reference(value, gradient[PROMPT].astype(np.float64))
  np.testing.assert_allclose(got[PROMPT], value, rtol=2e-5, atol=1e-6)


def test_row_is_the_smaller_dimension_and_prompts_are_not_factored():
  state = adafactor(0.1, min_dim_size_to_factor=LIMIT).init(parameters())
  shapes = {
    name: tuple(getattr(state, field)[name].shape for field in ("m", "v", "v_row", "v_col"))
    for name in SHAPES
  }
  assert shapes[KERNEL] == ((1,), (1,), (6,), (9,))
  assert shapes[WIDE] == ((1,), (1,), (6,), (11,))
  assert shapes[SCALE] == ((1,), (7,), (1,), (1,))
  assert shapes[SMALL] == ((1,), (3, 8), (1,), (1,))
  assert shapes[PROMPT] == ((1,), (6, 10), (1,), (1,))
  # The smaller dimension's means are over the larger one.
  gradient = parameters(1)
  _, after = run(adafactor(0.1, min_dim_size_to_factor=LIMIT), parameters(), [gradient])
  np.testing.assert_allclose(after.v_row[KERNEL], (gradient[KERNEL] ** 2).mean(axis=0), rtol=1e-6)
  np.testing.assert_allclose(after.v_col[KERNEL], (gradient[KERNEL] ** 2).mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"beta1": 0.9, "weight_decay_rate": 1e-3}])
def test_stacked_layers_are_treated_as_separate_matrices(options):
  stacked_shapes = {
    "encoder/layers/mlp/wi/kernel": (2, 9, 6),
    "encoder/layers/norm/scale": (2, 7),
    "decoder/layers/attention/query/kernel": (2, 3, 8),
  }
  optimizer = adafactor(0.05, min_dim_size_to_factor=LIMIT, **options)
  stacked = parameters(0, stacked_shapes)
  for name in stacked:  # layers of different size: shared means would show
    stacked[name] *= np.array([1.0, 30.0]).reshape(2, *[1] * (stacked[name].ndim - 1))
  gradients = [parameters(seed, stacked_shapes) for seed in (1, 2)]

  def unstack(tree):
    return {
      name.replace("layers/", f"layers/{layer}/"): value[layer]
      for name, value in tree.items()
      for layer in (0, 1)
    }

  got, state = run(optimizer, stacked, gradients)
  expected, expected_state = run(optimizer, unstack(stacked), [unstack(g) for g in gradients])
  for name, value in unstack(got).items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)
  assert state.v_row["encoder/layers/mlp/wi/kernel"].shape == (2, 6)
  for layer in (0, 1):
    np.testing.assert_allclose(
      state.v_row["encoder/layers/mlp/wi/kernel"][layer],
      expected_state.v_row[f"encoder/layers/{layer}/mlp/wi/kernel"],
      rtol=1e-6,
    )


def test_a_bank_of_prompts_is_as_many_prompts():
  optimizer = prompt_adafactor(0.3)
  bank, gradient = parameters(0, {PROMPT: (2, 3, 5)}), parameters(1, {PROMPT: (2, 3, 5)})
  gradient[PROMPT][1] *= 100
  got, _ = run(optimizer, bank, [gradient])
  for task in (0, 1):
    alone, _ = run(optimizer, {PROMPT: bank[PROMPT][task]}, [{PROMPT: gradient[PROMPT][task]}])
    np.testing.assert_allclose(got[PROMPT][task], alone[PROMPT], rtol=1e-6)


def test_optax_agrees_on_matrices_but_mixes_stacked_layers():
  """Where optax.adafactor differs: layers of a stack share means, clipping and scale."""
  gradients = [parameters(seed) for seed in (1, 2, 3)]
  options = {"min_dim_size_to_factor": LIMIT, "weight_decay_rate": 1e-3}
  without_prompt = {name: shape for name, shape in SHAPES.items() if name != PROMPT}
  params = parameters(0, without_prompt)
  ours, _ = run(adafactor(0.05, **options), params, [parameters(s, without_prompt) for s in (1, 2)])
  theirs, _ = run(
    optax.adafactor(0.05, **options), params, [parameters(s, without_prompt) for s in (1, 2)]
  )
  for name in params:
    np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=1e-6, err_msg=name)

  stack = parameters(0, {"layers/kernel": (6, 9, 7)})
  stack["layers/kernel"] *= np.arange(1, 7).reshape(6, 1, 1)
  gradients = [parameters(seed, {"layers/kernel": (6, 9, 7)}) for seed in (1, 2)]
  ours, _ = run(adafactor(0.05, **options), stack, gradients)
  theirs, _ = run(optax.adafactor(0.05, **options), stack, gradients)
  difference = np.abs(ours["layers/kernel"] - theirs["layers/kernel"]).max()
  assert difference > 0.05  # as large as an update


def test_patterns_choose_whose_rate_is_relative():
  params, gradient = parameters(), parameters(1)
  relative, _ = run(adafactor(0.1), params, [gradient])
  absolute, _ = run(adafactor(0.1, multiply_by_parameter_scale=False), params, [gradient])
  mixed, _ = run(adafactor(0.1, multiply_by_parameter_scale=["norm/.*"]), params, [gradient])
  np.testing.assert_array_equal(mixed[SCALE], relative[SCALE])
  np.testing.assert_array_equal(mixed[KERNEL], absolute[KERNEL])


def test_offset_cap_global_clip_and_nan_guard_do_what_they_say():
  params, gradient = {SCALE: np.full(7, 5.0, np.float32)}, parameters(1, {SCALE: (7,)})
  # The decay starts anew at the offset: the old second moment is forgotten.
  optimizer = adafactor(0.1, step_offset=40)
  state = optimizer.init(params)._replace(count=jnp.asarray(40), v={SCALE: jnp.full(7, 9.0)})
  _, state = optimizer.update(gradient, state, params)
  np.testing.assert_allclose(state.v[SCALE], gradient[SCALE] ** 2, rtol=1e-6)
  # The parameter scale is capped.
  free, _ = run(adafactor(0.1), params, [gradient])
  capped, _ = run(adafactor(0.1, max_parameter_scale=1.0), params, [gradient])
  np.testing.assert_allclose((free[SCALE] - 5) / 5, capped[SCALE] - 5, rtol=1e-4, atol=1e-6)
  # Gradients are clipped by their global norm before the statistics see them.
  _, clipped = run(adafactor(0.1, global_norm_clip_threshold=0.5), params, [gradient])
  np.testing.assert_allclose(np.sum(clipped.v[SCALE]), 0.25, rtol=1e-5)
  # A NaN leaves parameter and state as they were.
  bad = {SCALE: gradient[SCALE].copy()}
  bad[SCALE][2] = np.nan
  guarded, state = run(
    adafactor(0.1, skip_nan_updates=True, clipping_threshold=None), params, [bad]
  )
  assert guarded[SCALE][2] == 5.0 and state.v[SCALE][2] == 0.0
  assert np.all(np.delete(guarded[SCALE], 2) != 5.0)


def adafactor_by_hand(gradients, *, offset):
  """v of every update, in plain numpy: T5X's 1 - (step - offset + 1)^-0.8 from the offset on."""
  v, found = 0.0, []
  for count, gradient in enumerate(gradients):
    t = count - offset + 1 if count >= offset else count + 1
    decay = 1.0 - t**-0.8
    v = decay * v + (1 - decay) * (gradient**2 + 1e-30)
    found.append(v)
  return found


@pytest.mark.parametrize("offset", [0, 1, 3, 1_000_000])
def test_the_decay_counts_from_0_below_the_offset_and_anew_from_it_on(offset):
  gradients = [parameters(seed, {SCALE: (7,)})[SCALE] for seed in range(6)]
  optimizer = adafactor(0.01, step_offset=offset)
  params = {SCALE: np.ones(7, np.float32)}
  state = optimizer.init(params)
  for gradient, expected in zip(gradients, adafactor_by_hand(gradients, offset=offset)):
    updates, state = optimizer.update({SCALE: gradient}, state, params)
    np.testing.assert_allclose(state.v[SCALE], expected, rtol=1e-5)
    assert np.isfinite(updates[SCALE]).all() and (updates[SCALE] != 0).all()


@pytest.mark.parametrize(
  "options",
  [
    {"step_offset": -1},
    {"step_offset": 1.5},
    {"decay_rate": 0.0},
    {"decay_rate": float("nan")},
    {"clipping_threshold": 0.0},
    {"clipping_threshold": float("nan")},
    {"weight_decay_rate": float("inf")},
    {"beta1": 1.0},
    {"epsilon1": -1e-30},
    {"max_parameter_scale": float("inf")},
    {"global_norm_clip_threshold": -1.0},
    {"min_dim_size_to_factor": 0},
  ],
)
def test_numbers_that_cannot_be_are_refused_by_name(options):
  (name,) = options
  with pytest.raises(errors.ConfigError, match=f"adafactor: {name}="):
    adafactor(0.1, **options)


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), -0.1, "0.1"])
def test_a_constant_rate_that_cannot_be_is_refused(rate):
  with pytest.raises(errors.ConfigError, match="learning_rate="):
    adafactor(rate)


def test_bfloat16_parameters_are_updated_in_float32_arithmetic():
  params = {SCALE: jnp.asarray(np.linspace(1, 2, 7), jnp.bfloat16)}
  gradient = {SCALE: jnp.asarray(parameters(1)[SCALE], jnp.bfloat16)}
  got, state = run(adafactor(0.1), params, [gradient])
  assert got[SCALE].dtype == jnp.bfloat16 and state.v[SCALE].dtype == jnp.float32
  wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, gradient))
  expected, _ = run(adafactor(0.1), wide[0], [wide[1]])
  np.testing.assert_array_equal(got[SCALE], expected[SCALE].astype(jnp.bfloat16))


def test_parameters_of_unknown_layout_are_refused():
  with pytest.raises(errors.ConfigError, match="'conv/kernel' of shape"):
    adafactor(0.1).init({"conv/kernel": jnp.zeros((3, 4, 5))})


def test_state_has_the_structure_of_a_module_state():
  class Model(nnx.Module):
    def __init__(self):
      self.kernel = nnx.Param(jnp.ones((3, 4)))

  _, state = nnx.split(Model())
  optimizer = adafactor(0.1)
  updates, opt_state = optimizer.update(state, optimizer.init(state), state)
  assert list(paths.named_leaves(updates)) == ["kernel"]
  assert list(paths.named_leaves(opt_state)) == [
    "count", "m/kernel", "v/kernel", "v_row/kernel", "v_col/kernel",
  ]  # fmt: skip


@pytest.mark.parametrize("checkpoint", ["t5_1_1_tiny", "prompt_t5_1_1_tiny"])
def test_state_has_the_shapes_that_t5x_stores(shared_data, checkpoint):
  stored = dict(np.load(shared_data / "t5x_checkpoint" / checkpoint / "expected_state.npz"))
  params, moments = _of_t5x(stored)
  state = adafactor(0.1).init({name: params[name] for name in moments})
  assert len(moments) == (1 if checkpoint.startswith("prompt") else 38)
  for name, fields in moments.items():
    for field, value in fields.items():
      assert getattr(state, field)[name].shape == value.shape, (name, field)
  if checkpoint == "t5_1_1_tiny":
    assert sum(fields["v_row"].shape != (1,) for fields in moments.values()) == 11


def test_a_step_from_t5x_stored_state_equals_plain_numpy(shared_data):
  """T5X's state, with its moments and its step of 1,234,567, is taken over and goes on."""
  stored = dict(np.load(shared_data / "t5x_checkpoint/t5_1_1_tiny/expected_state.npz"))
  params, moments = _of_t5x(stored)
  gradient = parameters(5, {name: value.shape for name, value in params.items()})
  optimizer = adafactor(0.01)
  state = optimizer.init(params)._replace(
    count=jnp.asarray(stored["state/step"]),
    **{field: {name: moments[name][field] for name in params} for field in ("v", "v_row", "v_col")},
  )
  updates, state = jax.jit(optimizer.update)(gradient, state, params)
  assert int(state.count) == 1234568
  for name in params:
    fields = moments[name]
    is_factored = fields["v_row"].shape != (1,)
    if is_factored:
      expected = _factored_step(
        params[name], gradient[name], fields["v_row"], fields["v_col"], rate=0.01
      )
    else:
      reference = PlainAdafactor(False, 0.01)
      reference.step = 1234567
      reference.second = fields["v"].astype(np.float64)
      value = params[name].astype(np.float64)
      expected = reference(value, gradient[name].astype(np.float64)) - value
    np.testing.assert_allclose(updates[name], expected, rtol=1e-4, atol=1e-8, err_msg=name)


def _factored_step(parameter, gradient, row_means, column_means, *, rate):
  """The change of a parameter at T5X's step 1,234,567, rows being the smaller dimension.

  The stored moments are random numbers, whose rows and columns disagree about the total; T5X
  divides by the mean of the rows.
  """
  transposed = parameter.shape[0] > parameter.shape[1]
  if transposed:
    parameter, gradient = parameter.T, gradient.T
  keep = decay_of(1234568, 0.8)
  square = gradient.astype(np.float64) ** 2 + 1e-30
  rows = keep * row_means.astype(np.float64) + (1 - keep) * square.mean(axis=1)
  columns = keep * column_means.astype(np.float64) + (1 - keep) * square.mean(axis=0)
  update = gradient / np.sqrt(np.outer(rows, columns) / rows.mean())
  update /= max(1.0, rms(update))
  change = -rate * max(rms(parameter), 1e-3) * update
  return change.T if transposed else change


def _of_t5x(stored):
  """(parameters by name, {name: {m, v, v_row, v_col}}) of a stored T5X state."""
  moments = {}
  for path, value in stored.items():
    if path.startswith("state/param_states/"):
      name, field = path.removeprefix("state/param_states/").rsplit("/", 1)
      moments.setdefault(name, {})[field] = value
  params = {
    path.removeprefix("target/"): value for path, value in stored.items() if "target/" in path
  }
  return params, moments
