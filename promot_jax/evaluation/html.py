"""A report as one HTML file: tables, plots, what differs, sample predictions.

The file needs nothing else: plots are embedded, there is no script and no remote address, and a
policy in the page forbids both.  Everything that came from data, models or configs is escaped.
"""

import base64
from collections.abc import Iterable, Sequence

from promot_jax.evaluation import canvas, plots
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation import samples as samples_lib
from promot_jax.evaluation.canvas import Plot
from promot_jax.evaluation.curves import Curves
from promot_jax.evaluation.escaping import html as _safe
from promot_jax.evaluation.runs import Run
from promot_jax.evaluation.samples import Sample
from promot_jax.evaluation.sections import Section
from promot_jax.evaluation.tables import QUOTED, Cell, Table

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LONGEST_TEXT = 600
_CAPTIONS = {
  "norm-avg": "Norm. Avg by method. The dotted line is the pretrained model.",
  "points": "Values that were tried, means over seeds; the large mark of a line is the one that validation chose.",
  "trade-off": "The tuned task against what is kept. Small points are seeds, large ones means.",
  "tasks": "Every unseen task.",
  "format-share": "Share of outputs in the tuned task's format.",
  "checkpoints": "Norm. Avg along training. Rings mark the reported checkpoints.",
}
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c1c1c; --quiet: #555; --line: #c4c4c4;
  --band: #f3f4f6; --quoted: #5f5000; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --text: #e8e8e8; --quiet: #b3b3b3;
  --line: #4a4d52; --band: #202327; --quoted: #e6d27a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  margin: 2rem auto; max-width: 1200px; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums;
  font-size: 13px; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; vertical-align: top;
  font-weight: 400; }
tr { background: var(--page); } tbody tr:nth-child(even) { background: var(--band); }
thead th { font-weight: 600; } thead tr:last-child th { border-bottom: 1px solid var(--line); }
.scroll { overflow: auto; max-height: 88vh; }
.scroll thead { position: sticky; top: 0; z-index: 2; }
.scroll tr > :first-child { position: sticky; left: 0; z-index: 1; background: inherit;
  text-align: left; border-right: 1px solid var(--line); white-space: normal;
  min-width: 5rem; max-width: min(22rem, 34vw); overflow-wrap: break-word; }
tr.strong > * { font-weight: 600; border-bottom: 1px solid var(--line); }
.start { border-left: 1px solid var(--line); }
.quoted { color: var(--quoted); font-style: italic; }
.detail, .reach { color: var(--quiet); font-weight: 400; font-style: normal; }
.reach { display: block; font-size: 11px; }
.note { color: var(--quiet); font-size: 13px; margin: .3rem 0; }
table.words { table-layout: fixed; width: 100%; margin: .4rem 0 1rem; }
table.words :is(td, th) { text-align: left; white-space: normal; overflow-wrap: break-word; }
table.words tr > :first-child { width: 5.8rem; padding-left: 0; color: var(--quiet); }
table.words caption { text-align: left; font-weight: 600; }
table.words .score { display: block; color: var(--quiet); font-size: 12px; }
@media (max-width: 600px) { table.differs tr { display: grid; grid-template-columns: 1fr 1fr; }
  table.differs tr > :first-child { grid-column: 1 / 3; } }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
