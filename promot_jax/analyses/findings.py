"""What an analysis gives: rows of figures, charts of them, and what a reader should know.

findings = ForgettingCurve()([directory])
findings.records()                            the rows as plain values
write(findings, "here", name="forgetting")    here/forgetting.csv, .json, .png and .svg
"""

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from promot_jax import errors
from promot_jax.analyses import charts
from promot_jax.analyses.charts import Chart
from promot_jax.evaluation import escaping, whole_files
from promot_jax.experiments.model_directory import ModelDirectory

FORMAT = 1

Source = ModelDirectory | pathlib.Path
"""What an analysis is about: a run where it lies, or a file of values that somebody trained."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
  """The figures of one analysis.

  rows: at least one, frozen dataclasses of one class; its fields are the columns.
  charts: by name; the one named '' is the analysis's own.
  notes: sentences about what was left out or how figures are to be read.
  """

  title: str
  rows: Sequence[Any]
  charts: Mapping[str, Chart]
  notes: Sequence[str] = ()

  def __post_init__(self):
    if not self.rows:
      raise errors.DataError(f"{self.title}: there is nothing to show.")
    for name in ("rows", "notes"):
      object.__setattr__(self, name, tuple(getattr(self, name)))

  @property
  def columns(self) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(self.rows[0]))

  def records(self) -> list[dict[str, Any]]:
    """The rows as JSON values; what is not known is None."""
    return [whole_files.plain(dataclasses.asdict(row)) for row in self.rows]


class Analysis(Protocol):
  """A frozen keyword-only dataclass of settings, called with what it is about."""

  def __call__(self, sources: Sequence[Source]) -> Findings:
    """The figures; what was computed before is found on the disk.

    Raises:
      ConfigError: a source is of another kind than it needs, or a setting does not fit.
      DataError: the sources hold too little.
    """


def comma_separated(findings: Findings) -> str:
  """A line of columns and a line for each row."""
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(findings.columns)
  for record in findings.records():
    writer.writerow([escaping.spreadsheet(value) for value in record.values()])
  return buffer.getvalue()


def as_json(findings: Findings, **about: Any) -> dict[str, Any]:
  """Everything but the charts.

  Args:
    about: what else is kept beside it, such as the settings.
  """
  return {
    "format": FORMAT,
    **about,
    "title": findings.title,
    "notes": list(findings.notes),
    "rows": findings.records(),
    "charts": {name: chart.words for name, chart in findings.charts.items()},
  }


def write(
  findings: Findings, folder: str | os.PathLike, *, name: str, **about: Any
) -> list[pathlib.Path]:
  """Writes figures and charts into a folder, each file whole or not at all; returns their paths.

  Args:
    name: which the files have.
    about: see `as_json`.

  Raises:
    CannotWrite: the folder cannot be written.
  """
  base = pathlib.Path(folder)
  # All drawn before the first is written: a chart that cannot be drawn leaves nothing behind.
  drawn = {
    f"{name}-{part}.{kind}" if part else f"{name}.{kind}": charts.draw(chart, kind)
    for part, chart in findings.charts.items()
    for kind in ("png", "svg")
  }
  whole_files.write_text(base / f"{name}.csv", comma_separated(findings))
  whole_files.write_json(base / f"{name}.json", as_json(findings, **about))
  for file, content in drawn.items():
    whole_files.write_bytes(base / file, content)
  return [base / file for file in (f"{name}.csv", f"{name}.json", *drawn)]
