"""Reports of evaluated models: the paper's table with our figures beside the quoted ones.

    collect(folders) -> build(runs) -> Report -> text, Markdown, CSV, LaTeX, JSON, HTML, PNG

Nothing is read but result folders; neither JAX nor TensorFlow is imported.
"""

import dataclasses
import os
import pathlib
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from promot_jax import errors, guarded_json
from promot_jax.evaluation import curves as curves_lib
from promot_jax.evaluation import escaping, latex, paper_tables, tables
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation import sections as sections_lib
from promot_jax.evaluation.curves import Curves
from promot_jax.evaluation.runs import Run
from promot_jax.evaluation.sections import Section
from promot_jax.evaluation.tables import Table
from promot_jax.evaluation.whole_files import write_bytes, write_json, write_text
from promot_jax.printable import visible

FORMATS = ("txt", "md", "csv", "tex", "json", "html", "png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """Everything that is shown, in order.

  papers: the papers' own tables, of which some model was tuned.
  curves: scores over numbers of training examples, and over lengths of methods.
  left_out: a sentence about each run, or part of one, that is missing because a file is damaged.
  remarks: sentences about the files that everything was read from.
  """

  title: str
  sections: tuple[Section, ...]
  papers: tuple[Table, ...] = ()
  curves: tuple[Curves, ...] = ()
  left_out: tuple[str, ...] = ()
  remarks: tuple[str, ...] = ()

  @property
  def tables(self) -> list[Table]:
    """Every table of every section, the papers', and those of curves."""
    return [*(table for part in self.sections for table in part.tables), *self.apart]

  @property
  def apart(self) -> tuple[Table, ...]:
    """The tables of no section."""
    return (*self.papers, *(curves.table for curves in self.curves))


def build(runs: Iterable[Run], *, title: str = "Few-shot ability after adaptation") -> Report:
  """A report on runs that `runs.collect` found.

  Raises:
    DataError: there are no runs.
  """
  runs = list(runs)
  groups = runs_lib.group(runs)
  if not groups:
    raise errors.DataError("A report needs at least one evaluated model; run `promot eval` first.")
  return Report(
    title=title,
    sections=tuple(map(sections_lib.section, groups)),
    papers=paper_tables.of_groups(groups),
    curves=curves_lib.of_runs(runs),
  )


def write(
  directories: Sequence[str | os.PathLike],
  output: str | os.PathLike,
  *,
  formats: Sequence[str] = ("html", "md", "csv", "tex", "json", "png"),
  title: str = "Few-shot ability after adaptation",
) -> tuple[Report, list[pathlib.Path]]:
  """Reads result folders and writes the report beside `output`, one file for each format.

  Args:
    output: path of the report; its ending is replaced by each format's.  PNG plots are written as
      `OUTPUT-PLOT.png`.

  Raises:
    ConfigError: an unknown format.
    DataError: a folder holds no results.
    DamagedRecord: the only results are damaged.
    CannotWrite: the output cannot be written.
  """
  unknown = [name for name in formats if name not in FORMATS]
  if unknown:
    raise errors.ConfigError(f"Report format '{unknown[0]}' is unknown; use {', '.join(FORMATS)}.")
  # What there is: a damaged run is left out and told, as long as others are sound.
  left_out: list[str] = []
  found = runs_lib.collect(directories, report=left_out.append)
  left_out += damaged_predictions(found)
  remark = guarded_json.remark(path for run in found for path in run.store.records())
  report = dataclasses.replace(
    build(found, title=title), left_out=tuple(left_out), remarks=(remark,) if remark else ()
  )
  # What is written: a file for each format, named alike.
  base = pathlib.Path(output)
  # Only an ending that is a format: 'run.1' is a name with a dot.
  base = base.with_suffix("") if base.suffix.lstrip(".") in FORMATS else base
  written = []
  for name in formats:
    if name == "png":
      written += _write_plots(report, base)
      continue
    path = base.with_name(f"{base.name}.{name}")
    if name == "json":
      write_json(path, as_json(report))
    else:
      write_text(
        path,
        {"txt": _full_text, "md": markdown, "csv": _csv, "tex": _latex, "html": _html}[name](
          report
        ),
      )
    written.append(path)
  return report, written


def text(report: Report, *, width: int = 120, full: bool = False) -> str:
  """The report for a terminal: summary and costs of each section, or, if `full`, all of its tables."""
  parts = [visible(report.title), ""]
  for section in report.sections:
    parts.append(tables.text(section.summary, width=width))
    if section.costs:
      parts.append(tables.text(section.costs, width=width))
    parts.append(_differences_text(section, width))
    if full:
      shown = (section.main, *section.further, *section.classes)
      parts += [tables.text(table, width=width) for table in shown]
  if full:
    parts += [tables.text(table, width=width) for table in report.apart]
  for line in report.left_out:
    parts += textwrap.wrap(f"Left out: {line}", width)
  for line in report.remarks:
    parts += textwrap.wrap(f"Note: {line}", width)
  return "\n".join(parts)


def markdown(report: Report) -> str:
  """The report in GitHub Markdown."""
  parts = [f"# {escaping.markdown(report.title)}", ""]
  for section in report.sections:
    parts += [f"## {escaping.markdown(section.title)}", "", tables.markdown(section.summary)]
    parts += ["What differs from the paper:", "", "| | ours | paper |", "|---|---|---|"]
    parts += [
      "| " + " | ".join(escaping.markdown(value) for value in line) + " |"
      for line in section.differences
    ]
    parts += ["", *(tables.markdown(table) for table in section.tables)]
  if report.papers:
    parts += ["## As the papers print it", "", *map(tables.markdown, report.papers)]
  if report.curves:
    parts += ["## Curves", "", *(tables.markdown(curves.table) for curves in report.curves)]
  if report.left_out:
    parts += ["## Left out", "", *(f"- {escaping.markdown(line)}" for line in report.left_out)]
  if report.remarks:
    parts += ["## Notes", "", *(f"- {escaping.markdown(line)}" for line in report.remarks)]
  return "\n".join(parts)


def as_json(report: Report) -> dict[str, Any]:
  """The report as JSON values: every figure with its source, every run with its record."""
  return {
    "format": 1,
    "title": report.title,
    "papers": [record for table in report.papers for record in tables.records(table)],
    "curves": [record for curves in report.curves for record in tables.records(curves.table)],
    "left_out": list(report.left_out),
    "remarks": list(report.remarks),
    "sections": [
      {
        "title": section.title,
        "trained_on": section.group.trained_on,
        "variant": section.group.variant,
        "notes": list(section.main.notes),
        # Without the summary, whose figures are those of the main table.
        "figures": [record for table in section.tables for record in tables.records(table)],
        "differences": [
          dict(zip(("aspect", "ours", "paper"), line, strict=True)) for line in section.differences
        ],
        "samples": [dataclasses.asdict(sample) for sample in section.samples],
        "runs": [
          {
            **dataclasses.asdict(run.record),
            "directory": str(run.directory),
            "selected": run.selected,
            "checkpoints": list(run.results),
          }
          for runs in section.group.runs.values()
          for run in runs
        ],
      }
      for section in report.sections
    ],
  }


def damaged_predictions(runs: Iterable[Run]) -> list[str]:
  """A sentence about each reported result whose predictions are damaged: no samples are shown."""
  found = []
  for run in runs:
    for result in run.reported:
      try:
        # The first one is enough: the whole file's digest is compared before it.
        next(run.store.predictions(run.selected, result), None)
      except errors.DamagedRecord as error:
        found.append(str(error))
  return found


def _differences_text(section: Section, width: int) -> str:
  lines = ["What differs from the paper"]
  for aspect, ours, paper in section.differences:
    for number, (who, value) in enumerate((("ours", ours), ("paper", paper))):
      head = f"  {aspect if number == 0 else '':<11}{who:<6} "
      lines += textwrap.wrap(
        visible(value), width, initial_indent=head, subsequent_indent=" " * len(head)
      ) or [head.rstrip()]
  return "\n".join([*lines, ""])


# Files.


def _full_text(report: Report) -> str:
  return text(report, full=True)


def _csv(report: Report) -> str:
  return tables.comma_separated(report.tables)


def _latex(report: Report) -> str:
  return latex.document(report.title, report.sections, report.apart)


def _html(report: Report) -> str:
  from promot_jax.evaluation import html  # brings in the plotting library

  return html.page(
    report.title,
    report.sections,
    papers=report.papers,
    curves=report.curves,
    left_out=report.left_out,
    remarks=report.remarks,
  )


def _write_plots(report: Report, base: pathlib.Path) -> list[pathlib.Path]:
  from promot_jax.evaluation import canvas, plots

  written = []
  for number, section in enumerate(report.sections):
    for name, plot in plots.section_plots(section).items():
      part = f"-{number + 1}" if len(report.sections) > 1 else ""
      path = base.with_name(f"{base.name}{part}-{name}.png")
      write_bytes(path, canvas.draw(plot, "png"))
      written.append(path)
  for number, curves in enumerate(report.curves, 1):
    path = base.with_name(f"{base.name}-curves-{number}.png")
    write_bytes(path, canvas.draw(plots.curves_plot(curves), "png"))
    written.append(path)
  return written
