"""The main table of a group: laid out as the paper's, our figures beside the printed ones.

Nothing is computed here but means over seeds and Norm. Avg.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from promot_jax.evaluation import answer_ways, averages, contributions, published
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.runs import Group
from promot_jax.evaluation.tables import OURS, QUOTED, Cell, Column, Row, Table
from promot_jax.metrics import registry
from promot_jax.metrics.metric import PERCENT

QUOTED_MODEL = "mT5-XXL"
_COMPUTED = "†"


def main_table(group: Group, title: str) -> Table:
  """Tuned tasks, Norm. Avg, then the unseen tasks, at every number of shots."""
  columns = _columns(group)
  lines: list[tuple[str, str, str, int | None, bool]] = []  # label, detail, task, shots, strong
  for task in group.tuned_tasks:
    if task != "none":
      templates = group.templates.get(task, ())
      way = answer_ways.mark(group, task, None)
      detail = " ".join(filter(None, (_median(templates) or "tuned task", way)))
      lines.append((task, detail, task, None, True))
      # Below their median, so that one sees how much of it is wording.
      lines += [(each, "template", each, None, False) for each in templates]
  lines += [("Norm. Avg", f"{n}-shot", "norm_avg", n, True) for n in group.shots]
  for task in group.unseen:
    metric = runs_lib.metric_name(group, task)
    templates = group.templates.get(task, ())
    for n in group.shots:
      way = answer_ways.mark(group, task, n)
      detail = " ".join(filter(None, (f"{n}-shot", metric, _median(templates), way)))
      lines.append((task, detail, task, n, False))
      lines += [(each, f"{n}-shot template", each, n, False) for each in templates]
  rows = []
  for label, detail, task, shots, strong in lines:
    cells = tuple(
      _ours(group, column, task, shots)
      if column.kind == OURS
      else _quoted(group, column, task, shots)
      for column in columns
    )
    if any(cells):
      rows.append(Row(label=label, detail=detail, cells=cells, strong=strong))
  kept = [
    i
    for i, column in enumerate(columns)
    # Ours stay, empty or not: a method that was not measured should be seen to be missing.
    if column.kind == OURS or any(row.cells[i] for row in rows)
  ]
  return Table(
    title=title,
    columns=tuple(columns[i] for i in kept),
    rows=tuple(dataclasses.replace(row, cells=tuple(row.cells[i] for i in kept)) for row in rows),
    notes=_notes(group, rows),
  )


def _median(templates: Sequence[str]) -> str:
  """What a data set's score is; empty of a task without templates."""
  return f"median of {len(templates)} template{'s' * (len(templates) > 1)}" if templates else ""


def _columns(group: Group) -> list[Column]:
  columns = []
  for method in group.runs:
    name = group.name(method)
    columns.append(Column(group=name, header="ours", kind=OURS))
    # A quoted column only beside what the paper has tuned on, too.
    if published.home_table(group.trained_on):
      columns.append(Column(group=name, header=f"{QUOTED_MODEL} (quoted)", kind=QUOTED))
  return columns


def _method_of(group: Group, column: Column) -> str:
  return next(method for method in group.runs if group.name(method) == column.group)


def _ours(group: Group, column: Column, task: str, shots: int | None) -> Cell | None:
  method = _method_of(group, column)
  runs = group.runs[method]
  if task == "norm_avg" and shots is not None:
    base = group.runs.get("pretrained", ()) if method != "pretrained" else ()
    return runs_lib.average_cell(runs, shots=shots, pretrained=base)
  if shots is None:
    return runs_lib.tuned_cell(runs, task=task, method=method)
  return runs_lib.task_cell(runs, task=task, shots=shots)


def _quoted(group: Group, column: Column, task: str, shots: int | None) -> Cell | None:
  """The printed figure; the paper does not state the shots of `_1shot` rows on the tuned task."""
  wanted = {"trained_on": group.trained_on, "method": _method_of(group, column), "task": task}
  if task == "norm_avg" and group.unseen != averages.PUBLISHED:
    return None  # printed of another list
  # What a printed figure rests on: the task, or all that it averages, and what was tuned on.
  measured = set(group.unseen) if task == "norm_avg" else {task}
  if wanted["method"] != "pretrained":
    measured |= set(group.tuned_tasks)
  if measured & group.own_tasks:
    return None  # printed of other data sets than these
  figure = published.find(**wanted, shots=shots)
  # Of the tuned task `_1shot` rows state no number of shots, the others 0.
  if figure is None and shots is None:
    figure = published.find(**wanted, shots=0)
  if figure is None:
    return _computed_average(wanted, shots) if task == "norm_avg" else None
  difference = published.find(**wanted, shots=shots, metric="difference_from_pretrained")
  return Cell(
    value=figure.value,
    printed=figure.text,
    difference=difference.value if difference else None,
    printed_difference=difference.text if difference else "",
    source=figure.source,
    note=figure.note,
  )


def _computed_average(wanted: Mapping[str, str], shots: int | None) -> Cell | None:
  """The mean of the eight quoted scores where the paper prints them without Norm. Avg (Table 6)."""
  figures = {
    task: figure
    for task in averages.UNSEEN_TASKS
    if (figure := published.find(**{**wanted, "task": task}, shots=shots))
  }
  if len(figures) < len(averages.UNSEEN_TASKS):
    return None
  value = averages.norm_average({task: figure.value for task, figure in figures.items()})
  sources = sorted({figure.source for figure in figures.values()})
  return Cell(
    value=value, printed=f"{value:.2f}{_COMPUTED}", source="; ".join(sources), note="computed here"
  )


