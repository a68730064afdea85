"""A setting that one run chooses between candidates by their scores on the selection split, with their intervals.

Shares of an ensemble are such candidates.  Between runs that were trained with several values a report chooses
(`evaluation.points`).
"""

import dataclasses
import math
from collections.abc import Sequence

from promot_jax.checkpoints import policy
from promot_jax.errors import ConfigError
from promot_jax.evaluation import uncertainty
from promot_jax.evaluation.records import TaskResult
from promot_jax.metrics.registry import scale_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
  """A value and what it gave on the selection split.

  low, high: of the 95 % interval over the examples; None where it is not known.
  """

  value: float
  score: float
  low: float | None = None
  high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
  """The value that is used, and why, as one line."""

  value: float
  why: str
  candidates: Sequence[Candidate]


def candidate(value: float, results: Sequence[TaskResult]) -> Candidate:
  """The candidate that was measured on some tasks: the mean of their headline scores."""
  scores = [result.scores[result.metric] for result in results]
  interval = uncertainty.of_mean(scores, [uncertainty.of_result(each) for each in results])
  low, high = interval or (None, None)
  return Candidate(value=value, score=math.fsum(scores) / len(scores), low=low, high=high)


def choose(candidates: Sequence[Candidate], *, what: str, metrics: Sequence[str]) -> Choice:
  """The candidate with the best score, the smallest value on ties.

  Args:
    candidates: at least one.
    what: the setting, for the reason.
    metrics: of which the scores are means; they say whether higher is better.

  Raises:
    ConfigError: higher is better of some metrics only, or a score is not finite.
  """
  higher = {scale_of(metric).higher_is_better for metric in metrics}
  if len(higher) > 1:
    raise ConfigError(
      f"{what} cannot be chosen by the mean of {', '.join(metrics)}: of some of them lower is better."
    )
  scores = {each.value: each.score for each in candidates}
  if broken := [value for value, score in scores.items() if not math.isfinite(score)]:
    raise ConfigError(
      f"{what} {broken[0]:g} has the score {scores[broken[0]]} on the selection split, so none can be"
      " chosen."
    )
  mode = "max" if higher == {True} else "min"
  best = policy.best(scores, mode)
  assert best is not None  # there is a candidate
  ties = sorted(value for value, score in scores.items() if score == scores[best])
  tied = f"; {', '.join(f'{value:g}' for value in ties)} tie and the smallest is taken"
  names = " and ".join(dict.fromkeys(metrics))
  why = (
    f"{what} {best:g} is used, the {mode}imum of {names} on the selection split, {scores[best]:.6g}, over"
    f" {len(scores)} values{tied * (len(ties) > 1)}"
  )
  return Choice(value=best, why=why, candidates=tuple(candidates))
