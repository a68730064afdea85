"""Texts that occur twice: inside of a split, and in two splits, where a score means less than it says.

Two texts are the same if they are after Unicode's compatibility form, without case and with one blank
for any white space: copies by hand differ in these.
"""

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated:
  """What occurs more than once in one list of inputs.

  extra: examples that an earlier one repeats.
  contradicting: those of them whose target is not the first one's.
  first: places of the first pair, and of the first pair with two targets; None where there is none.
  """

  extra: int = 0
  contradicting: int = 0
  first: tuple[int, int] | None = None
  first_contradicting: tuple[int, int] | None = None


def folded(text: str) -> str:
  """What two texts that count as the same have in common."""
  # 'ﬁ' is 'fi', a wide letter a narrow one, a no-break space a blank: what editors put in by
  # themselves.
  return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def repeated(inputs: Sequence[str], targets: Sequence[str]) -> Repeated:
  """How often an input occurs again, and how often with another target."""
  seen: dict[str, int] = {}
  pairs, contradicting = [], []
  for place, (text, target) in enumerate(zip(inputs, targets, strict=True)):
    # The first place of a text stays, so that each further one is shown beside it.
    before = seen.setdefault(folded(text), place)
    if before != place:
      pairs.append((before, place))
      # Folded as well: 'Yes' and 'yes' contradict nobody.
      if folded(targets[before]) != folded(target):
        contradicting.append((before, place))
  return Repeated(
    extra=len(pairs),
    contradicting=len(contradicting),
    first=pairs[0] if pairs else None,
    first_contradicting=contradicting[0] if contradicting else None,
  )


def shared(ours: Sequence[str], others: Sequence[str]) -> list[tuple[int, int]]:
  """(place among ours, the first place among others) of every input of ours that others have too."""
  # Backwards, so that of several equal texts the first one's place remains.
  places: Mapping[str, int] = {folded(text): n for n, text in reversed(list(enumerate(others)))}
  return [(n, places[key]) for n, text in enumerate(ours) if (key := folded(text)) in places]
