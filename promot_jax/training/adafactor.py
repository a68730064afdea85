"""Adafactor (Shazeer and Stern, 2018, arXiv:1804.04235) with T5X's numerics, as an optax transform.

For gradient g of a parameter p at update t = 0, 1, ... (step_offset o, decay_rate c):

  b       = 1 - (t - o + 1)^-c      (t + 1 in place of t - o + 1 while t < o)
  v       = b v + (1 - b) (g^2 + epsilon1)
  u       = g / sqrt(v),   u = u / max(1, rms(u) / clipping_threshold)
  s       = learning_rate * max(rms(p), epsilon2)       (the second factor is optional)
  m       = beta1 m + (1 - beta1) s u                   (optional momentum, takes the place of s u)
  p       = (1 - weight_decay_rate) p - s u

Matrices with both dimensions of at least 128 keep only the row and column means of v:
v = v_row v_col / mean(v_row).  Numerics, option names and the layout of the state follow
google-research/t5x, `t5x/adafactor.py`, so its checkpoints' optimizer state fits.  In T5X the count
never is below the offset, because it includes pretraining; there its formula gives NaN.  Here a stage
counts from 0, and counting from 0 is what T5X's fine-tuning does at its offset.

Where `optax.adafactor` differs: it factors a stacked layer axis like any other dimension, and takes
the rms of p and u over all stacked layers together; its momentum and decay have no lr exponent.
Where this differs from T5X: a stack of layers is exactly what its layers would be one by one (T5X
factors stacked matrices of any size), and prompts are never factored (T5X factors those of 128 or
more vectors).
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from promot_jax import errors, limits, paths

RECIPE_VALUES = ("adafactor",)


# Scanned layers carry a leading layer axis: no list position follows 'layers'.
STACKED = (r"(.*/)?layers/(?!\d+(/|$)).*",)
# Prompts and low-rank updates, also in banks [tasks, P, D] whose rows are separate ones.
PROMPTS = (r"(.*/)?prompt(/.*)?", r"(.*/)?lora/(down|up)")


class AdafactorState(NamedTuple):
  """Optimizer state; each tree has the structure of the parameters.

  count: int32 scalar, updates done.
  m: momentum [shape of the parameter], or [1] without beta1.
  v: second moment [shape of the parameter], or [1] where factored.
  v_row, v_col: means of the second moment over the larger and over the smaller dimension (a
    leading layer axis is kept), or [1] where not factored.
  """

  count: jax.Array  # type: ignore[assignment]  # Optax's name for it hides tuple.count
  m: Any
  v: Any
  v_row: Any
  v_col: Any


class _Layout(NamedTuple):
  """How one parameter is treated: axes that are averaged over, and those that are factored."""

  averaged: tuple[int, ...]
  factored: tuple[int, int] | None
  """(row, column): the smaller dimension, by which v_row is indexed, and the larger."""


class _Options(NamedTuple):
  """The options of `adafactor` that the update of one parameter needs."""

  beta1: float | None
  decay_rate: float
  step_offset: int
  clipping_threshold: float | None
  weight_decay_rate: float | None
  weight_decay_rate_lr_exponent: float | None
  epsilon1: float
  epsilon2: float
  dtype_momentum: Any
  max_parameter_scale: float | None
  skip_nan_updates: bool


def adafactor(
  learning_rate: Callable[[jax.Array], jax.Array] | float,
  *,
  factored: bool = True,
  multiply_by_parameter_scale: bool | Sequence[str] = True,
  beta1: float | None = None,
  decay_rate: float = 0.8,
  step_offset: int = 0,
  clipping_threshold: float | None = 1.0,
  weight_decay_rate: float | None = None,
  weight_decay_rate_lr_exponent: float | None = None,
  min_dim_size_to_factor: int = 128,
  epsilon1: float = 1e-30,
  epsilon2: float = 1e-3,
  dtype_momentum: Any = jnp.float32,
  global_norm_clip_threshold: float | None = None,
  max_parameter_scale: float | None = None,
  skip_nan_updates: bool = False,
  stacked: Sequence[str] = STACKED,
  unfactored: Sequence[str] = PROMPTS,
) -> optax.GradientTransformation:
  """Adafactor with T5X's option names and defaults.

  Args:
    learning_rate: schedule of the update count, or a constant.
    factored: keep row and column means for large matrices.
    multiply_by_parameter_scale: make the rate relative to each parameter's rms; or patterns of
      the parameters for which it is so.
    beta1: momentum; None = none and no memory for it.
    decay_rate: exponent c of the second moment's decay.
    step_offset: update count at which the decay starts anew (fine-tuning a restored state); a
      count that is still below it counts from 0.
    clipping_threshold: largest rms of an update before the rate; None = no clipping.
    weight_decay_rate: share of the parameter removed at each update, not multiplied by the rate.
    weight_decay_rate_lr_exponent: multiplies the decay by learning_rate ** exponent.
    min_dim_size_to_factor: smallest dimension of a factored matrix.
    epsilon1: added to squared gradients.
    epsilon2: smallest parameter scale.
    dtype_momentum: type of m.
    global_norm_clip_threshold: largest global norm of the gradients.
    max_parameter_scale: largest parameter scale.
    skip_nan_updates: keep the old value wherever the new one is NaN.
    stacked: patterns of parameters whose first axis counts layers.
    unfactored: patterns of parameters that are never factored; with three dimensions (a bank of
      prompts) their first axis counts separate parameters.

  Raises:
    ConfigError: a number is NaN, infinite or outside of its range.
  """
  # Settings: a NaN among them would show as a diverging loss that does not name its setting.
  limits.require("adafactor", above=0, decay_rate=decay_rate)
  limits.require("adafactor", least=0, below=1, optional=True, beta1=beta1)
  limits.require("adafactor", least=0, epsilon1=epsilon1, epsilon2=epsilon2)
  limits.require("adafactor", least=0, optional=True, weight_decay_rate=weight_decay_rate)
  limits.require(
    "adafactor", optional=True, weight_decay_rate_lr_exponent=weight_decay_rate_lr_exponent
  )
  limits.require(
    "adafactor",
    above=0,
    optional=True,
    clipping_threshold=clipping_threshold,
    global_norm_clip_threshold=global_norm_clip_threshold,
    max_parameter_scale=max_parameter_scale,
  )
  # Counts: a float such as 1e4 out of a recipe is one too.
  limits.require_whole("adafactor", least=0, step_offset=step_offset)
  limits.require_whole("adafactor", least=1, min_dim_size_to_factor=min_dim_size_to_factor)
  # A schedule cannot be judged without steps: the stage looks at its own (`require_usable`).
  if not callable(learning_rate):
    limits.require("adafactor", least=0, learning_rate=learning_rate)
  options = _Options(
    beta1=beta1,
    decay_rate=decay_rate,
    step_offset=step_offset,
    clipping_threshold=clipping_threshold,
    weight_decay_rate=weight_decay_rate,
    weight_decay_rate_lr_exponent=weight_decay_rate_lr_exponent,
    epsilon1=epsilon1,
    epsilon2=epsilon2,
    dtype_momentum=dtype_momentum,
    max_parameter_scale=max_parameter_scale,
    skip_nan_updates=skip_nan_updates,
  )

  # The transformation: layouts follow from names and shapes alone, so `init` and `update` agree.
  def layout(name: str, shape: Sequence[int]) -> _Layout:
    return _layout(
      name,
      tuple(shape),
      factored=factored,
      min_dim_size=min_dim_size_to_factor,
      stacked=stacked,
      unfactored=unfactored,
    )

  def init(params: Any) -> AdafactorState:
    def zeros(shape, dtype=jnp.float32):
      return jnp.zeros(shape, dtype)

    leaves = {}
    for name, parameter in paths.named_leaves(params).items():
      shape = parameter.shape
      plan = layout(name, shape)
      # T5X's placeholder, so that its checkpoints and ours have the same leaves.
      unused: tuple[int, ...] = (1,)
      if plan.factored is None:
        full_shape, row_shape, column_shape = shape, unused, unused
      else:
        row, column = plan.factored
        full_shape = unused
        row_shape, column_shape = _without(shape, column), _without(shape, row)
      leaves[name] = {
        # Moments are float32 also for bfloat16 parameters, but momentum may be kept smaller.
        "m": zeros(
          (1,) if beta1 is None else shape, jnp.float32 if beta1 is None else dtype_momentum
        ),
        "v": zeros(full_shape),
        "v_row": zeros(row_shape),
        "v_col": zeros(column_shape),
      }
    return AdafactorState(jnp.zeros((), jnp.int32), *_trees(params, leaves))

  def update(grads: Any, state: AdafactorState, params: Any = None):
    # Optax lets `params` be left out; relative step sizes and decay cannot do without them.
    if params is None:
      raise errors.ConfigError(
        "Adafactor needs the parameters: optimizer.update(g, state, params)."
      )
    rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
    named_grads = paths.named_leaves(grads)
    if global_norm_clip_threshold:
      # A norm of 0 divides to infinity, of which the minimum makes 1: no epsilon is needed.
      norm = optax.tree.norm(list(named_grads.values()))
      factor = jnp.minimum(1.0, global_norm_clip_threshold / norm)
      named_grads = {name: grad * factor for name, grad in named_grads.items()}
    old = {field: paths.named_leaves(getattr(state, field)) for field in _FIELDS}
    updates, leaves = {}, {}
    for name, parameter in paths.named_leaves(params).items():
      updates[name], leaves[name] = _update_one(
        named_grads[name],
        {field: old[field][name] for field in _FIELDS},
        parameter,
        count=state.count,
        rate=rate,
        layout=layout(name, parameter.shape),
        relative=_is_relative(multiply_by_parameter_scale, name),
        options=options,
      )
    new_state = AdafactorState(state.count + 1, *_trees(params, leaves))
    return paths.replace_leaves(grads, updates), new_state

  return optax.GradientTransformation(init, update)


_FIELDS = ("m", "v", "v_row", "v_col")


def _update_one(
  grad: jax.Array,
  old: dict[str, jax.Array],
  parameter: jax.Array,
  *,
  count: jax.Array,
  rate: jax.Array | float,
  layout: _Layout,
  relative: bool,
  options: _Options,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(what is added to the parameter, new m, v, v_row, v_col); all arithmetic in float32."""
  # In bfloat16, 1 - decay is soon too small a share for the running means to move.
  grad = grad.astype(jnp.float32)
  parameter = parameter.astype(jnp.float32)
  new = dict(old)
  # A negative base under a broken exponent is NaN, so below the offset the count itself is taken.
  begun = count - options.step_offset
  steps = jnp.where(begun >= 0, begun, count).astype(jnp.float32) + 1.0
  # 0 at the first update: the moment starts as the squared gradient, and needs no bias correction.
  decay = 1.0 - steps**-options.decay_rate
  # Inside of the mean, so that the root below is never of 0.
  squared = grad * grad + options.epsilon1

  # The second moment, and the gradient divided by its root.
  if layout.factored is not None:
    row, column = layout.factored
    new["v_row"] = decay * old["v_row"] + (1.0 - decay) * squared.mean(axis=column)
    new["v_col"] = decay * old["v_col"] + (1.0 - decay) * squared.mean(axis=row)
    # v_row has lost the column's axis: a row axis behind that one has moved up.
    row_in_v_row = row - (column < row)
    # The estimate is never formed at the parameter's size: its root is two factors that broadcast.
    row_factor = (new["v_row"] / new["v_row"].mean(axis=row_in_v_row, keepdims=True)) ** -0.5
    column_factor = new["v_col"] ** -0.5
    step = grad * jnp.expand_dims(row_factor, column) * jnp.expand_dims(column_factor, row)
  else:
    new["v"] = decay * old["v"] + (1.0 - decay) * squared
    step = grad * new["v"] ** -0.5

  # The size of the step: clipped by its own rms, then in proportion to that of the parameter.
  if options.clipping_threshold is not None:
    step /= jnp.maximum(1.0, _rms(step, layout.averaged) / options.clipping_threshold)
  if relative:
    # The floor lets a parameter that starts at 0 move at all.
    scale = jnp.maximum(_rms(parameter, layout.averaged), options.epsilon2)
    if options.max_parameter_scale is not None:
      scale = jnp.minimum(scale, options.max_parameter_scale)
    step *= rate * scale
  else:
    step *= rate
  if options.beta1 is not None:
    # Momentum is of steps that have their rate: a later rate does not change what is in it.
    step = options.beta1 * old["m"] + (1.0 - options.beta1) * step
    new["m"] = step.astype(options.dtype_momentum)

  # Decay comes after momentum and is no part of it, as in T5X.
  decay_share: jax.Array | float | None = options.weight_decay_rate
  # The exponent alone asks for decay too: its share then is a power of the rate.
  if options.weight_decay_rate_lr_exponent:
    decay_share = (decay_share or 1.0) * rate**options.weight_decay_rate_lr_exponent
  change = -step if decay_share is None else -step - decay_share * parameter
  # Entry by entry: a moment that turned NaN once would keep its parameter NaN for good.
  if options.skip_nan_updates:
    change = jnp.where(jnp.isnan(change), 0.0, change)
    new = {field: jnp.where(jnp.isnan(new[field]), old[field], new[field]) for field in new}
  return change, new


