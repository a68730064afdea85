"""Plots of a plane: a tuned task's score across, and up what else the same model can do.

The latter is Norm. Avg, or the one task that it is the mean of, such as the tuned task out of distribution.
"""

import dataclasses
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes

from promot_jax.evaluation import canvas, marks
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.canvas import Plot
from promot_jax.evaluation.runs import Group, Run

_LINES = ("-", "--", "-.", ":")


def trade_off(group: Group) -> Plot | None:
  """What tuning gains against what it keeps: small marks are seeds, large ones their mean."""
  if group.trained_on == "none" or not group.shots:
    return None
  found: dict[str, list[tuple[float, float]]] = {}
  for method, runs in group.runs.items():
    for run in runs:
      # A run that lacks one of the two has no place in the plane.
      if place := _place(group, [run], method):
        found.setdefault(method, []).append(place)
  if not found:
    return None
  figure = canvas.figure(3.6 + canvas.legend_height(len(found)))
  axis = figure.subplots()
  looks, said = marks.of_methods(group.runs), []
  for method, pairs in found.items():
    across, up = zip(*pairs, strict=True)
    style = {**looks[method].style, "linestyle": "none"}
    # One seed is its own mean: a point under the mark would only blur it.
    if len(pairs) > 1:
      axis.plot(across, up, markersize=4, alpha=0.5, **style)
    means = statistics.fmean(across), statistics.fmean(up)
    label = canvas.short(group.name(method))
    axis.plot(*([mean] for mean in means), markersize=9, label=label, zorder=3, **style)
    said.append(f"{label} {means[0]:.1f} and {means[1]:.1f}")
  _axes(axis, group)
  canvas.legend(figure, axis)
  words = f"Points of {group.tuned_tasks[0]} and {_kept(group)}. {', '.join(said)}."
  return Plot(figure=figure, words=words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stop:
  """A row at one value of its settings."""

  place: tuple[float, float]
  value: str
  chosen: bool


def points(group: Group) -> Plot | None:
  """The same plane with a line through the values of each row, the chosen one larger; other rows are one mark."""
  if not group.points or not group.shots:
    return None
  lines: dict[str, list[_Stop]] = {}
  for row in group.points:
    for method in row.methods:
      runs = group.tried[method]
      if place := _place(group, runs, method):
        value = ", ".join(map(str, runs[0].record.point.values()))
        stop = _Stop(place=place, value=value, chosen=method == row.chosen)
        lines.setdefault(row.row, []).append(stop)
  if not lines:
    return None
  others = {
    method: place
    for method, runs in group.runs.items()
    if method not in group.tried and (place := _place(group, runs, method))
  }
  figure = canvas.figure(3.6 + canvas.legend_height(len(lines) + len(others)))
  axis = figure.subplots()
  looks, said = marks.of_methods([*others, *lines]), []
  for number, (name, stops) in enumerate(lines.items()):
    label, style = name.replace("_", " "), looks[name].style
    across, up = zip(*(stop.place for stop in stops), strict=True)
    kind = _LINES[number % len(_LINES)]
    axis.plot(across, up, markersize=5, label=label, **{**style, "linestyle": kind})
    for stop in stops:
      if stop.chosen:
        large = {**style, "linestyle": "none", "markersize": 11}
        axis.plot(*([each] for each in stop.place), zorder=3, **large)
      # The ends tell the direction; a name at each point would hide the points.
      if stop.chosen or stop in (stops[0], stops[-1]):
        axis.annotate(stop.value, stop.place, xytext=(4, 4), textcoords="offset points", fontsize=8)
      what = f"{label} {stop.value}{' (chosen)' if stop.chosen else ''}"
      said.append(f"{what} {stop.place[0]:.1f} and {stop.place[1]:.1f}")
  for method, place in others.items():
    label, alone = canvas.short(group.name(method)), {**looks[method].style, "linestyle": "none"}
    axis.plot(*([each] for each in place), markersize=9, label=label, **alone)
    said.append(f"{label} {place[0]:.1f} and {place[1]:.1f}")
  _axes(axis, group)
  canvas.legend(figure, axis)
  task = group.tuned_tasks[0]
  words = f"Lines of {task} and {_kept(group)} by value. {', '.join(said)}."
  return Plot(figure=figure, words=words)


def _place(group: Group, runs: Sequence[Run], method: str) -> tuple[float, float] | None:
  """(tuned task, what is kept) of a method; None where one of them was not measured."""
  tuned = runs_lib.tuned_cell(runs, task=group.tuned_tasks[0], method=method)
  kept = runs_lib.average_cell(runs, shots=group.shots[0])
  return (tuned.value, kept.value) if tuned and kept else None


def _kept(group: Group) -> str:
  """The name of what is kept: a mean of one task is that task."""
  return group.unseen[0] if len(group.unseen) == 1 else "Norm. Avg"


def _axes(axis: Axes, group: Group) -> None:
  axis.set_xlabel(f"{group.tuned_tasks[0]} (tuned task)")
  axis.set_ylabel(f"{_kept(group)}, {group.shots[0]}-shot")
  axis.grid(color="#e6e6e6", linewidth=0.6)
  axis.set_axisbelow(True)
