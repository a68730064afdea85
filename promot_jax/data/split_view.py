"""What somebody who brings data should see of it first: labels, lengths, copies, and what two splits share."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax.data import duplicates

_MOST = 20  # different targets that are counted one by one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
  """The texts of a split, without demonstrations.

  where: each example's place, for a person: 'train.tsv:7'.
  """

  where: Sequence[str]
  inputs: Sequence[str]
  targets: Sequence[str]


def targets_line(texts: Texts) -> str:
  """How often each target occurs, or how many there are."""
  counts = collections.Counter(texts.targets)
  # Of free texts nearly all are different, and a list of them tells nothing.
  if len(counts) > _MOST or len(counts) == len(texts.targets) > 2:
    return f"{len(counts)} different ones"
  return ", ".join(f"{target!r} {count}" for target, count in counts.most_common())


def lengths_line(lengths: Sequence[int], limit: int | None) -> str:
  """Smallest, middle and largest number of tokens, and how many are cut."""
  low, middle, high = np.percentile(lengths, [0, 50, 100]).astype(int)
  cut = sum(length > limit for length in lengths) if limit else 0
  # What is cut is worth saying; else only how much would fit.
  more = f", {cut} longer than {limit} and cut" if cut else f" (at most {limit})" if limit else ""
  span = f"{low} to {high} tokens, {middle} in the middle" if low < high else f"{low} tokens"
  return span + more


def copies_line(texts: Texts) -> str:
  """Repeated inputs, and those with two targets; case and white space do not count."""
  found = duplicates.repeated(texts.inputs, texts.targets)
  if not found.extra:
    return "none"
  assert found.first is not None
  line = f"{found.extra} ({_pair(texts, texts, found.first)})"
  if found.first_contradicting is not None:
    pair = found.first_contradicting
    both = " and ".join(repr(texts.targets[place]) for place in pair)
    line += (
      f"; {found.contradicting} of them with another target ({_pair(texts, texts, pair)}: {both})"
    )
  return line


def shared_line(ours: Texts, others: Texts) -> str:
  """Inputs of one split that another has, too: what is right there may be remembered."""
  found = duplicates.shared(ours.inputs, others.inputs)
  if not found:
    return "none"
  share = 100 * len(found) / len(ours.inputs)
  return f"{len(found)} of {len(ours.inputs)} ({share:.1f} %; {_pair(ours, others, found[0])})"


def as_json(texts: Texts, others: Mapping[str, Texts]) -> dict[str, Any]:
  """The same as numbers."""
  repeated = duplicates.repeated(texts.inputs, texts.targets)
  return {
    "examples": len(texts.inputs),
    "targets": dict(collections.Counter(texts.targets).most_common(_MOST)),
    "repeated": repeated.extra,
    "contradicting": repeated.contradicting,
    "shared": {
      name: len(duplicates.shared(texts.inputs, other.inputs)) for name, other in others.items()
    },
  }


def _pair(ours: Texts, others: Texts, places: tuple[int, int]) -> str:
  return f"{ours.where[places[0]]} and {others.where[places[1]]}"
