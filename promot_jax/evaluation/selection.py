"""Choosing among candidates by a score: the checkpoint to keep, or the lambda of an ensemble.

The paper keeps the checkpoint that is best on the tuned task.  Ties go to the earliest candidate:
it has been trained least, and so has forgotten least.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TypeVar

from promot_jax import errors

Candidate = TypeVar("Candidate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
  """The chosen candidate, its score, and one line that says why."""

  candidate: object
  score: float
  why: str


def select(
  scores: Mapping[Candidate, float],
  *,
  metric: str,
  mode: str = "max",
  noun: str = "checkpoint",
) -> Selection:
  """The candidate with the best score; of several equal ones, the first in the mapping's order.

  Args:
    scores: score of each candidate, earliest first; a NaN score never wins.
    metric: what the scores are, for the explanation: `rte accuracy`.
    mode: `max` if higher is better, `min` if lower is.
    noun: what a candidate is, for the explanation.

  Raises:
    ConfigError: an unknown mode.
    DataError: no candidate has a score.
  """
  if mode not in ("max", "min"):
    raise errors.ConfigError(f"Selection mode '{mode}' is unknown; use 'max' or 'min'.")
  scored = {name: float(score) for name, score in scores.items() if not math.isnan(score)}
  if not scored:
    raise errors.DataError(
      f"None of the {len(scores)} {noun}s has a {metric} score to choose by; evaluate them first."
    )
  best = max(scored.values()) if mode == "max" else min(scored.values())
  ties = [name for name, score in scored.items() if score == best]
  word = "highest" if mode == "max" else "lowest"
  tie = f", first of {len(ties)} equal" if len(ties) > 1 else ""
  missing = len(scores) - len(scored)
  unscored = f", {missing} without a score" if missing else ""
  why = f"{noun} {ties[0]}: {word} {metric} {best:.2f} of {len(scored)} {noun}s{tie}{unscored}"
  return Selection(candidate=ties[0], score=best, why=why)
