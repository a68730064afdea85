"""What commands show, which may have names and texts of somebody else's in it.

A checkpoint names its arrays, a data set holds texts, a record says why: any of them may be an escape
sequence, with which a terminal can be made to hide lines, or to fill the clipboard.
"""

import logging
import sys
from collections.abc import Sequence
from typing import TextIO

from promot_jax.printable import visible


def show(text: object, *, file: TextIO | None = None) -> None:
  """Prints a text and a line's end; what a terminal would obey is shown as a number.

  Args:
    file: None: standard output.
  """
  print(visible(str(text), kept="\n\t"), file=file or sys.stdout)


def aligned(lines: Sequence[Sequence[str]]) -> str:
  """A table: the cells of every column below each other."""
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    for line in lines
  )


class _Visible(logging.Formatter):
  def format(self, record: logging.LogRecord) -> str:
    return visible(super().format(record), kept="\n\t")


def show_warnings_so() -> None:
  """The same for what the library logs where nobody has set up logging."""
  if logging.lastResort is not None:
    logging.lastResort.setFormatter(_Visible())
