"""Plots of one group of runs, drawn by matplotlib without its global state.

    norm-avg      Norm. Avg by method, ours and, in a panel of its own, the paper's
    trade-off     tuned task against Norm. Avg, one point a seed
    tasks         every unseen task by method
    format-share  outputs in the tuned task's format, by method
    checkpoints   Norm. Avg along training

A method keeps its color in every plot.
"""

import contextlib
import functools
import io
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from promot_jax.evaluation import averages, published
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.results import natural_order
from promot_jax.evaluation.runs import Group, Run
from promot_jax.evaluation.sections import QUOTED_MODEL, Section
from promot_jax.evaluation.tables import OURS, QUOTED, Cell, Table

# Okabe and Ito's palette, which color-blind readers can tell apart.
_COLORS = {
  "pretrained": "#7a7a7a",
  "fine_tuning": "#d55e00",
  "promot": "#0072b2",
  "promot_1shot": "#56b4e9",
  "prompt_tuning": "#009e73",
  "prompt_tuning_1shot": "#7fcfb5",
  "joint": "#cc79a7",
  "fine_tuning_1shot": "#e69f00",
  "random_prompt": "#8c564b",
}
_LONGEST_NAME = 32
_OTHERS = ("#4c4c9d", "#a3a500", "#b07aa1", "#444444")
_STYLE: dict[Any, Any] = {
  "font.size": 9,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.titlesize": 10,
  "axes.titlelocation": "left",
  "text.parse_math": False,  # a dollar sign in a name is no formula
  "svg.hashsalt": "promot_jax",  # equal plots give equal files
}


def section_plots(section: Section) -> dict[str, Figure]:
  """The plots for which a section has figures, by name."""
  with _style():
    drawn = {
      "norm-avg": _norm_average(section),
      "trade-off": _trade_off(section.group),
      "tasks": _tasks(section.group),
      "format-share": _format_share(section.group),
      "checkpoints": _checkpoints(section.group),
    }
  return {name: figure for name, figure in drawn.items() if figure is not None}


def draw(figure: Figure, kind: str) -> bytes:
  """A figure as `png` or `svg` bytes; equal figures give equal bytes."""
  buffer = io.BytesIO()
  with _style(), warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Glyph .* missing from")  # shown as an empty box
    if kind == "svg":
      # Without date and version: reports of equal results are equal files.
      FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    else:
      figure.set_dpi(150)
      FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
  return buffer.getvalue()


@contextlib.contextmanager
def _style() -> Iterator[None]:
  """Our settings and nobody else's: matplotlib reads a `matplotlibrc` of the working folder, which may
  run LaTeX on texts and include files.
  """
  with matplotlib.rc_context():
    # First the library's own, then ours: settings of the folder are gone before anything is drawn.
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(_STYLE)
    yield


