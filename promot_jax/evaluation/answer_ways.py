"""How answers came about: written by the model, ranked among given ones, or told by a prediction head.

Scores of the three are no scores of the same thing: a ranked answer is always one of the task's.
"""

import dataclasses
from collections.abc import Sequence

from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation import ways as ways_lib
from promot_jax.evaluation.runs import Group, Run
from promot_jax.evaluation.tables import Cell, Column, Row, Table

WAYS = ("generated", "ranked", "classified")


def mark(group: Group, task: str, shots: int | None) -> str:
  """What stands beside a score of the main table: nothing where every method wrote its answers."""
  ways = {
    ways_lib.answers(result)
    for method, runs in group.runs.items()
    for result in runs_lib.answering(runs, task=task, shots=shots, method=method).values()
  }
  return " or ".join(way for way in WAYS if way in ways) if ways - {WAYS[0]} else ""


def of_group(group: Group) -> Table | None:
  """The tasks that a checkpoint was measured on in more than one of these ways, side by side."""
  columns = [(method, way) for method in group.runs for way in WAYS]
  rows = []
  for task, shots in group.questions:
    cells = [_cell(group.runs[method], task, shots, method, way) for method, way in columns]
    if any(
      sum(1 for (other, _), cell in zip(columns, cells, strict=True) if cell and other == method)
      > 1
      for method in group.runs
    ):
      rows.append(Row(label=task, detail=runs_lib.form_of(shots), cells=tuple(cells)))
  kept = [place for place in range(len(columns)) if any(row.cells[place] for row in rows)]
  if not rows:
    return None
  return Table(
    title="Answers generated and ranked",
    columns=tuple(
      Column(group=group.name(columns[place][0]), header=columns[place][1]) for place in kept
    ),
    rows=tuple(
      dataclasses.replace(row, cells=tuple(row.cells[place] for place in kept)) for row in rows
    ),
    notes=(
      "Tasks that were measured in more than one way. generated: the model writes its answer; ranked: the most"
      " probable of the task's answers, so that none is outside of them; classified: told by a prediction head."
      " The other tables show what the run's own plan measured.",
    ),
  )


def _cell(runs: Sequence[Run], task: str, shots: int | None, method: str, way: str) -> Cell | None:
  only = [_measured(run, way) for run in runs]
  if shots is None:
    return runs_lib.tuned_cell(only, task=task, method=method)
  return runs_lib.task_cell(only, task=task, shots=shots)


def _measured(run: Run, way: str) -> Run:
  """A run with what was measured in one way alone; what is shown elsewhere comes last, and so wins."""
  every = [*run.others.get(run.selected, ()), *run.reported]
  return dataclasses.replace(
    run, results={run.selected: [result for result in every if ways_lib.answers(result) == way]}
  )
