"""What decides which checkpoint a stage hands on: names of metrics, and functions of them.

A validation gives numbers by name.  One name may decide, or a function of the numbers (a `Stage.metric`),
and a function of all validations may pick the step (a `Stage.select`).
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from promot_jax import errors
from promot_jax.metrics.registry import scale_of

RECIPE_VALUES = ("WeightedSum", "WithinOneStandardError")

LOSS, TOKEN_ACCURACY = "loss", "token_accuracy"
"""Metrics of teacher forcing, which any stage has without decoding; of one task 'TASK/loss'."""
STANDARD_ERROR = "_standard_error"
"""Behind a metric's name: its standard error over the examples."""

Metrics = Mapping[str, float]
Metric = str | Callable[[Metrics], float]
Validations = Sequence[Mapping[str, Any]]
"""One entry a validation: {'step': int, 'score': float, 'metrics': {name: number}}."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightedSum:
  """A `Stage.metric`: the sum of `weights[name] * metric` over the names.

  The highest sum is the best unless the stage's mode is 'min', so a loss takes a negative weight.
  """

  weights: Mapping[str, float]

  def __post_init__(self):
    weights = self.weights
    sound = isinstance(weights, Mapping) and weights and all(map(_is_number, weights.values()))
    if not sound:
      raise errors.ConfigError(
        f"WeightedSum.weights={weights!r} must be numbers by the names of metrics:"
        " {'rouge1': 0.5, 'rouge2': 0.5}."
      )

  def __call__(self, metrics: Metrics) -> float:
    return sum(weight * metrics[name] for name, weight in self.weights.items())

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(self.weights)

  def __str__(self) -> str:
    return " + ".join(f"{weight:g} x {name}" for name, weight in self.weights.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithinOneStandardError:
  """A `Stage.select`: the earliest step within one standard error of the best (Breiman et al., 1984).

  The standard error is that of the best validation, over its examples.

  metric: a decoded metric, such as 'accuracy'.
  mode: whether the highest ('max') or the lowest ('min') value is the best; None: as the metric is.
  """

  metric: str
  mode: Literal["max", "min"] | None = None

  def __post_init__(self):
    if not isinstance(self.metric, str) or is_forced(self.metric):
      raise errors.ConfigError(
        f"WithinOneStandardError.metric={self.metric!r} must name a decoded metric, such as"
        " 'accuracy': others have no standard error."
      )
    require_mode("WithinOneStandardError", self.metric, self.mode)

  def __call__(self, validations: Validations) -> int:
    sign = 1.0 if optimum(self.metric, self.mode) == "max" else -1.0
    values = {entry["step"]: sign * entry["metrics"][self.metric] for entry in validations}
    errors_of = {
      entry["step"]: entry["metrics"][self.metric + STANDARD_ERROR] for entry in validations
    }
    # The earliest of equal ones, as everywhere.
    best = max(values, key=lambda step: (values[step], -step))
    return min(step for step in values if values[step] >= values[best] - errors_of[best])

  @property
  def names(self) -> tuple[str, ...]:
    return (self.metric, self.metric + STANDARD_ERROR)

  def __str__(self) -> str:
    return f"the earliest within one standard error of the best {self.metric}"


def names(*choosers: Any) -> tuple[str, ...] | None:
  """Metrics that names and functions ask for; None where a function does not say (`names`)."""
  found: dict[str, None] = {}
  for chooser in choosers:
    own = (chooser,) if isinstance(chooser, str) else getattr(chooser, "names", None)
    # One that does not say stands for all: everything has to be measured.
    if own is None:
      return None
    found |= dict.fromkeys(own)
  return tuple(found)


def is_forced(name: str) -> bool:
  """Whether a metric comes from teacher forcing, so that nothing needs to be decoded for it."""
  return name.rpartition("/")[2] in (LOSS, TOKEN_ACCURACY)


def falls(metric: Metric) -> bool:
  """Whether the lowest value is the best one by nature: of a loss, and of errors such as TER."""
  name = metric.rpartition("/")[2] if isinstance(metric, str) else ""
  return name == LOSS or not scale_of(name).higher_is_better


def optimum(metric: Metric, mode: str | None) -> Literal["max", "min"]:
  """Which value of a metric is the best: of a loss or an error the lowest, else the highest."""
  return "min" if (mode or ("min" if falls(metric) else "max")) == "min" else "max"


def require_mode(owner: str, metric: Metric, mode: Any, *, known: Iterable[str] = ()) -> None:
  """Refuses a mode that would take the worst checkpoint for the best.

  Args:
    owner: for the message.
    known: further metrics of which the highest value is the best.

  Raises:
    ConfigError: it is none, or the wrong one for a metric that is known.
  """
  if mode not in ("max", "min", None):
    raise errors.ConfigError(
      f"{owner}: mode={mode!r} must be 'max', 'min', or None to follow the metric."
    )
  # Of a name that is not known either direction may be right.
  rising = isinstance(metric, str) and (metric in known or is_forced(metric))
  wrong = mode == "max" if falls(metric) else mode == "min" and rising
  if wrong:
    raise errors.ConfigError(
      f"{owner}: mode='{mode}' would take the worst '{metric}' for the best; leave mode out, and it"
      " follows the metric."
    )


def describe(chooser: Any) -> str:
  """A name or function for messages and records, the same in every process."""
  text = str(chooser)
  # An address would differ in each process, and a record by it could not be compared.
  return text if " at 0x" not in text else getattr(chooser, "__qualname__", type(chooser).__name__)


def unknown(name: str, given: Sequence[str]) -> str:
  """'gives no 'acuracy' but accuracy, loss. Did you mean 'accuracy'?'."""
  near = difflib.get_close_matches(name, given, 1, cutoff=0.6)
  hint = f" Did you mean '{near[0]}'?" if near else ""
  return f"gives no '{name}' but {', '.join(given) or 'nothing'}.{hint}"


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
