"""What the points of a comparison's rows gave, and which of them validation chose: a table for each row."""

import statistics
from collections.abc import Iterator, Sequence

from promot_jax.evaluation import points
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.runs import Group, Run
from promot_jax.evaluation.tables import Cell, Column, Row, Table


def of_group(group: Group) -> Iterator[Table]:
  """A table for each row that was run at several values of settings."""
  tasks = [task for task in group.tuned_tasks if task != "none"]
  for row in group.points:
    rows = []
    for method in row.methods:
      runs = group.tried[method]
      chosen = method == row.chosen
      cells = [_validation(runs)]
      cells += [runs_lib.tuned_cell(runs, task=task, method=method) for task in tasks]
      cells += [runs_lib.average_cell(runs, shots=shots) for shots in group.shots]
      label = points.told(runs[0].record.point)
      rows.append(
        Row(label=label, detail="chosen" if chosen else "", cells=tuple(cells), strong=chosen)
      )
    columns = [Column(group="validation", header="score of the chosen step")]
    columns += [Column(group=task, header="tuned task") for task in tasks]
    columns += [Column(group="Norm. Avg", header=f"{shots}-shot") for shots in group.shots]
    # As a column calls it, without the values.
    first = group.tried[row.methods[0]][0].record
    name = first.printed.removesuffix(f" ({points.told(first.point)})") or row.row
    yield Table(
      title=f"{name}: values that were tried",
      columns=tuple(columns),
      rows=tuple(rows),
      notes=(f"{row.why}. What is reported took no part in the choice.",),
    )


def _validation(runs: Sequence[Run]) -> Cell | None:
  """Mean and deviation over seeds of the score by which a point's checkpoints were chosen."""
  scores = [run.record.validation for run in runs if run.record.validation is not None]
  if not scores:
    return None
  several = len(scores) > 1
  return Cell(
    value=statistics.fmean(scores),
    spread=statistics.stdev(scores) if several else None,
    kind="sd" if several else "",
    count=len(scores),
  )
