"""Few training examples, chosen in five ways: the low-data settings of Li & Liang (2021), 6.3.

    TASK_SPLITS = {'train': 'train_100_0', 'select': 'dev_100_0'}

'train_100_0' is the first of five subsamples of 100 examples of 'train', 'dev_100_0' the 30 further ones that
choose hyperparameters and stop early.  Which examples they are follows from their texts and the number of the
subsample alone, not from the order of reading; no input is in both.  A smaller subsample is part of the larger
ones of its number.  The paper's own subsamples were not published.
"""

import dataclasses
import hashlib
import heapq
import re
from collections.abc import Iterable
from typing import Literal

from promot_jax import errors

RECIPE_VALUES = ("splits",)

SIZES = (50, 100, 200, 500)
SUBSAMPLES = 5
DEVELOPMENT = 0.3
"""Of the size of the training examples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subsample:
  """Some examples of 'train'.

  part: those that train, or those that choose.
  size: of the former.
  number: from 0 to SUBSAMPLES - 1.
  """

  part: Literal["train", "dev"]
  size: int
  number: int

  @property
  def name(self) -> str:
    """The split's."""
    return f"{self.part}_{self.size}_{self.number}"

  @property
  def count(self) -> int:
    """Of examples."""
    return self.size if self.part == "train" else round(DEVELOPMENT * self.size)


NAMES = tuple(
  Subsample(part=part, size=size, number=number).name
  for size in SIZES
  for number in range(SUBSAMPLES)
  for part in ("train", "dev")
)


def splits(*, size: int, number: int) -> dict[str, str]:
  """`TASK_SPLITS` of one subsample: what trains, and what chooses.

  Args:
    size: of the training examples, of `SIZES`.
    number: of the subsample.

  Raises:
    ConfigError: there is no such subsample.
  """
  both = [Subsample(part=part, size=size, number=number).name for part in ("train", "dev")]
  if both[0] not in NAMES:
    raise errors.ConfigError(
      f"there is no subsample {number!r} of {size!r} training examples: sizes are"
      f" {', '.join(map(str, SIZES))}, subsamples 0 to {SUBSAMPLES - 1}."
    )
  return {"train": both[0], "select": both[1]}


def of(split: str) -> Subsample | None:
  """The subsample that a split is; None of any other."""
  found = re.fullmatch(r"(train|dev)_(\d+)_(\d)", split)
  # Names that look like it and are no size of the paper belong to somebody else's splits.
  if found is None or split not in NAMES:
    return None
  return Subsample(part=found[1], size=int(found[2]), number=int(found[3]))  # type: ignore[arg-type]


def choose(subsample: Subsample, texts: Iterable[tuple[str, str]], *, what: str) -> list[int]:
  """Numbers of the examples of a subsample, in rising order.

  Args:
    texts: input and target of every training example; of two that are equal the first counts.
    what: the task, for messages.

  Raises:
    DataError: there are too few.
  """
  development = round(DEVELOPMENT * max(SIZES))
  wanted = 4 * (
    max(SIZES) + development
  )  # more than both parts, since equal inputs are passed over
  # Without a target nothing is learnt from it.
  ranked = (
    (_rank(subsample.number, *pair), number, pair) for number, pair in enumerate(texts) if pair[1]
  )
  chosen: dict[tuple[str, str], int] = {}  # by rank
  # Only as many are kept as can be needed: the splits have hundreds of thousands.
  for _, number, pair in heapq.nsmallest(wanted, ranked):
    chosen.setdefault(pair, number)
  order = list(chosen)
  train = order[: subsample.size]
  seen = {text for text, _ in train}
  # By input: two references of one entry must not stand on both sides.
  rest = [pair for pair in order[subsample.size :] if pair[0] not in seen]
  found = train if subsample.part == "train" else rest[: subsample.count]
  if len(found) < subsample.count:
    raise errors.DataError(
      f"{what}: 'train' has too few different examples for split '{subsample.name}', which has"
      f" {subsample.count}: {len(order)} in all. Take a smaller one, of {', '.join(map(str, SIZES))}."
    )
  # In the order of reading, in which they will be taken out.
  return sorted(chosen[pair] for pair in found)


def _rank(number: int, text: str, target: str) -> str:
  # By the number too: five subsamples differ.
  return hashlib.blake2b(f"low data {number}:{text}\0{target}".encode(), digest_size=8).hexdigest()
