"""What a model gave for the examples of a task, for metrics that look at more than texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOutputs:
  """One entry for each example, in their order.

  A metric with `reads_outputs` is called with one of these behind targets and predictions.  One that also
  `needs_likelihoods` looks at them and at no prediction; where all of a task's do, nothing is generated.

  records: of the examples.
  tokens: of the outputs, without what ends them; empty where nothing was generated.
  scores: of the outputs, as the decoding strategy counts them.
  likelihoods: log p of the targets, all their tokens together; empty where no metric needs them.
  """

  records: Sequence[Mapping[str, Any]]
  tokens: Sequence[Sequence[int]]
  scores: Sequence[float]
  likelihoods: Sequence[float] = ()


def reads(metric: Any) -> bool:
  """Whether a metric is called with them."""
  return bool(getattr(metric, "reads_outputs", False))


def needs_likelihoods(metric: Any) -> bool:
  """Whether a metric is made of the targets' log-probabilities."""
  return bool(getattr(metric, "needs_likelihoods", False))
