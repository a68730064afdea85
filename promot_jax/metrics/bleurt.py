"""BLEURT by its authors' package: a model trained on human ratings (Sellam et al. 2020).

The package is not on the package index and its checkpoints are downloaded by hand; both are free.  Of
several references the best counts.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from promot_jax import errors
from promot_jax.metrics import extras, learned, metric

INSTALL = "'bleurt @ git+https://github.com/google-research/bleurt.git'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bleurt(metric.Mean):
  """Mean BLEURT, times 100; what is usual depends on the checkpoint (BLEURT-20: 0 to 100).

  Args:
    checkpoint: folder of a checkpoint, such as an unpacked BLEURT-20.
    batch_size: pairs scored together.

  Returns `{"bleurt": score}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("bleurt",)
  scale: ClassVar[metric.Scale] = metric.Scale(low=None, high=None)

  checkpoint: str = "BLEURT-20"
  batch_size: int = 16

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    package = extras.library("bleurt.score", of="bleurt", install=INSTALL)
    if not (pathlib.Path(self.checkpoint) / "bleurt_config.json").is_file():
      raise errors.ConfigError(
        f"The metric 'bleurt' found no checkpoint in '{self.checkpoint}' (no bleurt_config.json); "
        "unpack one, such as BLEURT-20 from the list in BLEURT's repository, and name its folder."
      )
    scorer = _scorer(package.BleurtScorer, self.checkpoint)

    def score(pairs: learned.Pairs) -> Sequence[float]:
      references, candidates = map(list, zip(*pairs, strict=True))
      return scorer.score(references=references, candidates=candidates, batch_size=self.batch_size)

    return metric.mean_statistics([list(100.0 * learned.best(targets, predictions, score))])

  @property
  def signature(self) -> str:
    return f"checkpoint:{pathlib.PurePath(self.checkpoint).name}"


bleurt = Bleurt()


@functools.lru_cache(maxsize=1)
def _scorer(make, checkpoint: str):
  return make(checkpoint)
