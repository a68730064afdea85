"""Which rows of one file validate and which train: by a share, the same in every process.

Inputs that are the same text (`duplicates.folded`) stay on one side.  Of each label the same share is
taken, so that a rare one is on both sides where it can be.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from promot_jax.data import duplicates
from promot_jax.errors import ConfigError


def validation(
  inputs: Sequence[str], labels: Sequence[str], *, share: float, seed: int
) -> list[int]:
  """Places of the rows that validate, ascending.

  Args:
    labels: of each row; all alike where there are none.
    share: of the different inputs of each label, rounded; but one at least of two or more.
    seed: which; a row that is added changes the place of few others.
  """
  # Equal texts together: one that validates would otherwise be in training as well.
  groups: dict[str, list[int]] = {}
  for place, text in enumerate(inputs):
    groups.setdefault(duplicates.folded(text), []).append(place)
  by_label: dict[str, list[str]] = {}
  for text, places in groups.items():
    # The first row's label decides where equal inputs contradict each other.
    by_label.setdefault(labels[places[0]], []).append(text)
  chosen = []
  for texts in by_label.values():
    # By a digest of the text: rows may be added or reordered, and each stays where it is.
    texts.sort(key=lambda text: hashlib.blake2b(f"{seed}:{text}".encode()).digest())
    count = round(share * len(texts))
    if len(texts) > 1:
      # One of each label on both sides, where there are two.
      count = min(max(count, 1), len(texts) - 1)
    chosen += [place for text in texts[:count] for place in groups[text]]
  return sorted(chosen)


def check_share(share: Any) -> None:
  """Raises ConfigError where it is no share of rows."""
  # True is 1 in Python, and no share.
  if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
    raise ConfigError(
      f"VALIDATION_SHARE={share!r} must be between 0 and 1, as 0.2 for a fifth of the rows."
    )