def _norm_average(section: Section) -> Figure | None:
  """Horizontal bars by method and shots; a dotted line marks the pretrained model."""
  # Apart, as quoted figures are of another model: their bars are not to be held against ours.
  panels = [
    (kind, cells) for kind in (OURS, QUOTED) if (cells := _average_cells(section.main, kind))
  ]
  if not panels:
    return None
  methods = _method_names(section.main)
  shots = sorted({n for _, cells in panels for _, n in cells})
  figure = _figure(4.2 * len(panels) + 1.6, 0.9 + 0.28 * len(methods) * (len(shots) + 0.5))
  axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  height = 0.8 / len(shots)
  for axis, (kind, cells) in zip(axes, panels, strict=True):
    for (name, n), cell in cells.items():
      # Shots lie around the middle of their method's place.
      position = methods.index(name) + (shots.index(n) - (len(shots) - 1) / 2) * height
      axis.barh(
        position,
        cell.value,
        height * 0.92,
        xerr=np.reshape(cell.reach, (2, 1)),
        color=_color_of_name(section.group, name),
        alpha=1.0 if shots.index(n) == 0 else 0.6,
        error_kw={"elinewidth": 1, "capsize": 2},
        # Hatched, so that quoted figures are not taken for ours in print either.
        hatch=None if kind == OURS else "///",
        edgecolor="white",
      )
      axis.annotate(
        cell.printed or f"{cell.value:.1f}",
        (cell.value + cell.reach[1], position),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
      )
    base = cells.get((published.ROWS["pretrained"], shots[0]))
    if base:
      axis.axvline(base.value, color="#7a7a7a", linestyle=":", linewidth=1)
    # Room for the figure behind the longest bar, and some axis where all scores are 0.
    axis.set_xlim(0, 1.18 * max(cell.value + cell.reach[1] for cell in cells.values()) or 1)
    axis.set_yticks(range(len(methods)), [_short(name) for name in methods])
    axis.set_title("ours" if kind == OURS else f"{QUOTED_MODEL}, quoted from the paper")
    axis.set_xlabel(f"Norm. Avg (mean of {len(section.group.unseen)} unseen tasks)")
  # Turned around: the first method of the table is on top.
  axes[0].set_ylim(len(methods) - 0.45, -0.55)
  if len(shots) > 1:
    handles = [
      Patch(color="#555555", alpha=1.0 if i == 0 else 0.6, label=f"{n}-shot")
      for i, n in enumerate(shots)
    ]
    axes[-1].legend(handles=handles, frameon=False, loc="lower right", fontsize=8)
  return figure


def _trade_off(group: Group) -> Figure | None:
  """What tuning gains against what it keeps: small marks are seeds, large ones their mean."""
  if group.trained_on == "none" or not group.shots:
    return None
  shots, task = group.shots[0], group.tuned_tasks[0]
  points: dict[str, list[tuple[float, float]]] = {}
  for method, runs in group.runs.items():
    for run in runs:
      tuned = runs_lib.tuned_cell([run], task=task, method=method)
      average = runs_lib.average_cell([run], shots=shots)
      # A run that lacks one of the two has no place in the plane.
      if tuned and average:
        points.setdefault(method, []).append((tuned.value, average.value))
  if not points:
    return None
  figure = _figure(6.4, 4.0)
  axis = figure.subplots()
  for method, pairs in points.items():
    across, up = zip(*pairs, strict=True)
    color = _color(method)
    # One seed is its own mean: a point under the mark would only blur it.
    if len(pairs) > 1:
      axis.scatter(across, up, s=14, color=color, alpha=0.5, linewidths=0)
    axis.scatter(
      [statistics.fmean(across)],
      [statistics.fmean(up)],
      s=70,
      color=color,
      edgecolors="white",
      label=_label(group, method),
      zorder=3,
    )
  axis.set_xlabel(f"{task} (tuned task)")
  axis.set_ylabel(f"Norm. Avg, {shots}-shot")
  axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  axis.grid(color="#e6e6e6", linewidth=0.6)
  axis.set_axisbelow(True)
  return figure


def _tasks(group: Group) -> Figure | None:
  """Every unseen task at the fewest shots, grouped by task."""
  if not group.shots:
    return None
  shots = group.shots[0]
  bars = {
    method: [runs_lib.task_cell(runs, task=task, shots=shots) for task in group.unseen]
    for method, runs in group.runs.items()
  }
  labels = [f"{task}\n{runs_lib.metric_name(group, task)}" for task in group.unseen]
  return _grouped_bars(group, bars, labels, f"score, {shots}-shot")


def _format_share(group: Group) -> Figure | None:
  """Share of outputs in the tuned task's format on every unseen task."""
  if not group.shots:
    return None
  shots = group.shots[0]
  bars = {
    method: [
      runs_lib.task_cell(runs, task=task, shots=shots, metric="format_share")
      for task in group.unseen
    ]
    for method, runs in group.runs.items()
  }
  figure = _grouped_bars(group, bars, list(group.unseen), f"% of outputs, {shots}-shot")
  if figure:
    figure.axes[0].set_ylim(0, 100)
  return figure