figure { margin: 1rem 0; width: 452px; max-width: 100%; }
img { max-width: 100%; height: auto; background: #fff; }
figcaption { color: var(--quiet); font-size: 13px; }
summary { cursor: pointer; padding: .3rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 12px; }
"""


def page(
  title: str,
  sections: Iterable[Section],
  *,
  papers: Sequence[Table] = (),
  curves: Sequence[Curves] = (),
  left_out: Sequence[str] = (),
  remarks: Sequence[str] = (),
) -> str:
  """The whole page.

  Args:
    papers: the papers' own tables, with our figures in them.
    curves: scores over a number that runs differ in.
    left_out: sentences about what is missing.
    remarks: sentences about the files.
  """
  # What counts comes first: the summary and what differs, then plots, then every table.
  body = [f"<h1>{_safe(title)}</h1>"]
  for section in sections:
    body += [f"<h2>{_safe(section.title)}</h2>", _table(section.summary), _differences(section)]
    body += [
      '<div class="plots">',
      *(
        _plot(f"{section.title}. {_CAPTIONS[name]}", plot)
        for name, plot in plots.section_plots(section).items()
      ),
      "</div>",
    ]
    body += [_table(table) for table in section.measured]
    if section.classes:
      body += [_folded("Classes and confusion matrices", map(_table, section.classes))]
    if section.samples:
      note = f'<p class="note">{_safe(samples_lib.RULE)}</p>'
      body += [_folded("Sample outputs side by side", [note, *map(_sample, section.samples)])]
    runs = [run for runs in section.group.runs.values() for run in runs]
    body += [_folded("How each model was made", map(_run, runs))]
  if papers:
    body += ["<h2>As the papers print it</h2>", *map(_table, papers)]
  if curves:
    body += ["<h2>Curves</h2>"]
  for each in curves:
    body += [_plot(f"{each.title}. Bars are as in the table.", plots.curves_plot(each))]
    body += [_table(each.table)]
  if left_out:
    body += ["<h2>Left out</h2>", *(f"<p>{_safe(line)}</p>" for line in left_out)]
  if remarks:
    body += ["<h2>Notes</h2>", *(f"<p>{_safe(line)}</p>" for line in remarks)]
  # The policy stands before everything that it is to hold for.
  return "\n".join(
    [
      "<!doctype html>",
      '<html lang="en"><head><meta charset="utf-8">',
      f'<meta http-equiv="Content-Security-Policy" content="{_safe(_POLICY)}">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f"<title>{_safe(title)}</title><style>{_STYLE}</style></head><body>",
      *body,
      "</body></html>\n",
    ]
  )


def _table(table: Table) -> str:
  """Two heading rows (method, ours or quoted) and one line for each row."""
  starts = {positions[0] for _, positions in table.groups()}
  # A method's heading spans what is ours and what is quoted.
  top = "".join(
    f'<th class="start" scope="colgroup" colspan="{len(positions)}">{_safe(name)}</th>'
    for name, positions in table.groups()
  )
  second = "".join(
    f'<th scope="col" class="{_classes(column.kind, i in starts)}">{_safe(column.header)}</th>'
    for i, column in enumerate(table.columns)
  )
  lines = []
  for row in table.rows:
    cells = "".join(
      f'<td class="{_classes(column.kind, i in starts)}"{_hint(cell)}>{_figure(cell)}</td>'
      for i, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True))
    )
    label = f'{_safe(row.label)} <span class="detail">{_safe(row.detail)}</span>'
    strong = ' class="strong"' if row.strong else ""
    lines.append(f'<tr{strong}><th scope="row">{label}</th>{cells}</tr>')
  notes = "".join(f'<p class="note">{_safe(note)}</p>' for note in table.notes)
  # With a place in the order of keys: what scrolls must do so without a pointer, too.
  region = f'<div class="scroll" role="region" tabindex="0" aria-label="{_safe(table.title)}">'
  return (
    f"<h3>{_safe(table.title)}</h3>{region}"
    f"<table><thead><tr><td></td>{top}</tr><tr><th></th>{second}</tr></thead>"
    f"<tbody>{''.join(lines)}</tbody></table></div>{notes}"
  )


def _figure(cell: Cell | None) -> str:
  """Score and difference; below them, smaller, the interval and how many examples it is of."""
  if cell is None:
    return ""
  score, interval, difference, first = cell.parts()
  below = _safe(" ".join(filter(None, (interval, first))))
  shown = _safe(" ".join(filter(None, (score, difference))))
  return shown + (f' <span class="reach">{below}</span>' if below else "")


def _classes(kind: str, start: bool) -> str:
  return " ".join(filter(None, ["quoted" if kind == QUOTED else "", "start" if start else ""]))


def _hint(cell: Cell | None) -> str:
  """A tool tip: where a quoted figure stands, over how many runs ours is a mean."""
  if cell is None:
    return ""
  runs = f"mean of {cell.count} runs" if cell.count > 1 else ""
  hint = "; ".join(filter(None, [cell.source, runs, cell.note]))
  return f' title="{_safe(hint)}"' if hint else ""


def _differences(section: Section) -> str:
  lines = "".join(
    f'<tr><th scope="row">{_safe(aspect)}</th><td>{_safe(ours)}</td><td>{_safe(paper)}</td></tr>'
    for aspect, ours, paper in section.differences
  )
  return (
    "<h3>What differs from the paper</h3>"
    '<table class="words differs"><thead><tr><td></td><th scope="col">ours</th><th scope="col">paper</th>'
    f"</tr></thead><tbody>{lines}</tbody></table>"
  )


def _plot(caption: str, plot: Plot) -> str:
  # As an image, an SVG cannot run anything.
  data = base64.b64encode(canvas.draw(plot, "svg")).decode("ascii")
  return (
    f'<figure><img alt="{_safe(plot.words)}" src="data:image/svg+xml;base64,{data}">'
    f"<figcaption>{_safe(caption)}</figcaption></figure>"
  )


def _folded(heading: str, parts: Iterable[str]) -> str:
  return f"<details><summary>{_safe(heading)}</summary>{''.join(parts)}</details>"


def _facts(heading: str, facts: Iterable[tuple[str, str]]) -> str:
  """A table of two columns, which a narrow screen shows as well as a wide one: names and escaped HTML."""
  lines = "".join(
    f'<tr><th scope="row">{_safe(name)}</th><td>{content}</td></tr>' for name, content in facts
  )
  return f'<table class="words"><caption>{_safe(heading)}</caption><tbody>{lines}</tbody></table>'


def _run(run: Run) -> str:
  """How a model was made: checkpoint and why, settings, environment, command."""
  record = run.record
  settings = "; ".join(
    f"{name} {value}" for name, value in (*record.settings.items(), *record.environment.items())
  )
  facts = {
    "checkpoint": run.selected,
    "chosen": record.why,
    "settings": settings,
    "command": record.command,
  }
  return _facts(
    f"{runs_lib.method_name(record)}, seed {record.seed}",
    [(name, _safe(value)) for name, value in facts.items() if value],
  )


def _sample(sample: Sample) -> str:
  """One example: what was asked, what is right, and below each other what the methods wrote."""
  facts = [("input", sample.input), ("right", " | ".join(sample.targets))]
  form = runs_lib.form_of(sample.shots)
  answers = [
    (
      answer.method,
      f"<pre>{_cut(answer.output)}</pre>"
      + (
        ""
        if answer.score is None
        else f'<span class="score">{_safe(sample.metric)} {answer.score:.4g}</span>'
      ),
    )
    for answer in sample.answers
  ]
  return _facts(
    f"{sample.task}, {form}, example {sample.index}",
    [*((name, f"<pre>{_cut(value)}</pre>") for name, value in facts), *answers],
  )


def _cut(text: str) -> str:
  """Escaped text; of a long one the end is shown, where the question stands."""
  # Cut before it is escaped, or an entity might be cut in its middle.
  short = text if len(text) <= _LONGEST_TEXT else "[...] " + text[-_LONGEST_TEXT:]
  return _safe(short)
