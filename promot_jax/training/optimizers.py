"""Optimizers with one calling form: f(learning_rate, **options) -> optax.GradientTransformation.

`learning_rate` is a schedule (function of the update count) or a constant, so that a stage's
optimizer is a value: `functools.partial(adamw, weight_decay=0.01)`.
"""

import re
from collections.abc import Sequence
from typing import Any

import optax

from promot_jax import paths
from promot_jax.training.adafactor import adafactor
from promot_jax.training.schedules import Schedule

__all__ = ["adafactor", "adam", "adamw", "prompt_adafactor", "sgd"]

# Norm scales and biases are not decayed.
DECAYED = (".*", "!(.*/)?(scale|bias)")


def prompt_adafactor(
  learning_rate: Schedule | float,
  *,
  multiply_by_parameter_scale: bool = False,
  weight_decay_rate: float = 1e-5,
  decay_rate: float = 0.8,
  **options: Any,
) -> optax.GradientTransformation:
  """Adafactor as T5X's prompt tuning sets it: absolute step size, small decay (arXiv:2104.08691)."""
  return adafactor(
    learning_rate,
    multiply_by_parameter_scale=multiply_by_parameter_scale,
    weight_decay_rate=weight_decay_rate,
    decay_rate=decay_rate,
    **options,
  )


def adamw(
  learning_rate: Schedule | float,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.01,
  decayed: Sequence[str] = DECAYED,
  global_norm_clip_threshold: float | None = None,
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay (multiplied by the rate) on the parameters named `decayed`.

  Patterns as in `promot_jax.paths`, except that a '!' pattern may match nothing: the same default
  serves a whole model and a prompt.
  """
  return _clipped(
    optax.adamw(
      learning_rate,
      b1=b1,
      b2=b2,
      eps=eps,
      weight_decay=weight_decay,
      mask=lambda params: _mask(decayed, params),
    ),
    global_norm_clip_threshold,
  )


def adam(
  learning_rate: Schedule | float,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  global_norm_clip_threshold: float | None = None,
) -> optax.GradientTransformation:
  """Adam without weight decay."""
  return _clipped(optax.adam(learning_rate, b1=b1, b2=b2, eps=eps), global_norm_clip_threshold)


def sgd(
  learning_rate: Schedule | float,
  *,
  momentum: float | None = None,
  nesterov: bool = False,
  global_norm_clip_threshold: float | None = None,
) -> optax.GradientTransformation:
  """Stochastic gradient descent."""
  return _clipped(
    optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov), global_norm_clip_threshold
  )


def _clipped(
  optimizer: optax.GradientTransformation, threshold: float | None
) -> optax.GradientTransformation:
  """The optimizer behind clipping of the global gradient norm."""
  if threshold is None:
    return optimizer
  return optax.chain(optax.clip_by_global_norm(threshold), optimizer)


def _mask(patterns: Sequence[str], params: Any) -> Any:
  """Tree of booleans: which parameters the patterns select.

  Raises:
    PathError: a plain pattern matches nothing.
  """
  patterns = [patterns] if isinstance(patterns, str) else list(patterns)
  names = list(paths.named_leaves(params))
  present = [
    pattern
    for pattern in patterns
    if not pattern.startswith("!") or any(re.fullmatch(pattern[1:], name) for name in names)
  ]
  chosen = set(paths.match(present, names)) if present else set(names)
  return paths.replace_leaves(params, {name: name in chosen for name in names})
