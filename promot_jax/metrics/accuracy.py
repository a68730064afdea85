"""Label accuracy: the share of predictions that are the target label.

Predictions are compared after post-processing, which for True/False tasks keeps the first output
word only (see `postprocess.py`).  Comparison is exact, capital letters included: the paper's models
are trained to write the label, and an output in other words is not in the task's format.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from promot_jax.metrics import metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy(metric.Mean):
  """Percentage of predictions that equal their target label, surrounding spaces aside.

  A target may also be a sequence of labels, any of which counts.  Returns `{"accuracy": score}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("accuracy",)

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    hits = [
      100.0 * any(str(prediction).strip() == label.strip() for label in metric.references(target))
      for target, prediction in zip(targets, predictions, strict=True)
    ]
    return metric.mean_statistics([hits])


accuracy = Accuracy()