def _checkpoints(group: Group) -> Figure | None:
  """Norm. Avg along training, one line a run; a ring marks the reported checkpoint."""
  if not group.shots:
    return None
  shots = group.shots[0]
  lines = {
    (method, run.record.seed): _trajectory(run, shots)
    for method, runs in group.runs.items()
    for run in runs
    if len(run.results) > 1
  }
  lines = {name: line for name, line in lines.items() if len(line) > 1}
  if not lines:
    return None
  # One axis for all runs: checkpoints of the same name stand above each other.
  names = sorted({name for line in lines.values() for name, _, _ in line}, key=natural_order)
  figure = _figure(7.0, 3.4)
  axis = figure.subplots()
  labelled = set()
  for (method, _), line in lines.items():
    across, up = [names.index(name) for name, _, _ in line], [value for _, value, _ in line]
    # Lines are runs, entries of the legend methods.
    label = None if method in labelled else _label(group, method)
    labelled.add(method)
    axis.plot(across, up, color=_color(method), marker=".", linewidth=1.2, label=label)
    for name, value, reported in line:
      if reported:
        axis.scatter(
          [names.index(name)], [value], s=60, facecolors="none", edgecolors=_color(method)
        )
  axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
  axis.set_ylabel(f"Norm. Avg, {shots}-shot")
  axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  return figure


def _trajectory(run: Run, shots: int) -> list[tuple[str, float, bool]]:
  """(checkpoint, Norm. Avg, whether it is the reported one) in order."""
  found = []
  for checkpoint, results in run.results.items():
    average = averages.average(results, shots=shots, unseen=run.unseen)
    if average.value is not None:
      found.append((checkpoint, average.value, checkpoint == run.selected))
  return found


def _grouped_bars(
  group: Group, bars: Mapping[str, Sequence[Cell | None]], labels: Sequence[str], unit: str
) -> Figure | None:
  """Vertical bars: groups along the axis, one color a method."""
  # Methods without any figure would take room from the others.
  bars = {method: cells for method, cells in bars.items() if any(cells)}
  if not bars:
    return None
  figure = _figure(10.5, 3.4)
  axis = figure.subplots()
  width = 0.84 / len(bars)
  for number, (method, cells) in enumerate(bars.items()):
    offset = (number - (len(bars) - 1) / 2) * width
    # What was not measured leaves its place empty: a bar of 0 would be a result.
    present = [(i + offset, cell) for i, cell in enumerate(cells) if cell]
    axis.bar(
      [position for position, _ in present],
      [cell.value for _, cell in present],
      width * 0.94,
      yerr=np.transpose([cell.reach for _, cell in present]),
      color=_color(method),
      label=_label(group, method),
      error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
    )
  axis.set_xticks(range(len(labels)), labels)
  axis.set_ylim(bottom=0)
  axis.set_ylabel(unit)
  axis.legend(
    frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(5, len(bars))
  )
  return figure


def _average_cells(table: Table, kind: str) -> dict[tuple[str, int], Cell]:
  """(method name, shots) -> Norm. Avg cell of the main table."""
  return {
    (column.group, int(row.detail.removesuffix("-shot"))): cell
    for row in table.rows
    if row.label == "Norm. Avg"
    for column, cell in zip(table.columns, row.cells, strict=True)
    if cell and column.kind == kind
  }


def _method_names(table: Table) -> list[str]:
  return [name for name, _ in table.groups()]


def _color_of_name(group: Group, name: str) -> str:
  known = {group.name(method): method for method in group.runs}
  return _color(known.get(name, name.replace(" ", "_")))


def _label(group: Group, method: str) -> str:
  return _short(group.name(method))


def _short(name: str) -> str:
  """A name that leaves room for the plot beside it."""
  return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


@functools.cache
def _color(method: str) -> str:
  """A method's color; multi-task versions wear the single-task one."""
  single = method.removeprefix("multitask_")
  # By the name and not by the order: a method keeps its color beside others, in every process.
  return _COLORS.get(single) or _OTHERS[sum(single.encode()) % len(_OTHERS)]


def _figure(width: float, height: float) -> Figure:
  # Figure itself, as pyplot would keep every figure in its own global list.
  return Figure(figsize=(width, height), layout="constrained")
