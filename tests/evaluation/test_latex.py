"""The LaTeX form of a report: balanced, aligned, and without commands from names or texts."""

import re

import pytest

from hand_made_results import answer_by_hand, evaluate_by_hand
from promot_jax.evaluation import escaping, latex, report, runs, tables

HOSTILE = (
  r"\input{/etc/passwd} \write18{x} $x$ a & b \\ % {} # _ ~ ^ [x] * -- '' <script> \end{table}"
)
COMMANDS = {
  *("section*", "subsection*", "caption", "centering", "scriptsize", "par"),
  *("smallskip", "medskip", "raggedright", "linewidth", "textbf", "textit"),
  *("toprule", "midrule", "bottomrule", "cmidrule"),
  *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"),
  *("textquotedbl", "textasciigrave", "textpm", "textdagger", "dots"),
}
_TOKEN = re.compile(
  r"\\(begin|end)\{(\w+)\}|\\multicolumn\{(\d+)\}\{c\}|\\([A-Za-z]+\*?|.)|([{}&%$#_^~])", re.DOTALL
)


def read(text):
  """How many columns each row of each table fills, in order.

  Raises AssertionError at an unknown command, an open brace or environment, and active characters of TeX
  outside of their place.
  """
  body = text.split(r"\begin{document}")[1].split(r"\end{document}")[0]
  depth, environments, filled, rows = 0, [], 1, []
  for edge, environment, span, command, mark in _TOKEN.findall(body):
    if edge == "begin":
      environments.append((environment, depth))
    elif edge == "end":
      assert environments.pop() == (environment, depth)
    elif span:
      filled += int(span) - 1
    elif command == "\\":
      rows.append(filled)
      filled = 1
    elif command.strip("*").isalpha():
      assert command in COMMANDS, command
    elif mark == "&":
      assert environments[-1][0] in ("tabular", "longtable")
      filled += 1
    elif mark:
      assert mark in "{}", f"{mark} is active"
      depth += 1 if mark == "{" else -1
      assert depth >= 0
  assert not depth and not environments
  return rows


def test_every_row_of_a_table_has_a_cell_for_each_column():
  columns = [
    tables.Column(group="A", header="ours"),
    tables.Column(group="A", header="q", kind=tables.QUOTED),
    tables.Column(group="B", header="ours"),
  ]
  cells = (tables.Cell(value=1.0, difference=-2.0), None, tables.Cell(value=3.0))
  rows = (
    tables.Row(label="x", detail="y", cells=cells),
    tables.Row(label="z", detail="", cells=cells, strong=True),
  )
  shown = latex.table(tables.Table(title="T", columns=tuple(columns), rows=rows, notes=("n",)))
  assert read(rf"\begin{{document}}{shown}\end{{document}}") == [4, 4, 4, 4]
  assert r"\begin{tabular}{lrrr}" in shown
  assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in shown
  assert r"\textbf{z} & \textbf{1.00 (-2.00)} &  & \textbf{3.00} \\" in shown


def test_wide_tables_are_cut_between_groups():
  columns = tuple(tables.Column(group=f"G{n}", header="x" * 40) for n in range(6))
  row = tables.Row(label="r", detail="", cells=(tables.Cell(value=1.0),) * 6)
  shown = latex.table(tables.Table(title="T", columns=columns, rows=(row,)))
  assert shown.count(r"\begin{tabular}") == 2
  assert all(shown.count(rf"{{G{n}}}") == 1 for n in range(6))


def test_what_is_taller_than_a_page_goes_on_in_a_further_table():
  # pdflatex drops what hangs over: a page has 64 lines of \\scriptsize.
  columns = tuple(tables.Column(group=f"G{n}", header="x" * 60) for n in range(8))
  rows = tuple(
    tables.Row(label=f"row {n}", detail="", cells=(tables.Cell(value=1.0),) * 8) for n in range(70)
  )
  shown = latex.table(
    tables.Table(title="T", columns=columns, rows=rows, notes=("note " * 99,) * 9)
  )
  assert len(read(rf"\begin{{document}}{shown}\end{{document}}")) == 4 * (70 + 2 * 2)
  pages = shown.split(r"\begin{table}")[1:]
  assert all(page.count(r"\\") + page.count("note") / 40 <= 60 for page in pages)
  assert [page.split("\n")[1] for page in pages[:2]] == [r"\caption{T}", r"\caption{T, continued}"]
  assert all(shown.count(f"row {n} &") == 4 for n in range(70))


@pytest.mark.parametrize("text", [HOSTILE, "plain"])
def test_texts_of_users_cannot_become_commands(tmp_path, text):
  answers = [(f"{text} {n}", ["True" if n % 2 else text], text) for n in range(4)]
  answer_by_hand(tmp_path / "a", f"m {text}", answers)
  evaluate_by_hand(
    tmp_path / "b", f"n {text}", text=text, variant=text, backbone=text, settings={text: text}
  )
  made = report.build(runs.collect([tmp_path]), title=text)
  filled = read(latex.document(made.title, made.sections, made.papers))
  assert {3, 2} < set(filled)


def test_signs_that_tex_would_join_or_obey_stay_signs():
  assert escaping.latex("a -- b, 5 % & 'x'' [1] ±2") == (
    r"a -{}- b, 5 \% \& 'x'{}' {[}1{]} \textpm{}2"
  )
