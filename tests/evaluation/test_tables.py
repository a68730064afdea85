"""Renderings of a small table."""

import csv
import dataclasses
import io

from promot_jax.evaluation import escaping, tables
from promot_jax.evaluation.tables import Cell, Column, Row, Table

OURS = Cell(value=43.137, spread=0.921, kind="sd", difference=-1.9, count=5)
QUOTED = Cell(
  value=20.1,
  printed="20.10",
  difference=2.58,
  printed_difference="+2.58",
  source="Wang et al. 2024, Table 3",
)
TABLE = Table(
  title="Tuned on rte",
  columns=(
    Column(group="ProMoT", header="ours"),
    Column(group="ProMoT", header="paper", kind="quoted"),
    Column(group="Joint", header="ours"),
  ),
  rows=(
    Row(label="Norm. Avg", detail="1-shot", cells=(OURS, QUOTED, None), strong=True),
    Row(label="cb", detail="1-shot", cells=(Cell(value=66.0), None, Cell(value=8.5))),
  ),
  notes=("A note.",),
)


def test_figures_show_spread_and_difference_and_quoted_ones_their_printed_digits():
  assert OURS.text() == "43.14 ±0.92 (-1.90)"
  assert QUOTED.text() == "20.10 (+2.58)"


def test_text_is_aligned_below_group_headings():
  assert tables.text(TABLE, width=100) == (
    "Tuned on rte\n"
    "============\n"
    "\n"
    "                  | ProMoT                              | Joint\n"
    "                  |                ours           paper |  ours\n"
    "------------------+-------------------------------------+------\n"
    "Norm. Avg  1-shot | 43.14 ±0.92 (-1.90)   20.10 (+2.58) |     -\n"
    "cb  1-shot        |               66.00               - |  8.50\n"
    "\n"
    "A note.\n"
  )


def test_wide_tables_are_cut_between_groups():
  narrow = tables.text(TABLE, width=60)
  assert narrow.count("Norm. Avg  1-shot |") == 2
  assert max(map(len, narrow.splitlines())) <= 60


def test_markdown_has_one_heading_and_marks_strong_rows():
  lines = tables.markdown(TABLE).splitlines()
  assert lines[2] == "|  | ProMoT, ours | ProMoT, paper | Joint, ours |"
  assert lines[4] == "| **Norm. Avg 1-shot** | **43.14 ±0.92 (-1.90)** | **20.10 (+2.58)** |  |"


def test_markdown_cannot_be_broken_by_a_name():
  hostile = escaping.markdown("a|b <img src=x> [link](x) `code`\nnew line")
  assert hostile == "a\\|b &lt;img src=x&gt; \\[link\\](x) \\`code\\` new line"


def test_csv_holds_every_figure_with_its_source():
  lines = list(csv.DictReader(io.StringIO(tables.comma_separated([TABLE]))))
  assert len(lines) == 4
  assert lines[1]["value"] == "20.10"
  assert lines[1]["source"] == "Wang et al. 2024, Table 3"
  assert float(lines[0]["value"]) == 43.137
  assert (lines[0]["runs"], lines[1]["runs"]) == ("5", "")


def test_csv_text_is_never_a_formula():
  table = Table(
    title="=HYPERLINK(1)",
    columns=(Column(group="@x", header="ours"),),
    rows=(Row(label="-cmd", detail="", cells=(Cell(value=-1.5),)),),
  )
  (line,) = csv.DictReader(io.StringIO(tables.comma_separated([table])))
  assert (line["table"], line["method"], line["row"]) == ("'=HYPERLINK(1)", "'@x", "'-cmd")
  assert float(line["value"]) == -1.5


def test_empty_cells_stay_empty_and_numbers_stay_numbers_in_csv():
  figures = Table(
    title="t",
    columns=(Column(group="m", header="ours"),),
    rows=(
      Row(label="a", detail="", cells=(Cell(value=-3.2),)),
      Row(label="b", detail="", cells=(Cell(value=2.58, printed="+2.58"),)),
    ),
  )
  lines = list(csv.DictReader(io.StringIO(tables.comma_separated([figures]))))
  assert [line["detail"] for line in lines] == ["", ""]
  assert [line["source"] for line in lines] == ["", ""]
  assert [line["value"] for line in lines] == ["-3.2", "+2.58"]


def test_only_text_that_a_spreadsheet_would_run_is_marked():
  for formula in ("=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1"):
    assert escaping.spreadsheet(formula).startswith("'"), formula
  for plain in ("", "-3.2", "+1e5", "a=b", "rte", 3, -0.5, None):
    assert escaping.spreadsheet(plain) == plain


def test_a_terminal_gets_no_escape_sequence_from_a_name():
  table = dataclasses.replace(
    TABLE, title="a\x1b[2Jb", notes=("\u202eabc",), columns=(Column(group="m\x07", header="x"),) * 3
  )
  shown = tables.text(table)
  assert "a⟨U+001B⟩[2Jb" in shown and "⟨U+202E⟩abc" in shown and "m⟨U+0007⟩" in shown
  assert not set("\x1b\x07\u202e") & set(shown)
