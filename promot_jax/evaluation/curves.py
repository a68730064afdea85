"""Scores of runs that differ in one number: how many examples trained, or how long a method is.

Those are Figures 3 and 6, and 4, of Li & Liang, 2021.  A line is a row of a comparison over the former, and a class
of methods over the latter; a point is the mean over subsamples and seeds.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promot_jax.evaluation import published
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.runs import Run
from promot_jax.evaluation.tables import Cell, Column, Row, Table

EXAMPLES, POSITIONS = "training examples", "positions"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
  """The lines of one figure.

  number: what it is over, EXAMPLES or POSITIONS.
  task: tuned on and measured; model: the pretrained one.
  lines: name of a row or of a class of methods -> number -> the mean score.
  """

  number: str
  task: str
  model: str
  lines: Mapping[str, Mapping[int, Cell]]

  @property
  def title(self) -> str:
    return f"{self.task} by {self.number}, {self.model}"

  @property
  def numbers(self) -> list[int]:
    """Those of any line, in rising order."""
    return sorted({number for line in self.lines.values() for number in line})

  def name(self, line: str) -> str:
    """A line's name in print."""
    if line in published.ROWS:
      return published.ROWS[line]
    # 'PrefixTuning' of a class, 'prefix_tuning' of a row.
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", line).replace("_", " ")
    return words[:1].upper() + words[1:].lower()

  @property
  def table(self) -> Table:
    """A row for each number."""
    return Table(
      title=self.title,
      columns=tuple(Column(group=self.name(line), header="ours") for line in self.lines),
      rows=tuple(
        Row(
          label=str(number),
          detail=self.number,
          cells=tuple(line.get(number) for line in self.lines.values()),
        )
        for number in self.numbers
      ),
      notes=("±: standard deviation over subsamples and seeds.",),
    )


def of_runs(runs: Iterable[Run]) -> tuple[Curves, ...]:
  """Every figure that has a line of at least two points over examples, or three over positions."""
  found: dict[tuple[str, str, str, str], dict[str, dict[int, list[Run]]]] = {}
  for run in runs:
    record = run.record
    if record.method == "pretrained":
      continue
    for number, line, value in _places(run):
      key = (number, record.trained_on, record.backbone, record.data)
      found.setdefault(key, {}).setdefault(line, {}).setdefault(value, []).append(run)
  drawn = []
  for (number, trained_on, backbone, _), lines in sorted(found.items()):
    task = published.plus_joined(trained_on).split("+")[0]
    cells = {line: _cells(points, task) for line, points in sorted(lines.items())}
    least = 2 if number == EXAMPLES else 3
    cells = {line: points for line, points in cells.items() if len(points) >= least}
    if cells:
      drawn.append(Curves(number=number, task=task, model=backbone, lines=cells))
  return tuple(drawn)


def _places(run: Run) -> list[tuple[str, str, Any]]:
  """(number, line, value) of each figure that a run is a point of."""
  record = run.record
  if record.training_examples is not None:
    return [(EXAMPLES, record.row or record.method, record.training_examples)]
  # Of what trains the backbone as well the length says little.
  if record.positions is not None and record.backbone_trained is False:
    return [(POSITIONS, record.kind, record.positions)]
  return []


def _cells(points: Mapping[int, Sequence[Run]], task: str) -> dict[int, Cell]:
  cells = {
    value: runs_lib.tuned_cell(runs, task=task, method=runs[0].record.method)
    for value, runs in sorted(points.items())
  }
  return {value: cell for value, cell in cells.items() if cell}