def _notes(group: Group, rows: Sequence[Row]) -> tuple[str, ...]:
  # What the figures and their errors are.
  notes = [
    f"{_ranges(group)} Norm. Avg: plain mean of {averages.described(group.unseen)}, {_state(group)}; in "
    "brackets the difference from the pretrained model."
    if group.unseen
    else _ranges(group)
  ]
  cells = [cell for row in rows for cell in row.cells if cell]
  kinds = {cell.kind for cell in cells}
  if "sd" in kinds:
    seeds = sorted({cell.count for cell in cells if cell.kind == "sd"})
    notes.append(f"±: standard deviation over {' or '.join(map(str, seeds))} training seeds.")
  if "ci" in kinds:
    notes.append(
      "[low, high]: 95 % interval of one run over the test examples: Wilson's for shares of right "
      "answers, bootstrap percentiles for BLEU and ROUGE, both put together for Norm. Avg (MOVER); none "
      "where no example differs from another. It covers neither seeds nor demonstrations."
    )
  # Where quoted ones come from, and what they are no measure of.
  sources = sorted({cell.source for cell in cells if cell.source})
  if sources:
    numbers = ", ".join(source.removeprefix(f"{published.PAPER}, Table ") for source in sources)
    notes.append(
      f"'{QUOTED_MODEL} (quoted)': printed figures of {published.PAPER}, Tables {numbers}; not ours. "
      f"Another model{_other_data(group)}: compare signs and order, not sizes."
    )
  if any(cell.printed.endswith(_COMPUTED) for cell in cells):
    notes.append(f"{_COMPUTED} Not printed: computed here as the mean of the eight quoted scores.")
  # What is partial, missing, or cannot be compared.
  if any(cell.first for cell in cells):
    notes.append("'first N': of the first N examples only; nothing fuller was evaluated.")
  if group.own_tasks:
    notes.append(
      f"No published figures beside {', '.join(sorted(group.own_tasks))}, nor beside what was tuned on "
      "or averaged over them: their data are not the published data sets."
    )
  notes += contributions.notes(group)
  notes += _mixed_runs(group)
  notes += _left_out(group)
  incomplete = _incomplete(group)
  if incomplete:
    notes.append(incomplete)
  return tuple(notes)


def _state(group: Group) -> str:
  """Whether methods are removed for the unseen tasks, which a run may not do."""
  kept = [
    group.name(method)
    for method, runs in group.runs.items()
    if any(run.keeps_method_on for run in runs)
  ]
  return f"method removed, but kept on of {', '.join(kept)}" if kept else "method removed"


def _ranges(group: Group) -> str:
  """From where to where the scores go that the table shows, each metric by its own scale."""
  results = [each for runs in group.runs.values() for run in runs for each in run.reported]
  named: dict[str, list[str]] = {}
  for name in dict.fromkeys(averages.metric_of(each) for each in results):
    scale = registry.scale_of(name)
    ends = scale.range if (scale.low, scale.high) != (None, None) else "of no stated range"
    way = "" if scale.higher_is_better else ", lower is better"
    named.setdefault(ends + way, []).append(name)
  if list(named) == [PERCENT.range]:
    return f"Scores are {PERCENT.range}."
  told = [f"{', '.join(names)} {ends}" for ends, names in named.items()]
  return f"Scores: {'; '.join(told)}."


def _other_data(group: Group) -> str:
  return "" if group.data == "tfds" else " on other data"


def _mixed_runs(group: Group) -> list[str]:
  """Warnings where a mean is not over seeds alone: runs of one method with other settings."""
  warnings = []
  for method, runs in group.runs.items():
    first = runs[0].record.settings
    differing = {
      name
      for run in runs
      for name, value in run.record.settings.items()
      if value != first.get(name)
    }
    if differing:
      warnings.append(
        f"Warning: {group.name(method)} has runs that differ in "
        f"{', '.join(sorted(differing))}; their mean is not one over seeds. Report them apart, or "
        "give them different variants."
      )
  return warnings


def _left_out(group: Group) -> list[str]:
  """Records that were skipped because a run was told to, by task."""
  counts: dict[str, int] = {}
  results = [each for runs in group.runs.values() for run in runs for each in run.reported]
  for result in results:
    skipped = result.notes.get("skipped")
    if isinstance(skipped, Mapping) and skipped:
      name = f"{result.task} {result.split}".strip()
      counts[name] = max(counts.get(name, 0), sum(map(int, skipped.values())))
  if not counts:
    return []
  told = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
  return [
    f"Test records left out because they could not be used (MALFORMED, EMPTY_TARGETS): {told}."
  ]


def _incomplete(group: Group) -> str:
  """Which Norm. Avg is absent, and what it lacks."""
  lacking = []
  for method, runs in group.runs.items():
    for run in runs:
      for shots in group.shots:
        average = averages.average(
          run.reported, shots=shots, attached=run.keeps_method_on, unseen=group.unseen
        )
        if average.missing and average.tasks:
          lacking.append(
            f"{group.name(method)} (seed {run.record.seed}, {shots}-shot) lacks "
            + ", ".join(average.missing)
          )
  every = "all eight tasks" if group.unseen == averages.PUBLISHED else "all unseen tasks"
  return f"No Norm. Avg without {every}: {'; '.join(lacking)}." if lacking else ""
