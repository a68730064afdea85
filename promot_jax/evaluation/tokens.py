"""How many tokens the batches of an evaluation compute beside those that it needs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
  """Positions of batches.

  computed: of all rows, padded and of those that only fill a batch.
  needed: those of texts, and of what was written with its end.
  """

  computed: int = 0
  needed: int = 0

  def __add__(self, other: "Tokens") -> "Tokens":
    return Tokens(computed=self.computed + other.computed, needed=self.needed + other.needed)

  @property
  def ratio(self) -> float | None:
    """Computed ones for each needed one; None before there are any."""
    return self.computed / self.needed if self.needed else None


def read(batch: Mapping[str, Any], *, own: int, targets: bool) -> Tokens:
  """Those that a batch gives to a model.

  Args:
    own: how many rows are examples; they come first.
    targets: whether the model reads them, too.
  """
  given = [np.asarray(batch["encoder_input_mask"])]
  if targets:
    given.append(np.asarray(batch["decoder_loss_weights"]) > 0)
  return Tokens(
    computed=sum(array.size for array in given),
    needed=sum(int(array[:own].sum()) for array in given),
  )


def written(lengths: Sequence[int], *, rows: int, longest: int) -> Tokens:
  """Those that a batch of so many rows writes; a beam search may look further than its longest output.

  Args:
    lengths: of the outputs of examples, without their ends.
    longest: of outputs, ends included.
  """
  steps = [min(length + 1, longest) for length in lengths]
  return Tokens(computed=rows * max(steps), needed=sum(steps))
