"""Which steps of a run survive, and which one is the best."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

Value = TypeVar("Value", int, float)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keep:
  """Which steps survive.  The newest and the best one always do.

  Attributes:
    last: number of newest steps to keep; None keeps all.
    mode: whether the highest ('max') or the lowest ('min') score is the best.
    small_bytes: steps of at most this size are never deleted (a prompt's whole history costs
      nothing); 0 makes no exception.
  """

  last: int | None = 3
  mode: Literal["max", "min"] = "max"
  small_bytes: int = 8 * 2**20


def best(scores: Mapping[Value, float], mode: str) -> Value | None:
  """What has the best score, the smallest on ties; None where there is no score.

  Steps are such values, of which the earliest cost the least, and so are settings that are chosen between.
  """
  # One order for both modes.
  sign = 1.0 if mode == "max" else -1.0
  return max(scores, key=lambda value: (sign * scores[value], -value), default=None)


def doomed(
  keep: Keep, steps: Sequence[int], *, best: int | None, size: Callable[[int], int]
) -> list[int]:
  """Steps that the policy gives up.

  Args:
    keep: the policy.
    steps: all complete steps, ascending.
    best: the best step.
    size: bytes of a step.
  """
  if keep.last is None:
    return []
  # At least the newest, whatever `last` says: a run could not go on without it.
  protected = {*steps[-max(1, keep.last) :], best}
  return [step for step in steps if step not in protected and size(step) > keep.small_bytes]
