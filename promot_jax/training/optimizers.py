"""Optimizers with one calling form: f(learning_rate, **options) -> optax.GradientTransformation.

`learning_rate` is a schedule (function of the update count) or a constant, so that a stage's
optimizer is a value: `functools.partial(adamw, weight_decay=0.01)`.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from promot_jax import errors, limits, paths
from promot_jax.methods.base import Method
from promot_jax.training.adafactor import adafactor
from promot_jax.training.schedules import Schedule, UntilTheEnd, require_usable
from promot_jax.training.stages import Stage

__all__ = ["Group", "adafactor", "adam", "adamw", "grouped", "prompt_adafactor", "sam", "sgd"]

RECIPE_VALUES = ("Group", "grouped", "adafactor", "prompt_adafactor", "adamw", "adam", "sgd", "sam")


# Norm scales and biases are not decayed.
DECAYED = (".*", "!(.*/)?(scale|bias)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
  """Parameters that have an optimizer of their own.

  Attributes:
    parameters: patterns (see `promot_jax.paths`), matched among the trained parameters; or a method,
      whose own they are.
    optimizer: learning rate -> gradient transformation, such as `adamw`.
    learning_rate: schedule of the update count, or a constant; None: the stage's.
  """

  parameters: paths.Patterns | type[Method] | Method
  optimizer: Callable[..., optax.GradientTransformation]
  learning_rate: Schedule | float | None = None

  def __post_init__(self):
    if not callable(self.optimizer):
      raise errors.ConfigError(
        f"Group.optimizer is {self.optimizer!r}, which is no function; in a gin file write"
        " @optimizers.adamw."
      )
    if isinstance(self.learning_rate, UntilTheEnd):
      raise errors.ConfigError(
        "Group.learning_rate with linear_to_zero needs total_steps: only a stage's own schedule takes the"
        " steps of its stage."
      )
    if self.learning_rate is not None:
      _require_rate("Group", self.learning_rate)

  @property
  def patterns(self) -> paths.Patterns:
    """Those of its parameters."""
    if isinstance(self.parameters, str | Sequence):
      return self.parameters
    return self.parameters.parameters


def grouped(
  learning_rate: Schedule | float, *, groups: Sequence[Group]
) -> optax.GradientTransformation:
  """Each group of parameters with its own optimizer and schedule.

  A parameter belongs to the first group that selects it.  What an optimizer does with all of its
  parameters together, such as clipping of the global norm, it does with its group.

  Args:
    learning_rate: of groups that have none; the one that training reports.
    groups: in order; a last one with '.*' takes the rest.

  Raises:
    ConfigError: there are no groups; or, when the parameters are known, a group selects none that
      is left, or a parameter is in no group.
  """
  groups = tuple(groups)
  if not groups:
    raise errors.ConfigError("grouped has no groups; give at least one optimizers.Group().")
  transforms = {
    f"group_{number}": group.optimizer(
      learning_rate if group.learning_rate is None else group.learning_rate
    )
    for number, group in enumerate(groups)
  }
  # By name: a flat dictionary is a tree from which optax may leave parameters out.
  inner = optax.partition(transforms, lambda named: _group_of(groups, list(named)))

  def init(params: Any) -> Any:
    return inner.init(paths.named_leaves(params))

  def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    named = None if params is None else paths.named_leaves(params)
    updates, state = inner.update(paths.named_leaves(grads), state, named)
    return paths.replace_leaves(grads, updates), state

  return _Grouped(init, update).of(groups)


class _Grouped(optax.GradientTransformation):
  """What `grouped` gives, which still knows its groups."""

  groups: tuple[Group, ...]

  def of(self, groups: tuple[Group, ...]) -> "_Grouped":
    self.groups = groups
    return self


def require_usable_rates(stage: Stage) -> None:
  """Looks at a stage's schedule, and at those of the groups of its optimizer.

  Raises:
    ConfigError: a rate is NaN, infinite or negative at a step of the stage.
  """
  owner = f"stage '{stage.name}'"
  require_usable(stage.learning_rate, steps=stage.steps, owner=owner)
  for number, group in enumerate(getattr(stage.optimizer(stage.learning_rate), "groups", ())):
    if callable(group.learning_rate):
      require_usable(
        group.learning_rate,
        steps=stage.steps,
        owner=f"{owner}, group {number + 1} of the optimizer",
      )


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

  Patterns as in `promot_jax.paths`, except that a '!' pattern may match nothing, or everything: the
  same default serves a whole model, a prompt, and biases alone.

  Raises:
    ConfigError: a number is NaN, infinite or outside of its range.
  """
  _require_adam("adamw", learning_rate, b1, b2, eps, global_norm_clip_threshold)
  limits.require("adamw", least=0, weight_decay=weight_decay)
  return _clipped(
    optax.adamw(
      learning_rate,
      b1=b1,
      b2=b2,
      eps=eps,
      weight_decay=weight_decay,
      mask=_mask(decayed),
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
  """Adam without weight decay.

  Raises:
    ConfigError: a number is NaN, infinite or outside of its range.
  """
  _require_adam("adam", learning_rate, b1, b2, eps, global_norm_clip_threshold)
  return _clipped(optax.adam(learning_rate, b1=b1, b2=b2, eps=eps), global_norm_clip_threshold)


def sgd(
  learning_rate: Schedule | float,
  *,
  momentum: float | None = None,
  nesterov: bool = False,
  global_norm_clip_threshold: float | None = None,
) -> optax.GradientTransformation:
  """Stochastic gradient descent.

  Raises:
    ConfigError: a number is NaN, infinite or outside of its range.
  """
  _require_rate("sgd", learning_rate)
  limits.require("sgd", least=0, below=1, optional=True, momentum=momentum)
  limits.require(
    "sgd", above=0, optional=True, global_norm_clip_threshold=global_norm_clip_threshold
  )
  return _clipped(
    optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov), global_norm_clip_threshold
  )


def sam(
  learning_rate: Schedule | float,
  *,
  optimizer: Callable[..., optax.GradientTransformation],
  radius: float = 0.05,
) -> optax.GradientTransformation:
  """Sharpness-aware minimization: `optimizer` is given the gradient at the worst point of a small ball.

  That point is theta + radius * g / ||g||, g the gradient of the whole batch, so that neither microbatches nor
  devices change it.  Each step computes two gradients, and its metrics are those at theta.  Foret et al., 2021,
  arXiv:2010.01412, by `optax.contrib.sam`; the paper has plain gradient descent for `optimizer`.

  Args:
    optimizer: learning rate -> gradient transformation, such as `adafactor`.
    radius: of the ball, in the norm over all trained parameters.

  Raises:
    ConfigError: the radius is no number above 0.
  """
  limits.require("sam", above=0, radius=radius)
  ascent = optax.chain(optax.normalize_by_update_norm(eps=1e-12), optax.scale(-radius))
  return optax.contrib.sam(optimizer(learning_rate), ascent, opaque_mode=True)


def _require_rate(owner: str, learning_rate: Schedule | float) -> None:
  if not callable(learning_rate):
    limits.require(owner, least=0, learning_rate=learning_rate)


def _require_adam(
  owner: str,
  learning_rate: Schedule | float,
  b1: float,
  b2: float,
  eps: float,
  threshold: float | None,
) -> None:
  _require_rate(owner, learning_rate)
  limits.require(owner, least=0, below=1, b1=b1, b2=b2)
  limits.require(owner, least=0, eps=eps)
  limits.require(owner, above=0, optional=True, global_norm_clip_threshold=threshold)


def _clipped(
  optimizer: optax.GradientTransformation, threshold: float | None
) -> optax.GradientTransformation:
  """The optimizer behind clipping of the global gradient norm."""
  if threshold is None:
    return optimizer
  # Clipped before the moments see them, or one large gradient would stay in them for long.
  return optax.chain(optax.clip_by_global_norm(threshold), optimizer)


def _group_of(groups: Sequence[Group], names: Sequence[str]) -> dict[str, str]:
  """Name of a parameter -> label of its group."""
  labels: dict[str, str] = {}
  for number, group in enumerate(groups):
    chosen = [name for name in paths.match(group.patterns, names) if name not in labels]
    if not chosen:
      raise errors.ConfigError(
        f"Group {number + 1} of the optimizer ({group.patterns!r}) selects only parameters of"
        " earlier groups; put it before them."
      )
    labels |= dict.fromkeys(chosen, f"group_{number}")
  if missing := [name for name in names if name not in labels]:
    raise errors.ConfigError(
      f"{len(missing)} trained parameters are in no group of the optimizer, '{missing[0]}' among"
      " them; add a last group with the pattern '.*'."
    )
  return {name: labels[name] for name in names}


def _mask(patterns: Sequence[str]) -> Callable[[Any], Any]:
  """Function of parameters that gives a tree of booleans: which of them the patterns select.

  Patterns are matched once for each structure of parameters, though every shape of a batch traces the
  update anew.  The function raises PathError where a plain pattern matches nothing.
  """
  patterns = [patterns] if isinstance(patterns, str) else list(patterns)
  # Not `paths.match` alone: it refuses a '!' that matches nothing, as DECAYED's does for a prompt.
  plain = [pattern for pattern in patterns if not pattern.startswith("!")]
  excluded = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
  known: dict[Any, list[bool]] = {}

  def selected(names: Sequence[str]) -> list[bool]:
    chosen = {
      name
      for name in (paths.match(plain, names) if plain else names)
      if not any(re.fullmatch(pattern, name) for pattern in excluded)
    }
    return [name in chosen for name in names]

  def mask(params: Any) -> Any:
    structure = jax.tree.structure(params)
    if structure not in known:
      known[structure] = selected(list(paths.named_leaves(params)))
    return jax.tree.unflatten(structure, known[structure])

  return mask
