"""Learning rates as functions of the step, in T5X's language of factors.

'constant * linear_warmup * rsqrt_decay' multiplies three factors.  Names, parameters and values are
T5X's (google-research/t5x, `t5x/utils.py`); `linear_to_zero` is added for the papers that fine-tune
with AdamW and a linear schedule.  The step is the number of updates done before this one.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from promot_jax import errors, limits

_LONGEST = 1_000_000  # steps of a stage of which the largest rate is looked for
_LOOKS = 16  # places of a stage at which a schedule is looked at before it starts

RECIPE_VALUES = ("create_learning_rate_scheduler", "constant", "linear")

Schedule = Callable[[jax.Array | int], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UntilTheEnd:
  """A schedule that ends with its stage, which tells it the number of its steps (`Stage`).

  make: total steps -> schedule.
  total_steps: of the stage; None: not known yet.
  """

  make: Callable[[int], Schedule]
  total_steps: int | None = None

  def until(self, total_steps: int) -> "UntilTheEnd":
    """The same schedule with its end.

    Raises:
      ConfigError: there are fewer steps than the schedule needs.
    """
    # Made once for its checks: too few steps for the warm-up are refused with the stage's settings.
    self.make(max(1, total_steps))
    return dataclasses.replace(self, total_steps=max(1, total_steps))

  def __call__(self, step: jax.Array | int) -> jax.Array:
    if self.total_steps is None:
      raise errors.ConfigError(
        "linear_to_zero does not know where it ends: give total_steps, as only a stage's own schedule"
        " takes the steps of its stage."
      )
    return self.make(self.total_steps)(step)


FACTORS = (
  "constant",
  "linear_warmup",
  "linear_decay",
  "rsqrt_decay",
  "rsqrt_normalized_decay",
  "decay_every",
  "cosine_decay",
  "linear_to_zero",
)


def create_learning_rate_scheduler(
  factors: str = "constant",
  *,
  base_learning_rate: float = 1e-3,
  warmup_steps: int = 1000,
  decay_factor: float = 0.5,
  steps_per_decay: int = 20000,
  steps_per_cycle: int = 100000,
  step_offset: int = 0,
  min_learning_rate: float = 1e-8,
  total_steps: int | None = None,
) -> Schedule:
  """A schedule: step -> float32 learning rate.

  Factors, with n = max(0, step - step_offset), w = warmup_steps and b = base_learning_rate:
    constant                b
    linear_warmup           min(1, n / w)
    linear_decay            b * min(n / w, 1 + decay_factor * (w - n)): holds its own constant and
                            warm-up, so it is used alone
    rsqrt_decay             1 / sqrt(max(n, w))
    rsqrt_normalized_decay  sqrt(w) / sqrt(max(n, w))
    decay_every             decay_factor ** floor(n / steps_per_decay)
    cosine_decay            (1 + cos(pi * frac(max(0, n - w) / steps_per_cycle))) / 2
    linear_to_zero          min(1, (total_steps - n) / (total_steps - w)), w being 0 unless
                            linear_warmup is among the factors

  Args:
    factors: names joined by '*'.
    base_learning_rate: the constant b.
    warmup_steps: w, in steps.
    decay_factor: slope of linear_decay, or ratio of decay_every.
    steps_per_decay: period of decay_every.
    steps_per_cycle: period of cosine_decay.
    step_offset: step at which the schedule begins.
    min_learning_rate: floor of the product, as in T5X never 0 by default.
    total_steps: step at which linear_to_zero ends; None: with the stage whose schedule it is.

  Raises:
    ConfigError: an unknown factor, or a parameter that its factor cannot use.
  """
  settings = dict(locals())  # every argument, to make the schedule again when its end is known
  names = [name.strip() for name in factors.split("*")]
  for name in names:
    if name not in FACTORS:
      raise errors.ConfigError(
        f"Unknown learning-rate factor '{name}' in '{factors}'. Known are: {', '.join(FACTORS)}."
      )
  limits.require(
    "learning rate",
    least=0,
    base_learning_rate=base_learning_rate,
    min_learning_rate=min_learning_rate,
    decay_factor=decay_factor,
  )
  limits.require("learning rate", warmup_steps=warmup_steps, step_offset=step_offset)
  limits.require("learning rate", optional=True, total_steps=total_steps)
  limits.require(
    "learning rate", above=0, steps_per_decay=steps_per_decay, steps_per_cycle=steps_per_cycle
  )
  divides_by_warmup = {"linear_warmup", "linear_decay", "rsqrt_decay", "rsqrt_normalized_decay"}
  if warmup_steps < 1 and divides_by_warmup & set(names):
    raise errors.ConfigError(
      f"warmup_steps={warmup_steps} must be at least 1 for '{factors}'; leave linear_warmup out"
      " to train without warm-up."
    )
  # Without the factor warmup_steps is only T5X's default of 1000, which nobody asked for.
  ramp = warmup_steps if "linear_warmup" in names else 0
  if "linear_to_zero" in names and total_steps is None:
    return UntilTheEnd(
      make=lambda steps: create_learning_rate_scheduler(**{**settings, "total_steps": steps})
    )
  if "linear_to_zero" in names and (total_steps is None or total_steps <= ramp):
    raise errors.ConfigError(
      f"linear_to_zero needs total_steps above the {ramp} warm-up steps, not {total_steps}."
    )

  def schedule(step: jax.Array | int) -> jax.Array:
    # Factors are ratios; float32 holds every step below 16 million exactly.
    step = jnp.maximum(0, jnp.asarray(step) - step_offset).astype(jnp.float32)
    rate = jnp.ones((), jnp.float32)
    for name in names:
      if name == "constant":
        rate *= base_learning_rate
      elif name == "linear_warmup":
        rate *= jnp.minimum(1.0, step / warmup_steps)
      elif name == "linear_decay":
        rate *= base_learning_rate * jnp.minimum(
          step / warmup_steps, 1.0 + decay_factor * (warmup_steps - step)
        )
      elif name == "rsqrt_decay":
        rate /= jnp.sqrt(jnp.maximum(step, warmup_steps))
      elif name == "rsqrt_normalized_decay":
        rate *= math.sqrt(warmup_steps) / jnp.sqrt(jnp.maximum(step, warmup_steps))
      elif name == "decay_every":
        rate *= decay_factor ** (step // steps_per_decay)
      elif name == "cosine_decay":
        cycle = jnp.maximum(0.0, (step - warmup_steps) / steps_per_cycle) % 1.0
        rate *= 0.5 * (1.0 + jnp.cos(jnp.pi * cycle))
      else:  # linear_to_zero
        # Cut at 1 while it warms up, and at 0 behind the end, where the line would go below it.
        rate *= jnp.clip((total_steps - step) / (total_steps - ramp), 0.0, 1.0)
    return jnp.maximum(rate, min_learning_rate)

  return schedule


def require_usable(schedule: Schedule, *, steps: int, owner: str) -> None:
  """Looks at a schedule at some steps of a stage, the first and the last among them.

  Args:
    schedule: also one that is not made here, such as optax's.
    steps: updates of the stage.
    owner: for the message.

  Raises:
    ConfigError: a rate is NaN, infinite or negative.
  """
  # Some steps stand for all: a stage may have millions.
  last = max(0, steps - 1)
  places = {0, 1, *(last * part // _LOOKS for part in range(_LOOKS + 1))}
  looked_at = sorted(step for step in places if step <= last)
  for step, rate in zip(looked_at, jax.vmap(schedule)(jnp.asarray(looked_at, jnp.int32)).tolist()):
    if not (math.isfinite(rate) and rate >= 0):
      raise errors.ConfigError(
        f"{owner}: the learning rate at step {step} is {rate}; it must be a finite number of at"
        " least 0. Look at LEARNING_RATE and at the schedule's settings."
      )


def constant(learning_rate: float) -> Schedule:
  """The same rate at every step."""
  return create_learning_rate_scheduler(
    "constant", base_learning_rate=learning_rate, min_learning_rate=0.0
  )


def linear(
  learning_rate: float, *, total_steps: int | None = None, warmup_steps: int = 0
) -> Schedule:
  """Linear warm-up to `learning_rate`, then linear to 0 at `total_steps` (the 'linear schedule').

  Without `total_steps` it ends with the stage whose schedule it is.
  """
  factors = (
    "constant * linear_warmup * linear_to_zero" if warmup_steps else ("constant * linear_to_zero")
  )
  return create_learning_rate_scheduler(
    factors,
    base_learning_rate=learning_rate,
    warmup_steps=warmup_steps,
    total_steps=total_steps,
    min_learning_rate=0.0,
  )


def largest(schedule: Schedule, *, steps: int) -> float:
  """The largest rate of a stage, by which it is told from others: with a warm-up the first is 0."""
  places = jnp.arange(min(max(steps, 1), _LONGEST))
  return float(jnp.max(jax.vmap(schedule)(places)))