def _layout(
  name: str,
  shape: tuple[int, ...],
  *,
  factored: bool,
  min_dim_size: int,
  stacked: Sequence[str],
  unfactored: Sequence[str],
) -> _Layout:
  """Axes of one parameter.

  Raises:
    ConfigError: a parameter with more than two dimensions that no pattern explains.
  """
  # Layers of a stack and prompts of a bank are separate parameters: no mean may cross that axis.
  is_prompt = _matches(unfactored, name)
  separate = 1 if _matches(stacked, name) or (is_prompt and len(shape) == 3) else 0
  averaged = tuple(range(separate, len(shape)))
  if not factored or is_prompt or len(averaged) < 2:
    return _Layout(averaged, None)
  if len(averaged) > 2:
    raise errors.ConfigError(
      f"Adafactor cannot tell rows from columns in '{name}' of shape {shape}; name it in `stacked`"
      " if its first axis counts layers, or in `unfactored`."
    )
  # A stable sort: of equal dimensions the first is the row.
  row, column = (separate + int(axis) for axis in np.argsort(shape[separate:], kind="stable"))
  if shape[row] < min_dim_size:
    return _Layout(averaged, None)
  return _Layout(averaged, (row, column))


def _trees(params: Any, leaves: dict[str, dict[str, jax.Array]]) -> tuple[Any, ...]:
  """m, v, v_row, v_col as trees of the parameters' structure."""
  return tuple(
    paths.replace_leaves(params, {name: leaf[field] for name, leaf in leaves.items()})
    for field in _FIELDS
  )


def _is_relative(choice: bool | Sequence[str], name: str) -> bool:
  return choice if isinstance(choice, bool) else _matches(choice, name)


def _matches(patterns: Sequence[str], name: str) -> bool:
  patterns = [patterns] if isinstance(patterns, str) else patterns
  return any(re.fullmatch(pattern, name) for pattern in patterns)


def _rms(array: jax.Array, axes: tuple[int, ...]) -> jax.Array:
  return jnp.sqrt(jnp.mean(array * array, axis=axes, keepdims=True))


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
  return tuple(shape[:axis]) + tuple(shape[axis + 1 :])
