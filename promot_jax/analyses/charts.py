"""Charts as values: lines and points in panels below each other, drawn for a phone and for print in grey.

A series has a colour, a marker and a kind of line of its own, the same in every panel, so that any one of
the three tells it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from promot_jax.evaluation import canvas

# Okabe and Ito's palette, which color-blind readers can tell apart.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c564b", "#e69f00", "#4c4c9d", "#444444")
_MARKERS = ("o", "X", "^", "s", "D", "v", "P", "*")
_LINES = ("-", "--", "-.", ":", (0, (7, 2)), (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (9, 3)))
_LONGEST_NAME = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """A place in a panel; low and high: limits of y, text: what stands beside it."""

  x: float
  y: float
  low: float | None = None
  high: float | None = None
  text: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
  """Points of one name; `joined` by a line in their order, or not."""

  name: str
  points: Sequence[Point]
  joined: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
  """What is drawn on the same axes."""

  series: Sequence[Series]
  title: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
  """Panels with the same axes.

  words: what the chart shows, for those who do not see it.
  limits: of the y axis; None: as the points need it.
  ticks: names of the places 0, 1, ... of the x axis; none: it has numbers.
  """

  panels: Sequence[Panel]
  across: str
  up: str
  words: str
  limits: tuple[float, float] | None = None
  ticks: Sequence[str] = ()


def lines(points: Iterable[tuple[str, Point]]) -> list[Series]:
  """A series for each name, in the order in which names come first."""
  found: dict[str, list[Point]] = {}
  for name, point in points:
    found.setdefault(name, []).append(point)
  return [Series(name=name, points=own) for name, own in found.items()]


def by_run(
  rows: Iterable[Any], runs: Iterable[str], points: Callable[[Any], Iterable[tuple[str, Point]]]
) -> list[Panel]:
  """A panel for each run.

  Args:
    rows: each with the `run` that it is of.
    runs: their names in order.
    points: row -> the names of its lines, with a point for each.
  """
  rows = list(rows)
  return [
    Panel(title=run, series=lines(each for row in rows if row.run == run for each in points(row)))
    for run in runs
  ]


def draw(chart: Chart, kind: str) -> bytes:
  """A chart as `png` or `svg` bytes; equal charts give equal bytes."""
  with canvas.style():
    return canvas.draw(canvas.Plot(figure=_figure(chart), words=chart.words), kind)


def _figure(chart: Chart) -> Figure:
  # Through all panels: a name looks the same in each.
  names = list(dict.fromkeys(series.name for panel in chart.panels for series in panel.series))
  legend = 0.1 + 0.21 * ((len(names) + 1) // 2)  # two names a line
  height = 0.5 + 2.6 * len(chart.panels) + legend
  figure = Figure(figsize=(canvas.WIDTH, height), layout="constrained")
  axes = figure.subplots(len(chart.panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
  shown: dict[str, Any] = {}
  for axis, panel in zip(axes, chart.panels):
    for series in panel.series:
      handle = _draw_series(axis, series, names.index(series.name))
      shown.setdefault(series.name, handle)
    axis.set_title(panel.title)
    axis.set_ylabel(chart.up)
    axis.grid(color="#d9d9d9", linewidth=0.6)
    axis.set_axisbelow(True)
    if chart.limits:
      axis.set_ylim(*chart.limits)
  axes[-1].set_xlabel(chart.across)
  if chart.ticks:
    axes[-1].set_xticks(range(len(chart.ticks)), chart.ticks)
    axes[-1].set_xlim(-0.5, len(chart.ticks) - 0.5)
  # Of a single line too: what it is stands nowhere else.
  figure.legend(
    list(shown.values()),
    [_short(name) for name in shown],
    frameon=False,
    loc="outside lower center",
    ncols=2,
    fontsize=9,
    handlelength=2.6,  # of a whole period of each kind of line
  )
  return figure


def _draw_series(axis: Axes, series: Series, number: int) -> Any:
  color = _COLORS[number % len(_COLORS)]
  x, y = ([getattr(point, name) for point in series.points] for name in ("x", "y"))
  handle = axis.errorbar(
    x,
    y,
    yerr=_reach(series.points),
    color=color,
    marker=_MARKERS[number % len(_MARKERS)],
    # Beyond as many as there are shapes the markers are hollow.
    markerfacecolor=color if number < len(_MARKERS) else "white",
    linestyle=_LINES[number % len(_LINES)] if series.joined else "none",
    markersize=5,
    linewidth=1.3,
    elinewidth=0.8,
    capsize=2,
  )
  for point in series.points:
    if point.text:
      place = (point.x, point.y)
      axis.annotate(point.text, place, xytext=(4, 4), textcoords="offset points", fontsize=8)
  return handle


def _reach(points: Sequence[Point]) -> np.ndarray | None:
  """How far the limits are from the points, [2 N]; None where no point has any."""
  if all(point.low is None or point.high is None for point in points):
    return None
  pairs = [
    (0.0, 0.0)
    if point.low is None or point.high is None
    else (max(0.0, point.y - point.low), max(0.0, point.high - point.y))
    for point in points
  ]
  return np.asarray(pairs).T


def _short(name: str) -> str:
  return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
