"""A report as a LaTeX document of tables, each of which can be taken over into a paper.

It asks for packages of every TeX distribution only.  Letters beyond Latin ones need LuaLaTeX or XeLaTeX with
a font that has them.
"""

import math
from collections.abc import Iterable, Sequence

from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation import samples as samples_lib
from promot_jax.evaluation import tables as tables_lib
from promot_jax.evaluation.escaping import latex as _safe
from promot_jax.evaluation.samples import Sample
from promot_jax.evaluation.sections import Section
from promot_jax.evaluation.tables import QUOTED, Cell, Table

_PREAMBLE = r"""% A report of promot_jax: pdflatex, lualatex or xelatex makes a page of it.
\documentclass[a4paper,landscape]{article}
\usepackage{iftex}
\ifPDFTeX\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\fi
\usepackage{textcomp,booktabs,float,longtable}
\usepackage[margin=15mm]{geometry}
\setlength{\parindent}{0pt}
\setlength{\tabcolsep}{4pt}
\begin{document}
"""
_WIDTH = 150  # characters of a line in \scriptsize across the page, in the columns of a table
_NOTE_WIDTH = 200  # characters of a line of running text
_HEIGHT = 60  # lines of a page in \scriptsize, below a caption
_HEAD_LINES = 5  # what the heads, rules and distance of a tabular take beside its rows
_LONGEST_TEXT = 600


def document(title: str, sections: Iterable[Section], papers: Sequence[Table] = ()) -> str:
  """The whole document: the papers' tables first, then those of every section."""
  parts = [_PREAMBLE, rf"\section*{{{_safe(title)}}}", *map(table, papers)]
  for section in sections:
    parts += [rf"\section*{{{_safe(section.title)}}}", table(section.summary)]
    parts += [_differences(section), *map(table, section.tables)]
    if section.samples:
      parts += [rf"\subsection*{{Sample outputs}}{_safe(samples_lib.RULE)}"]
      parts += map(_sample, section.samples)
  return "\n".join([*parts, r"\end{document}", ""])


def table(shown: Table) -> str:
  """A table in the style of booktabs, cut between groups of columns where it is wide.

  What is taller than a page has its own `table` for each page: TeX does not break one, and drops what hangs over.
  """
  labels = [" ".join(filter(None, (row.label, row.detail))) for row in shown.rows]
  label_width = max(map(len, labels), default=0)
  parts = []
  for block in tables_lib.blocks(shown, label_width=label_width, width=_WIDTH):
    columns = [index for _, positions in block for index in positions]
    heads = ["", *(_safe(shown.columns[index].header) for index in columns)]
    rows = [
      _line(
        [
          _strong(_safe(label), row.strong),
          *(
            _strong(_figure(row.cells[index], shown.columns[index].kind), row.strong)
            for index in columns
          ),
        ]
      )
      for label, row in zip(labels, shown.rows, strict=True)
    ]
    most = _HEIGHT - _HEAD_LINES
    for start in range(0, len(rows), most):
      page = rows[start : start + most]
      parts.append((len(page) + _HEAD_LINES, _tabular(block, heads, page)))
  if shown.notes:
    notes = [rf"\par\smallskip {_safe(note)}" for note in shown.notes]
    lines = sum(1 + math.ceil(len(note) / _NOTE_WIDTH) for note in shown.notes)
    parts.append((lines, "\n".join([r"\par\raggedright", *notes])))
  return "".join(
    _floating(shown.title if number == 0 else f"{shown.title}, continued", page)
    for number, page in enumerate(_pages(parts))
  )


def _pages(parts: Iterable[tuple[int, str]]) -> list[str]:
  """Joins (lines, text) to pages of at most `_HEIGHT` lines."""
  pages: list[list[str]] = [[]]
  used = 0
  for lines, text in parts:
    if pages[-1] and used + lines > _HEIGHT:
      pages.append([])
      used = 0
    pages[-1].append(text)
    used += lines
  return ["\n\n\\medskip\n".join(page) for page in pages]


def _tabular(
  block: Sequence[tuple[str, Sequence[int]]], heads: Sequence[str], rows: Sequence[str]
) -> str:
  return "\n".join(
    [
      rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
      r"\toprule",
      *_groups(block),
      _line(heads),
      r"\midrule",
      *rows,
      r"\bottomrule",
      r"\end{tabular}",
    ]
  )


def _groups(block: Sequence[tuple[str, Sequence[int]]]) -> list[str]:
  """The line with the names of the groups, and the rules below them."""
  names, rules, start = [""], [], 2
  for name, positions in block:
    names.append(rf"\multicolumn{{{len(positions)}}}{{c}}{{{_safe(name)}}}")
    rules.append(rf"\cmidrule(lr){{{start}-{start + len(positions) - 1}}}")
    start += len(positions)
  return [_line(names), " ".join(rules)]


def _figure(cell: Cell | None, kind: str) -> str:
  if cell is None:
    return ""
  # Quoted figures in italics, so that nobody takes them for ours.
  return rf"\textit{{{_safe(cell.text())}}}" if kind == QUOTED else _safe(cell.text())


def _strong(content: str, strong: bool) -> str:
  return rf"\textbf{{{content}}}" if strong and content else content


def _differences(section: Section) -> str:
  lines = [_line(["", "ours", "paper"]), r"\midrule"]
  lines += [_line(map(_safe, line)) for line in section.differences]
  return _words("What differs from the paper", lines, ("0.1", "0.5", "0.3"))


def _sample(sample: Sample) -> str:
  form = runs_lib.form_of(sample.shots)
  facts = [
    ("input", sample.input),
    ("right", " | ".join(sample.targets)),
    *((answer.method, answer.output) for answer in sample.answers),
  ]
  lines = [_line([_safe(name), _safe(_cut(text))]) for name, text in facts]
  return _words(f"{sample.task}, {form}, example {sample.index}", lines, ("0.15", "0.78"))


def _words(title: str, lines: Sequence[str], widths: Sequence[str]) -> str:
  """A table of texts that are broken into lines; widths: shares of the page's."""
  columns = "".join(rf"p{{{width}\linewidth}}" for width in widths)
  # A longtable goes on over the page: nobody knows how tall texts are.
  return "\n".join(
    [
      "",
      rf"{{\scriptsize\begin{{longtable}}{{{columns}}}",
      rf"\caption{{{_safe(title)}}} \\",
      r"\toprule",
      *lines,
      r"\bottomrule",
      r"\end{longtable}}",
    ]
  )


def _floating(title: str, body: str) -> str:
  return f"\n\\begin{{table}}[H]\\centering\\scriptsize\n\\caption{{{_safe(title)}}}\n{body}\n\\end{{table}}"


def _line(cells: Iterable[str]) -> str:
  return " & ".join(cells) + r" \\"


def _cut(text: str) -> str:
  """Of a long text the end, where the question stands."""
  return text if len(text) <= _LONGEST_TEXT else "[...] " + text[-_LONGEST_TEXT:]
