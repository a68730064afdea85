"""The papers' own tables, row by row and column by column as they are printed, with our figures beside them.

A section of a report shows one group of runs; here each printed number looks for the run that was tuned and
measured as it says.  A table appears as soon as one of its tuned models is there.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from promot_jax.evaluation import aggregates, averages, differences, published
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.published import Figure
from promot_jax.evaluation.runs import Group
from promot_jax.evaluation.tables import OURS, QUOTED, Cell, Column, Row, Table

WANG, LI, HEWITT = (published.PAPERS[name] for name in ("wang2024", "li2021", "hewitt2021"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """How a printed table is read: fields of a `Figure` along its rows, and along its columns.

  by_data: each data set has a model of its own, so that runs of several pretrained models make one table.
  """

  paper: str
  table: int
  about: str
  rows: tuple[str, ...] = ("task",)
  columns: tuple[str, ...] = ("method",)
  remark: str = ""
  by_data: bool = False


_CHANGE = "difference_from_pretrained"
_BY_SHOTS = ("method", "shots")
_SCALES = (
  "METEOR and TER of WebNLG and DART, MoverScore, BERTScore and BLEURT are printed from 0 to 1; here they"
  " are quoted a hundredfold, as ours are."
)
LAYOUTS = (
  Layout(paper=WANG, table=2, about="the tuned task alone"),
  Layout(paper=WANG, table=3, about="tuned on RTE", columns=_BY_SHOTS),
  Layout(paper=WANG, table=4, about="tuned on WMT14 En-Fr", columns=_BY_SHOTS),
  Layout(paper=WANG, table=5, about="tuned on both, one demonstration"),
  Layout(paper=WANG, table=6, about="ablations, tuned on RTE"),
  Layout(paper=WANG, table=9, about="tuned with a demonstration, the tuned task alone"),
  Layout(
    paper=WANG,
    table=10,
    about="tuned on SNLI and on OpenbookQA",
    columns=("method", "trained_on"),
  ),
  Layout(paper=WANG, table=11, about="tuned on both, four demonstrations"),
  Layout(paper=WANG, table=12, about="T5 1.1 XXL, tuned on RTE"),
  Layout(paper=WANG, table=13, about="mT5 XL, tuned on WMT14 En-Fr"),
  Layout(paper=WANG, table=14, about="PaLM 8B, tuned on WMT14 En-Fr"),
  Layout(paper=WANG, table=15, about="ProMoT with LoRA, tuned on WMT14 En-Fr"),
  Layout(
    paper=LI,
    table=1,
    about="table to text",
    rows=("model", "method"),
    columns=("task", "metric", "split"),
    remark=_SCALES,
  ),
  Layout(paper=LI, table=2, about="XSum", rows=("method",), columns=("metric",)),
  Layout(
    paper=LI,
    table=3,
    about="XSum, extrapolation",
    rows=("method",),
    columns=("trained_on", "metric"),
  ),
  Layout(
    paper=LI,
    table=4,
    about="embedding only and infix, E2E",
    rows=("method",),
    columns=("metric",),
  ),
  Layout(
    paper=HEWITT,
    table=1,
    about="in and out of distribution",
    rows=("method",),
    columns=("task", "split", "metric"),
    remark="Of ensembles and cocktails ours have the share that validation in distribution chose.",
    by_data=True,
  ),
)

_ABLATIONS = (("embedding_only", "Embedding-only"), ("infix", "Infix"))
_METHODS: Mapping[str, str] = {
  "ft_top2": "top_layers",
  "adapter_3pct": "adapter_3",
  "adapter_0.1pct": "adapter_0_1",
  "prefix": "prefix_tuning",
  "prefix_0.1pct": "prefix_tuning",  # of GPT-2 medium; BART's has 2 %
  "prefix_2pct": "prefix_tuning",
}
"""What a printed method is called in our records, where it is not called the same."""
PRINTED: Mapping[str, str] = {
  **published.ROWS,
  "promot_lora_r2": "ProMoT with LoRA r=2",
  "promot_lora_r4": "ProMoT with LoRA r=4",
  "ft_top2": "Top layers",
  "adapter": "Adapters",
  "adapter_3pct": "Adapters, 3 %",
  "adapter_0.1pct": "Adapters, 0.1 %",
  "prefix": "Prefix tuning",
  "prefix_2pct": "Prefix tuning, 2 %",
  "prefix_0.1pct": "Prefix tuning, 0.1 %",
  **{f"{part}_{size}": f"{name}, {size}" for size in (1, 10, 20) for part, name in _ABLATIONS},
  "ensemble_prefix": "Ensemble, prefix",
  "cocktail_prefix": "Cocktail, prefix",
  "ensemble_adapter": "Ensemble, adapters",
  "cocktail_adapter": "Cocktail, adapters",
  "sota": "Best before",
}
"""A method's name above its figures."""
_XSUM_METHODS = {**_METHODS, "prefix_0.1pct": "prefix_0_1"}
_WHOLE = ("", "all", "dev", "id", "ood")
"""Parts of a test set, or names of it, that are the whole test set of a task of ours."""
_DISTRIBUTIONS = {"test_id": "in distribution", "test_ood": "out of distribution"}
_METRICS: Mapping[str, tuple[str, ...]] = {
  "rougel": ("coco_rougeL", "rougeL"),
  "normalized_average": ("",),
}


