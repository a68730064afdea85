"""How far the methods of a report are apart, tested on the examples that two columns share.

The intervals of the main table are each over all examples; of two models that were asked the same, what both
answer alike cancels out.  These are the figures by which two columns are told apart.
"""

import functools
from collections.abc import Sequence

from promot_jax import errors
from promot_jax.evaluation import averages, pairs
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.runs import Group
from promot_jax.evaluation.tables import Cell, Column, Row, Table
from promot_jax.metrics import paired

RESAMPLES = 1_000
BASES = ("pretrained", "fine_tuning")
"""The columns with which the others are compared."""


def pair_table(group: Group) -> Table | None:
  """The table of a group; None where no two of its columns share examples."""
  # Read once, as a column is compared with several.
  answers = functools.cache(functools.partial(_answers, group))
  # Each two once: fine-tuning less pretrained, and not the other way round.
  compared = [
    (base, method)
    for base in BASES
    for method in group.runs
    if base in group.runs and method not in BASES[: BASES.index(base) + 1]
  ]
  rows = []
  for task, shots in group.questions:
    detail = runs_lib.form_of(shots)
    cells = [
      cell
      for base, method in compared
      for cell in _cells(answers(base, task, shots), answers(method, task, shots))
    ]
    if any(cells):
      rows.append(Row(label=task, detail=detail, cells=tuple(cells)))
  # The mean of one task is that task.
  for shots in group.shots if len(group.unseen) > 1 else ():
    detail = runs_lib.form_of(shots)
    cells = [
      cell
      for base, method in compared
      for cell in _mean_cells(
        [(answers(base, task, shots), answers(method, task, shots)) for task in group.unseen]
      )
    ]
    if any(cells):
      rows.append(Row(label="Norm. Avg", detail=detail, cells=tuple(cells), strong=True))
  if not rows:
    return None
  return Table(
    title="Differences on the same examples",
    columns=tuple(
      Column(group=f"{group.name(method)} less {group.name(base)}", header=header)
      for base, method in compared
      for header in ("difference", "p")
    ),
    rows=tuple(rows),
    notes=(
      f"[low, high]: 95 % of the difference by the paired bootstrap; p: McNemar's exact test where examples are"
      f" right or wrong, else exchanges of the two outputs of an example; {RESAMPLES:,} draws each, seed 0. Norm. Avg:"
      " the same of the mean of its tasks, drawn and exchanged within each. Of"
      " several seeds an example counts with their mean. Neither covers training seeds or demonstrations, and of"
      " so many tests some have a small p by chance: promot compare prints Holm's.",
    ),
  )


def _answers(group: Group, method: str, task: str, shots: int | None) -> tuple[pairs.Scored, ...]:
  """A column's results of a task, one a seed, example by example; none where predictions are missing.

  Args:
    shots: None for the tuned task, whose form the method decides.
  """
  runs = group.runs[method]
  found = runs_lib.answering(runs, task=task, shots=shots, method=method)
  try:
    return tuple(
      pairs.scored(runs[position].store, runs[position].selected, result)
      for position, result in found.items()
    )
  except (errors.DataError, errors.DamagedRecord):  # of which the report tells elsewhere
    return ()


def _mean_cells(
  tasks: Sequence[tuple[Sequence[pairs.Scored], Sequence[pairs.Scored]]],
) -> tuple[Cell | None, Cell | None]:
  """(difference, p) of two columns' Norm. Avg; nothing where a task of it is not shared."""
  headline = all(
    averages.metric_of(each.result) == each.result.metric
    for sides in tasks
    for side in sides
    for each in side
  )
  # Never of fewer tasks, nor of other scores than those that the average is made of.
  if not headline or not all(first and second for first, second in tasks):
    return None, None
  try:
    samples = [pairs.side_by_side(first, second)[0] for first, second in tasks]
    apart = paired.mean_difference(samples, resamples=RESAMPLES)
  except errors.DataError:
    return None, None
  return _shown(apart, apart.test, min(len(side) for sides in tasks for side in sides))


def _cells(
  first: Sequence[pairs.Scored], second: Sequence[pairs.Scored]
) -> tuple[Cell | None, Cell | None]:
  """(difference, p) of two columns; nothing where they share no examples."""
  if not first or not second:
    return None, None
  try:
    pair = pairs.compare(first, second, resamples=RESAMPLES)
  except errors.DataError:
    return None, None
  note = "; ".join((pair.difference.test, *pair.remarks))
  return _shown(pair.difference, note, min(len(first), len(second)))


def _shown(apart: paired.Difference, note: str, count: int) -> tuple[Cell, Cell]:
  """(difference, p) in print; `count` seeds."""
  low, high = apart.interval or (None, None)
  return (
    Cell(value=apart.value, low=low, high=high, kind="ci" if apart.interval else "", count=count),
    Cell(
      value=apart.p_value,
      printed="<0.0001" if apart.p_value < 0.0001 else "",
      digits=4,
      note=f"p, {note}",
      count=count,
    ),
  )
