"""Plots of one group of runs, drawn by matplotlib without its global state.

    norm-avg      Norm. Avg by method, ours and, in a panel of its own, the paper's
    trade-off     tuned task against Norm. Avg, one point a seed (`planes`)
    tasks         every unseen task by method
    format-share  outputs in the tuned task's format, by method
    checkpoints   Norm. Avg along training
    points        the trade-off of rows at several values of settings

and of many runs scores over a number that they differ in (`curves_plot`).

All are as wide as a phone's screen shows without shrinking their letters, and what a color says is said
by a shape, a hatch or a name as well.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from promot_jax.evaluation import averages, canvas, marks, planes, published
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.canvas import Plot
from promot_jax.evaluation.curves import Curves
from promot_jax.evaluation.main_table import QUOTED_MODEL
from promot_jax.evaluation.results import natural_order
from promot_jax.evaluation.runs import Group, Run
from promot_jax.evaluation.sections import Section
from promot_jax.evaluation.tables import OURS, QUOTED, Cell, Table

_HATCHES = ("", "....", "xxxx", "||||")  # of numbers of shots


def section_plots(section: Section) -> dict[str, Plot]:
  """The plots for which a section has figures, by name."""
  with canvas.style():
    drawn = {
      "norm-avg": _norm_average(section),
      "trade-off": planes.trade_off(section.group),
      "tasks": _tasks(section),
      "format-share": _format_share(section),
      "checkpoints": _checkpoints(section.group),
      "points": planes.points(section.group),
    }
  return {name: plot for name, plot in drawn.items() if plot is not None}


def curves_plot(curves: Curves) -> Plot:
  """A line for each row or class of methods, with the spread of each point."""
  with canvas.style():
    figure = canvas.figure(3.2 + canvas.legend_height(len(curves.lines)))
    axis = figure.subplots()
    looks, said = marks.of_methods(curves.lines), []
    for line, cells in curves.lines.items():
      axis.errorbar(
        list(cells),
        [cell.value for cell in cells.values()],
        yerr=np.transpose([cell.reach for cell in cells.values()]),
        label=canvas.short(curves.name(line)),
        linewidth=1.2,
        markersize=6,
        elinewidth=0.9,
        capsize=2,
        **looks[line].style,
      )
      points = ", ".join(f"{number}: {_figures(cell)}" for number, cell in cells.items())
      said.append(f"{curves.name(line)} {points}")
    # Numbers double from point to point; only those that were run are named.
    axis.set_xscale("log")
    axis.set_xticks(curves.numbers, [str(number) for number in curves.numbers], minor=False)
    axis.minorticks_off()
    axis.set_xlabel(curves.number)
    axis.set_ylabel(curves.task)
    axis.grid(color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)
    canvas.legend(figure, axis)
  return Plot(figure=figure, words=f"Lines of {curves.title}. {'; '.join(said)}.")


def _norm_average(section: Section) -> Plot | None:
  """Horizontal bars by method and shots; a dotted line marks the pretrained model."""
  # Apart, as quoted figures are of another model: their bars are not to be held against ours.
  panels = [
    (kind, cells) for kind in (OURS, QUOTED) if (cells := _average_cells(section.main, kind))
  ]
  if not panels:
    return None
  methods = [name for name, _ in section.main.groups()]
  shots = sorted({n for _, cells in panels for _, n in cells})
  figure = canvas.figure((0.75 + 0.2 * len(methods) * (len(shots) + 0.5)) * len(panels))
  axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
  for axis, (kind, cells) in zip(axes, panels, strict=True):
    _bars(axis, cells, methods, shots, section.group)
    axis.set_title(f"{'ours' if kind == OURS else f'{QUOTED_MODEL}, quoted from the paper'}")
  axes[-1].set_xlabel(f"Norm. Avg (mean of {len(section.group.unseen)} unseen tasks)")
  if len(shots) > 1:
    handles = [
      Patch(facecolor="#888888", edgecolor="white", hatch=2 * _hatch(i), label=f"{n}-shot")
      for i, n in enumerate(shots)
    ]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(shots))
  said = [
    f"{'ours' if kind == OURS else 'quoted'}: "
    + ", ".join(f"{name} {n}-shot {_figures(cell)}" for (name, n), cell in cells.items())
    for kind, cells in panels
  ]
  return Plot(figure=figure, words=f"Bars of Norm. Avg. {'; '.join(said)}.")


def _bars(
  axis: Axes,
  cells: Mapping[tuple[str, int], Cell],
  methods: Sequence[str],
  shots: Sequence[int],
  group: Group,
) -> None:
  """One panel of `_norm_average`."""
  height = 0.8 / len(shots)
  names = {group.name(method): method for method in group.runs}
  for (name, n), cell in cells.items():
    # Shots lie around the middle of their method's place.
    position = methods.index(name) + (shots.index(n) - (len(shots) - 1) / 2) * height
    axis.barh(
      position,
      cell.value,
      height * 0.92,
      xerr=np.reshape(cell.reach, (2, 1)) if any(cell.reach) else None,
      color=marks.color_of(names[name]),
      error_kw={"elinewidth": 1, "capsize": 2},
      hatch=_hatch(shots.index(n)),
      edgecolor="white",
    )
    axis.annotate(
      _figures(cell),
      (cell.value + cell.reach[1], position),
      xytext=(3, 0),
      textcoords="offset points",
      va="center",
      fontsize=9,
    )
  base = cells.get((published.ROWS["pretrained"], shots[0]))
  if base:
    axis.axvline(base.value, color="#7a7a7a", linestyle=":", linewidth=1)
  # Room for the figure behind the longest bar, and some axis where all scores are 0.
  axis.set_xlim(0, 1.25 * max(cell.value + cell.reach[1] for cell in cells.values()) or 1)
  axis.set_yticks(range(len(methods)), [canvas.short(name) for name in methods])
  axis.set_ylim(len(methods) - 0.45, -0.55)  # turned around: the first method is on top


def _tasks(section: Section) -> Plot | None:
  """Every unseen task at the fewest shots."""
  group = section.group
  labels = [f"{task}\n{runs_lib.metric_name(group, task)}" for task in group.unseen]
  return _dots(group, labels, "score", f"its figures are those of '{section.main.title}'")


def _format_share(section: Section) -> Plot | None:
  """Share of outputs in the tuned task's format on every unseen task."""
  plot = _dots(
    section.group,
    section.group.unseen,
    "% of outputs",
    "its figures are those of 'Outputs in the tuned task's format (%)'",
    metric="format_share",
  )
  if plot:
    plot.figure.axes[0].set_xlim(-3, 103)
  return plot


