"""How methods look in plots: a color and, for those who cannot see it or print without it, a shape.

A method keeps its color in every plot.  No two methods of one plot share a shape, as long as there are
shapes.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Mark(NamedTuple):
  """A color, one of matplotlib's markers, and whether it is filled."""

  color: str
  shape: str
  filled: bool = True

  @property
  def style(self) -> dict[str, Any]:
    """Arguments of matplotlib's `plot`."""
    return {
      "color": self.color,
      "marker": self.shape,
      "markerfacecolor": self.color if self.filled else "white",
      "markeredgecolor": self.color,
    }


# Okabe and Ito's palette, which color-blind readers can tell apart.
_KNOWN: Mapping[str, tuple[str, str]] = {
  "pretrained": ("#7a7a7a", "s"),
  "fine_tuning": ("#d55e00", "X"),
  "promot": ("#0072b2", "o"),
  "promot_1shot": ("#56b4e9", "P"),
  "prompt_tuning": ("#009e73", "^"),
  "prompt_tuning_1shot": ("#7fcfb5", "v"),
  "joint": ("#cc79a7", "D"),
  "fine_tuning_1shot": ("#e69f00", "*"),
  "random_prompt": ("#8c564b", "p"),
}
_OTHERS = ("#4c4c9d", "#a3a500", "#b07aa1", "#444444")
_SHAPES = ("h", "<", ">", "d", "8", "H", "s", "o", "^", "v", "D", "X", "P", "p", "*")


def of_methods(methods: Iterable[str]) -> dict[str, Mark]:
  """A mark for each method: known ones have their own, the others take shapes that are free."""
  methods = list(methods)
  known: dict[str, str] = {}
  for method in methods:
    # The multi-task version of a method that is there itself looks for a free one.
    if (shape := _shape(method)) and shape not in known.values():
      known[method] = shape
  # Hollow ones last: they are as different, and harder to see.
  every = [(shape, filled) for filled in (True, False) for shape in _SHAPES]
  taken = {(shape, True) for shape in known.values()}
  free = iter([each for each in every if each not in taken] or every)
  marks = {}
  for method in methods:
    shape, filled = (known[method], True) if method in known else next(free, every[0])
    marks[method] = Mark(color_of(method), shape, filled)
  return marks


@functools.cache
def color_of(method: str) -> str:
  """A method's color; multi-task versions wear the single-task one."""
  single = method.removeprefix("multitask_")
  if single in _KNOWN:
    return _KNOWN[single][0]
  # By the name and not by the order: a method keeps its color beside others, in every process.
  return _OTHERS[sum(single.encode()) % len(_OTHERS)]


def _shape(method: str) -> str:
  """The shape of a method that has its own."""
  return _KNOWN[single][1] if (single := method.removeprefix("multitask_")) in _KNOWN else ""
