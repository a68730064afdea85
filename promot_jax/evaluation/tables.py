"""A table of scores and its plain renderings: terminal text, Markdown, CSV, JSON values.

Columns come in groups: a method, with our figure and, where it is printed, the paper's.  Quoted
figures keep their printed digits and say where they stand.
"""

import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import Any

from promot_jax.evaluation import escaping
from promot_jax.printable import visible

OURS, QUOTED = "ours", "quoted"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """One figure.

  Args:
    value: the score; spread: its plus-minus, the standard deviation over seeds (`kind` sd); both with
      `digits` decimals.
    low, high: limits of the score of one run (`kind` ci): 95 % over test examples.
    difference: from the pretrained model, printed in brackets.
    count: number of runs averaged.
    printed, printed_difference: digits to show instead, for quoted figures; source: where printed.
    note: a remark on this figure alone.
    first: how many of the first examples it is of, where nothing fuller exists; None: it is of all.
  """

  value: float
  spread: float | None = None
  low: float | None = None
  high: float | None = None
  kind: str = ""
  difference: float | None = None
  count: int = 1
  printed: str = ""
  printed_difference: str = ""
  source: str = ""
  note: str = ""
  first: int | None = None
  digits: int = 2

  @property
  def reach(self) -> tuple[float, float]:
    """Lengths of the error bar below and above the value."""
    if self.low is not None and self.high is not None:
      return max(0.0, self.value - self.low), max(0.0, self.high - self.value)
    return self.spread or 0.0, self.spread or 0.0

  def text(self) -> str:
    """As shown: `43.14 ±0.92 (-1.90)`, or of one run `94.79 [88.4, 97.8] (-1.90)`."""
    score, interval, difference, first = self.parts()
    return " ".join(filter(None, (score, interval, difference, first)))

  def parts(self) -> tuple[str, str, str, str]:
    """Score with its deviation, interval, difference, and how much it is of; empty where there is none."""
    score = self.printed or f"{self.value:,.{self.digits}f}"
    if self.spread is not None:
      score += f" ±{self.spread:.{self.digits}f}"
    limited = self.low is not None and self.high is not None
    known = self.difference is not None
    return (
      score,
      f"[{self.low:.1f}, {self.high:.1f}]" if limited else "",
      f"({self.printed_difference or f'{self.difference:+.2f}'})" if known else "",
      "" if self.first is None else f"first {self.first}",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
  """A column below a group heading; `kind` is `ours` or `quoted`."""

  group: str
  header: str
  kind: str = OURS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """A line of figures: what they measure, and one cell (or None) for each column."""

  label: str
  detail: str
  cells: tuple[Cell | None, ...]
  strong: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """Columns by rows, with remarks that belong below."""

  title: str
  columns: tuple[Column, ...]
  rows: tuple[Row, ...]
  notes: tuple[str, ...] = ()

  def groups(self) -> Iterator[tuple[str, list[int]]]:
    """Group headings in order, each with the positions of its columns."""
    positions: dict[str, list[int]] = {}
    for index, column in enumerate(self.columns):
      positions.setdefault(column.group, []).append(index)
    yield from positions.items()


def text(table: Table, *, width: int = 120) -> str:
  """For a terminal: lines of at most `width` characters where a group's columns allow it.

  Wide tables are cut between groups into blocks that repeat the row labels.
  """
  table = _printable(table)
  labels = [f"{row.label}  {row.detail}".rstrip() for row in table.rows]
  label_width = max(map(len, labels), default=0)
  parts = [table.title, "=" * min(width, len(table.title))]
  for block in blocks(table, label_width=label_width, width=width):
    parts += ["", *_block(table, labels, label_width, block)]
  return "\n".join([*parts, "", *table.notes]).rstrip() + "\n"


def blocks(table: Table, *, label_width: int, width: int) -> list[list[tuple[str, list[int]]]]:
  """The groups of columns, cut into parts of at most `width` characters with their row labels."""
  found: list[list[tuple[str, list[int]]]] = [[]]
  used = label_width
  for group in table.groups():
    # Never inside of a group: ours and the quoted figure stay side by side.
    needed = _group_width(table, group)
    if found[-1] and used + needed > width:
      found.append([])
      used = label_width
    found[-1].append(group)
    used += needed
  return found


def markdown(table: Table) -> str:
  """A GitHub table with its title and notes."""
  headers = ["", *(_heading(column) for column in table.columns)]
  lines = [
    f"### {escaping.markdown(table.title)}",
    "",
    "| " + " | ".join(headers) + " |",
    "|---|" + "--:|" * len(table.columns),
  ]
  for row in table.rows:
    label = escaping.markdown(f"{row.label} {row.detail}".strip())
    cells = [cell.text() if cell else "" for cell in row.cells]
    if row.strong:
      label, cells = f"**{label}**", [f"**{cell}**" if cell else "" for cell in cells]
    lines.append(f"| {label} | " + " | ".join(cells) + " |")
  return (
    "\n".join([*lines, "", *(f"{escaping.markdown(note)}  " for note in table.notes)]).rstrip()
    + "\n"
  )


def records(table: Table) -> list[dict[str, Any]]:
  """One flat record for each figure: what the CSV and JSON forms hold."""
  return [
    {
      "table": table.title,
      "row": row.label,
      "detail": row.detail,
      "method": column.group,
      "kind": column.kind,
      # Quoted figures with the digits that are printed, ours as they were computed.
      "value": cell.printed or cell.value,
      "spread": cell.spread,
      "spread_kind": cell.kind,
      "low": cell.low,
      "high": cell.high,
      "difference_from_pretrained": cell.difference,
      "runs": cell.count if column.kind == OURS else None,
      "first_examples": cell.first,
      "source": cell.source,
      "note": cell.note,
    }
    for row in table.rows
    for column, cell in zip(table.columns, row.cells, strict=True)
    if cell
  ]


def comma_separated(tables: Sequence[Table]) -> str:
  """CSV with a header, one line for each figure of all tables."""
  lines = [record for table in tables for record in records(table)]
  buffer = io.StringIO()
  if lines:
    writer = csv.DictWriter(buffer, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
      {key: escaping.spreadsheet(value) for key, value in line.items()} for line in lines
    )
  return buffer.getvalue()


def _printable(table: Table) -> Table:
  """The same table without characters that a terminal would obey."""
  return dataclasses.replace(
    table,
    title=visible(table.title),
    columns=tuple(
      dataclasses.replace(column, group=visible(column.group), header=visible(column.header))
      for column in table.columns
    ),
    rows=tuple(
      dataclasses.replace(row, label=visible(row.label), detail=visible(row.detail))
      for row in table.rows
    ),
    notes=tuple(map(visible, table.notes)),
  )


def _group_width(table: Table, group: tuple[str, list[int]]) -> int:
  heading, positions = group
  return max(len(heading) + 3, sum(_column_width(table, i) + 3 for i in positions))


def _column_width(table: Table, index: int) -> int:
  cells = [cell.text() for row in table.rows if (cell := row.cells[index])]
  return max(map(len, [table.columns[index].header, *cells]))


def _block(table: Table, labels: list[str], label_width: int, block: list) -> list[str]:
  """Lines of one block: group headings, column headings, rule, rows."""
  top, second = " " * label_width, " " * label_width
  bodies = [label.ljust(label_width) for label in labels]
  for heading, positions in block:
    widths = {i: _column_width(table, i) for i in positions}
    inner = sum(widths.values()) + 3 * (len(positions) - 1)
    if len(heading) > inner:  # the heading is wider than its figures: the last column grows
      widths[positions[-1]] += len(heading) - inner
      inner = len(heading)
    top += " | " + heading.ljust(inner)
    for n, i in enumerate(positions):
      mark = " | " if n == 0 else "   "
      second += mark + table.columns[i].header.rjust(widths[i])
      for line, row in enumerate(table.rows):
        cell = row.cells[i]
        bodies[line] += mark + (cell.text() if cell else "-").rjust(widths[i])
  rule = "".join("+" if character == "|" else "-" for character in second)
  return [top.rstrip(), second.rstrip(), rule, *(body.rstrip() for body in bodies)]


def _heading(column: Column) -> str:
  return escaping.markdown(f"{column.group}, {column.header}" if column.header else column.group)
