"""What all plots of a report and of analyses share: size, settings, legend, and how they become bytes.

All are as wide as a phone's screen shows without shrinking their letters.
"""

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH = 4.7  # inches: on a phone of 390 pixels letters of 10 points are still larger than 8 pixels
_LONGEST_NAME = 26
_STYLE: dict[Any, Any] = {
  "font.size": 10,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.titlesize": 10,
  "axes.titlelocation": "left",
  "text.parse_math": False,  # a dollar sign in a name is no formula
  "svg.hashsalt": "promot_jax",  # equal plots give equal files
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
  """A figure and what it shows in words, for those who do not see it."""

  figure: Figure
  words: str


def draw(plot: Plot, kind: str) -> bytes:
  """A plot as `png` or `svg` bytes; equal plots give equal bytes."""
  buffer, figure = io.BytesIO(), plot.figure
  with style(), warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Glyph .* missing from")  # shown as an empty box
    if kind == "svg":
      # Without date and version: reports of equal results are equal files.
      FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    else:
      figure.set_dpi(150)
      FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
  return buffer.getvalue()


@contextlib.contextmanager
def style() -> Iterator[None]:
  """Our settings and nobody else's: matplotlib reads a `matplotlibrc` of the working folder, which may
  run LaTeX on texts and include files.
  """
  with matplotlib.rc_context():
    # First the library's own, then ours: settings of the folder are gone before anything is drawn.
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(_STYLE)
    yield


def short(name: str) -> str:
  """A name that leaves room for the plot beside it."""
  return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def legend_height(entries: int) -> float:
  """Inches below a plot for the legend, two entries a line."""
  return 0.1 + 0.2 * ((entries + 1) // 2)


def legend(figure: Figure, axis: Axes) -> None:
  """Below the plot, where it takes no width from it."""
  handles, labels = axis.get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    frameon=False,
    loc="outside lower center",
    ncols=2,
    fontsize=9,
    handlelength=1.2,
  )


def figure(height: float) -> Figure:
  # Figure itself, as pyplot would keep every figure in its own global list.
  return Figure(figsize=(WIDTH, height), layout="constrained")