def of_groups(groups: Sequence[Group]) -> tuple[Table, ...]:
  """Every printed table of which one of the groups has a tuned model, for each variant of the groups."""
  # Printed scores are of whole training sets.
  whole = [group for group in groups if group.training_examples is None]
  found: list[Table] = []
  for by_data in (False, True):
    worlds = _worlds(whole, by_data=by_data)
    for told, members in worlds:
      ours = f"; ours: {told}" if told and len(worlds) > 1 else ""
      for layout in (each for each in LAYOUTS if each.by_data == by_data):
        if table := _table(layout, members, ours):
          found.append(table)
          found += _means(layout, members, ours)
  return tuple(found)


def _worlds(groups: Sequence[Group], *, by_data: bool) -> list[tuple[str, list[Group]]]:
  """(what they are in print, the groups of one table) of each table of such layouts."""
  found: dict[tuple, list[Group]] = {}
  for group in groups:
    key: tuple = (group.backbone, group.data, group.variant)
    if by_data:
      # Data sets have models and rates of their own: the first group of each makes the first table.
      same = (group.trained_on, group.data)
      earlier = (other for members in found.values() for other in members)
      key = (group.data, sum((other.trained_on, other.data) == same for other in earlier))
    found.setdefault(key, []).append(group)
  return [(_told(members), members) for members in found.values()]


def _told(groups: Sequence[Group]) -> str:
  """The models and variants of groups."""
  parts = [part for group in groups for part in (group.backbone, group.variant) if part]
  return ", ".join(dict.fromkeys(parts))


def _means(layout: Layout, groups: Sequence[Group], ours: str) -> list[Table]:
  """What the paper computes of a table, if it does and there is enough of ours."""
  if layout.paper != HEWITT:
    return []

  def score(figure: Figure) -> float | None:
    _, cell = _ours(groups, figure)
    return cell.value if cell else None

  means = aggregates.table(score, ours=ours)
  return [means] if means else []


def _table(layout: Layout, groups: Sequence[Group], ours: str) -> Table | None:
  printed = [
    figure
    for figure in published.figures()
    if (figure.paper, figure.table) == (layout.paper, layout.table)
  ]
  figures = [figure for figure in printed if figure.metric != _CHANGE]
  changes = {_measured(figure): figure for figure in printed if figure.metric == _CHANGE}
  # Of several printed models ours stand beside the first one's.
  model = figures[0].model
  found = [
    _ours(groups, each) if layout.by_data or each.model == model else (None, None)
    for each in figures
  ]
  used = {
    group.trained_on: group
    for figure, (group, _) in zip(figures, found, strict=True)
    if group and figure.method != "pretrained"
  }
  if not used:
    return None
  pairs: dict[tuple[tuple, tuple], tuple[Cell | None, Cell]] = {
    (_key(figure, layout.rows), _column(figure, figures, layout)): (
      cell,
      _quoted(figure, changes.get(_measured(figure))),
    )
    for figure, (_, cell) in zip(figures, found, strict=True)
  }
  rows = _nested([row for row, _ in pairs])
  columns = _nested([column for _, column in pairs])
  places = [
    (column, number)
    for column in columns
    for number in (0, 1)
    # A column of a model that nobody ran would be as wide as one with figures.
    if any((pair := pairs.get((row, column))) and pair[number] for row in rows)
  ]
  return Table(
    title=f"Table {layout.table} of {layout.paper}: {layout.about}{ours}",
    columns=tuple(
      Column(
        group=", ".join(filter(None, column)),
        header="quoted" if number else "ours",
        kind=QUOTED if number else OURS,
      )
      for column, number in places
    ),
    rows=tuple(
      Row(
        label=row[0],
        detail=", ".join(row[1:]),
        cells=tuple(pairs.get((row, column), (None, None))[number] for column, number in places),
        strong=row[0] == "Norm. Avg",
      )
      for row in rows
    ),
    notes=_notes(layout, figures, list(used.values())),
  )