def _dots(
  group: Group, labels: Sequence[str], unit: str, words: str, *, metric: str = ""
) -> Plot | None:
  """A band for each unseen task, in it a mark for each method with its interval."""
  if not group.shots:
    return None
  shots = group.shots[0]
  found = {
    method: [
      runs_lib.task_cell(runs, task=task, shots=shots, metric=metric) for task in group.unseen
    ]
    for method, runs in group.runs.items()
  }
  # Methods without any figure would take room from the others.
  found = {method: cells for method, cells in found.items() if any(cells)}
  if not found:
    return None
  band = max(0.42, 0.12 * (len(found) + 1))  # inches; two lines of a label need the first
  figure = canvas.figure(0.6 + band * len(labels) + canvas.legend_height(len(found)))
  axis = figure.subplots()
  looks, step = marks.of_methods(group.runs), 0.84 / len(found)
  for number, (method, cells) in enumerate(found.items()):
    offset = (number - (len(found) - 1) / 2) * step
    # What was not measured leaves its place empty: a mark at 0 would be a result.
    present = [(i + offset, cell) for i, cell in enumerate(cells) if cell]
    axis.errorbar(
      [cell.value for _, cell in present],
      [position for position, _ in present],
      xerr=np.transpose([cell.reach for _, cell in present]),
      label=_label(group, method),
      linestyle="none",
      markersize=5,
      elinewidth=0.9,
      **looks[method].style,
    )
  for place in range(0, len(labels), 2):
    axis.axhspan(place - 0.5, place + 0.5, color="#f1f2f4", zorder=0)
  axis.set_yticks(range(len(labels)), labels)
  axis.set_ylim(len(labels) - 0.5, -0.5)
  axis.grid(axis="x", color="#d9d9d9", linewidth=0.6)
  axis.set_axisbelow(True)
  axis.set_xlabel(f"{unit}, {shots}-shot")
  canvas.legend(figure, axis)
  names = ", ".join(group.name(method) for method in found)
  return Plot(figure=figure, words=f"Marks by task for {names}, {unit} at {shots}-shot: {words}.")


def _checkpoints(group: Group) -> Plot | None:
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
  shown = dict.fromkeys(method for method, _ in lines)
  figure = canvas.figure(3.4 + canvas.legend_height(len(shown)))
  axis = figure.subplots()
  labelled = set()
  looks = marks.of_methods(group.runs)
  for (method, _), line in lines.items():
    across, up = [names.index(name) for name, _, _ in line], [value for _, value, _ in line]
    # Lines are runs, entries of the legend methods.
    label = None if method in labelled else _label(group, method)
    labelled.add(method)
    axis.plot(across, up, linewidth=1.2, markersize=5, label=label, **looks[method].style)
    for name, value, reported in line:
      if reported:
        color = looks[method].color
        axis.scatter([names.index(name)], [value], s=110, facecolors="none", edgecolors=color)
  axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
  axis.set_ylabel(f"Norm. Avg, {shots}-shot")
  canvas.legend(figure, axis)
  told = ", ".join(group.name(method) for method in shown)
  words = f"Lines of Norm. Avg over {names[0]} to {names[-1]} for {told}."
  return Plot(figure=figure, words=words)


def _trajectory(run: Run, shots: int) -> list[tuple[str, float, bool]]:
  """(checkpoint, Norm. Avg, whether it is the reported one) in order."""
  found = []
  for checkpoint, results in run.results.items():
    average = averages.average(
      results, shots=shots, attached=run.keeps_method_on, unseen=run.unseen
    )
    if average.value is not None:
      found.append((checkpoint, average.value, checkpoint == run.selected))
  return found


def _average_cells(table: Table, kind: str) -> dict[tuple[str, int], Cell]:
  """(method name, shots) -> Norm. Avg cell of the main table."""
  return {
    (column.group, int(row.detail.removesuffix("-shot"))): cell
    for row in table.rows
    if row.label == "Norm. Avg"
    for column, cell in zip(table.columns, row.cells, strict=True)
    if cell and column.kind == kind
  }


def _label(group: Group, method: str) -> str:
  return canvas.short(group.name(method))


def _figures(cell: Cell) -> str:
  """A score with the digits that are printed, or one decimal."""
  return cell.printed or f"{cell.value:.1f}"


def _hatch(number: int) -> str:
  """Of a number of shots, so that they can be told apart without color."""
  return _HATCHES[number % len(_HATCHES)]
