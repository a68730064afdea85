"""One group of runs as a report shows it: the paper's layout, and what the paper does not print."""

import dataclasses

from promot_jax.evaluation import (
  answer_ways,
  averages,
  class_tables,
  costs,
  differences,
  pair_table,
  point_tables,
  samples,
)
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.main_table import QUOTED_MODEL, main_table
from promot_jax.evaluation.runs import Group
from promot_jax.evaluation.samples import Sample
from promot_jax.evaluation.tables import OURS, QUOTED, Cell, Column, Row, Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
  """One group of runs: its tables and what tells them from the paper's.

  Args:
    summary: a line for each method: tuned tasks and Norm. Avg, ours and quoted.
    costs: what each method trains, what a step costs, what is kept; None of older runs.
    main: laid out as the paper's table; further: paired differences, format share, method on, checkpoints.
    classes: of classification tasks, class by class.
    samples: outputs of the methods side by side.
    differences: (aspect, ours, paper), the plain statement of what differs.
  """

  title: str
  group: Group
  summary: Table
  costs: Table | None
  main: Table
  further: tuple[Table, ...]
  classes: tuple[Table, ...]
  samples: tuple[Sample, ...]
  differences: tuple[tuple[str, str, str], ...]

  @property
  def measured(self) -> tuple[Table, ...]:
    """Tables of scores and costs but the summary, which repeats parts of the main one."""
    return (*([self.costs] if self.costs else []), self.main, *self.further)

  @property
  def tables(self) -> tuple[Table, ...]:
    """Every table but the summary."""
    return (*self.measured, *self.classes)


def section(group: Group) -> Section:
  """Everything a report shows of one group."""
  further = [
    pair_table.pair_table(group),
    _format_table(group),
    _attached_table(group),
    answer_ways.of_group(group),
    *point_tables.of_group(group),
    _checkpoint_table(group),
  ]
  names = " + ".join(group.tuned_tasks)
  title = "Pretrained model" if group.trained_on == "none" else f"Tuned on {names}"
  if group.training_examples is not None:
    title += f", {group.training_examples} training examples"
  if group.variant:
    title += f", {group.variant}"
  if group.unseen and group.unseen != averages.PUBLISHED:
    title += f"; unseen: {', '.join(group.unseen)}"
  main = main_table(group, f"{title}: every task")
  return Section(
    title=title,
    group=group,
    summary=_summary(main, f"{title}: summary"),
    costs=costs.cost_table(group),
    main=main,
    further=tuple(table for table in further if table and table.rows),
    classes=class_tables.of_group(group),
    samples=samples.of_group(group),
    differences=differences.differences(group),
  )


def _summary(main: Table, title: str) -> Table:
  """The strong rows of the main table turned on their side: one line for each method."""
  # By name, as rows of the main table become columns here, and its groups rows.
  strong = [row for row in main.rows if row.strong]
  kinds = [kind for kind in (OURS, QUOTED) if any(c.kind == kind for c in main.columns)]
  cells = {
    (column.group, column.kind, number): row.cells[index]
    for number, row in enumerate(strong)
    for index, column in enumerate(main.columns)
  }
  columns = [(number, kind) for number in range(len(strong)) for kind in kinds]
  return Table(
    title=title,
    columns=tuple(
      Column(
        group=f"{strong[number].label}, {strong[number].detail}",
        header="ours" if kind == OURS else f"{QUOTED_MODEL} (quoted)",
        kind=kind,
      )
      for number, kind in columns
    ),
    rows=tuple(
      Row(
        label=method,
        detail="",
        cells=tuple(cells.get((method, kind, number)) for number, kind in columns),
      )
      for method, _ in main.groups()
    ),
    notes=main.notes,
  )


def _format_table(group: Group) -> Table | None:
  """Share of outputs in the tuned task's format on every unseen task (Figure 2 of the paper)."""
  columns = tuple(Column(group=group.name(m), header="ours") for m in group.runs)
  rows = []
  for task in group.unseen:
    for shots in group.shots:
      cells = tuple(
        runs_lib.task_cell(runs, task=task, shots=shots, metric="format_share")
        for runs in group.runs.values()
      )
      if any(cells):
        rows.append(Row(label=task, detail=f"{shots}-shot", cells=cells))
  # Runs may have counted different formats: all that were counted are named.
  kinds = sorted(
    {
      str(result.settings.get("format"))
      for runs in group.runs.values()
      for run in runs
      for result in run.reported
      if result.settings.get("format")
    }
  )
  return Table(
    title="Outputs in the tuned task's format (%)",
    columns=columns,
    rows=tuple(rows),
    notes=(
      f"Counted: {'; '.join(kinds)}. High shares on tasks that ask for something else mean that "
      "the format was learned instead of the task (the paper's Figure 2).",
    ),
  )


def _attached_table(group: Group) -> Table | None:
  """Unseen tasks with the method left on, beside the same with it removed: a column of ours."""
  methods = {
    method: runs
    for method, runs in group.runs.items()
    # What is never measured off has its scores in the main table.
    if any(
      result.method == "attached" and result.task in group.unseen and not run.keeps_method_on
      for run in runs
      for result in run.reported
    )
  }
  if not methods:
    return None
  rows = []
  lines = [("Norm. Avg", n, True) for n in group.shots]
  lines += [(task, n, False) for task in group.unseen for n in group.shots]
  for label, shots, strong in lines:
    cells: list[Cell | None] = []
    for runs in methods.values():
      for on in (False, True):
        if label == "Norm. Avg":
          cells.append(runs_lib.average_cell(runs, shots=shots, attached=on))
        else:
          cells.append(runs_lib.task_cell(runs, task=label, shots=shots, attached=on))
    if any(cells):
      rows.append(Row(label=label, detail=f"{shots}-shot", cells=tuple(cells), strong=strong))
  return Table(
    title="Unseen tasks with the method off and on",
    columns=tuple(
      Column(group=group.name(method), header=state)
      for method in methods
      for state in ("method off", "method on")
    ),
    rows=tuple(rows),
    notes=(
      "The paper removes the prompt on unseen tasks; the columns with the method on are ours.",
    ),
  )


def _checkpoint_table(group: Group) -> Table | None:
  """Tuned task, Norm. Avg and format share at every evaluated checkpoint of every run."""
  # Of one checkpoint the main table says everything.
  runs = [run for runs in group.runs.values() for run in runs if len(run.results) > 1]
  if not runs:
    return None
  columns = [Column(group=task, header="score") for task in group.tuned_tasks if task != "none"]
  columns += [Column(group="Norm. Avg", header=f"{n}-shot") for n in group.shots]
  rows = []
  for run in runs:
    for checkpoint in run.results:
      # Each checkpoint as if it were the reported one, so that the same functions make its cells.
      here = [dataclasses.replace(run, record=dataclasses.replace(run.record, selected=checkpoint))]
      method = run.record.method
      cells = [
        runs_lib.tuned_cell(here, task=task, method=method)
        for task in group.tuned_tasks
        if task != "none"
      ]
      cells += [runs_lib.average_cell(here, shots=shots) for shots in group.shots]
      reported = " (reported)" if checkpoint == run.selected else ""
      rows.append(
        Row(
          label=f"{group.name(method)}, seed {run.record.seed}",
          detail=checkpoint + reported,
          cells=tuple(cells),
          strong=bool(reported),
        )
      )
  return Table(title="Every evaluated checkpoint", columns=tuple(columns), rows=tuple(rows))