def _ours(groups: Sequence[Group], figure: Figure) -> tuple[Group | None, Cell | None]:
  """The run that was tuned and measured as a printed one, and its score."""
  for group in groups:
    if not published.is_of(figure, group.trained_on) or _own_data(group, figure):
      continue
    names = _XSUM_METHODS if figure.task == "xsum" else _METHODS
    method = names.get(figure.method, figure.method)
    # Of a row at several values of settings the chosen one.
    method = next((points.chosen for points in group.points if points.row == method), method)
    if method in group.runs and (cell := _cell(group, method, figure)):
      return group, cell
  return None, None


def _cell(group: Group, method: str, figure: Figure) -> Cell | None:
  runs = group.runs[method]
  if figure.task == "norm_avg":
    if group.unseen != averages.PUBLISHED or figure.shots is None:
      return None
    base = group.runs.get("pretrained", ()) if method != "pretrained" else ()
    return runs_lib.average_cell(runs, shots=figure.shots, pretrained=base)
  # A printed part of a test set is a task of its own here.
  part = figure.split.removeprefix("test").strip("_")
  for metric in _METRICS.get(figure.metric, (figure.metric,)):
    for task in (f"{figure.task}_{part}", figure.task if part in _WHOLE else ""):
      if figure.shots:
        cell = runs_lib.task_cell(runs, task=task, shots=figure.shots, metric=metric)
      else:
        cell = runs_lib.tuned_cell(runs, task=task, method=method, metric=metric)
      if cell:
        return cell
  return None


def _own_data(group: Group, figure: Figure) -> bool:
  """Whether a printed number is of other data than the group's task of that name."""
  measured = set(group.unseen) if figure.task == "norm_avg" else {figure.task}
  if figure.method != "pretrained":
    measured |= set(group.tuned_tasks)
  return bool(measured & group.own_tasks)


def _nested(keys: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
  """Different keys in their order, those of one first part together: a method's numbers of shots."""
  first = list(dict.fromkeys(key[0] for key in keys))
  return sorted(dict.fromkeys(keys), key=lambda key: first.index(key[0]))


def _measured(figure: Figure) -> tuple:
  """What a number shares with the one that is printed in brackets below it."""
  return figure.trained_on, figure.method, figure.task, figure.shots


def _quoted(figure: Figure, change: Figure | None) -> Cell:
  return Cell(
    value=float(figure.hundredfold),
    printed=figure.hundredfold,
    difference=change.value if change else None,
    printed_difference=change.text if change else "",
    source=figure.source,
    note=figure.note,
  )


def _column(figure: Figure, figures: Sequence[Figure], layout: Layout) -> tuple[str, ...]:
  """Of a figure without demonstrations the first column of its method: it is printed across all of them."""
  if "shots" in layout.columns and not figure.shots:
    figure = next((each for each in figures if each.method == figure.method and each.shots), figure)
  return _key(figure, layout.columns)


def _key(figure: Figure, fields: Sequence[str]) -> tuple[str, ...]:
  return tuple(_printed(field, getattr(figure, field)) for field in fields)


def _printed(field: str, value: object) -> str:
  if field == "method":
    return PRINTED[str(value)]
  if field == "shots":
    return "" if value is None else f"{value}-shot"
  if field == "trained_on":
    return "" if value == "none" else f"tuned on {value}"
  if field == "split" and value in _DISTRIBUTIONS:
    return _DISTRIBUTIONS[str(value)]
  if field == "split":
    return "" if value == "test" else str(value).removeprefix("test_").replace("_", " ")
  return "Norm. Avg" if value == "norm_avg" else str(value)


def _notes(layout: Layout, figures: Sequence[Figure], groups: Sequence[Group]) -> tuple[str, ...]:
  models = ", ".join(dict.fromkeys(figure.model for figure in figures))
  notes = [
    f"quoted: printed figures of {layout.paper}, Table {layout.table}, of {models}; not ours. Ours are of"
    " another model or other data: compare signs and order, not sizes."
  ]
  if layout.remark:
    notes.append(layout.remark)
  for group in groups:
    said = {aspect: ours for aspect, ours, _ in differences.differences(group)}
    aspects = ("model", "data", "test sets", "decoding", "training", "seeds")
    told = "; ".join(f"{aspect}: {said[aspect]}" for aspect in aspects)
    notes.append(f"Ours, tuned on {group.trained_on}: {told}.")
  return tuple(notes)
