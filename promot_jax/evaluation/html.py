"""A report as one HTML file: tables, plots, what differs, sample predictions.

The file needs nothing else: plots are embedded, there is no script and no remote address, and a
policy in the page forbids both.  Everything that came from data, models or configs is escaped.
"""

import base64
from collections.abc import Iterable, Sequence

from promot_jax.evaluation import plots
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.escaping import html as _safe
from promot_jax.evaluation.records import Prediction
from promot_jax.evaluation.runs import Run
from promot_jax.evaluation.sections import Section
from promot_jax.evaluation.tables import QUOTED, Cell, Table

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LONGEST_TEXT = 600
_CAPTIONS = {
  "norm-avg": "Norm. Avg by method. The dotted line is the pretrained model.",
  "trade-off": "The tuned task against what is kept. Small points are seeds, large ones means.",
  "tasks": "Every unseen task.",
  "format-share": "Share of outputs in the tuned task's format.",
  "checkpoints": "Norm. Avg along training. Rings mark the reported checkpoints.",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 2rem auto;
  max-width: 1200px; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, table.words td, table.words th { text-align: left; }
table.words td { white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
table.words td:first-child { white-space: nowrap; }
thead th { border-bottom: 1px solid #999; font-weight: 600; }
tr { background: #fff; } tbody tr:nth-child(even) { background: #f6f7f9; }
th:first-child, td:first-child { position: sticky; left: 0; background: inherit; }
td:first-child { max-width: min(22rem, 38vw); white-space: normal; overflow-wrap: break-word; }
tr.strong td { font-weight: 600; border-bottom: 1px solid #ddd; }
.start { border-left: 1px solid #ccc; }
.quoted { color: #6a5a00; font-style: italic; }
.detail { color: #666; font-weight: 400; } .note { color: #555; font-size: 13px; margin: .3rem 0; }
.scroll { overflow-x: auto; } img { max-width: 100%; height: auto; }
figure { margin: 1.2rem 0; } figcaption { color: #555; font-size: 13px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 12px; }
.right { color: #0a6b2d; } .wrong { color: #a3200d; }
"""


def page(
  title: str,
  sections: Iterable[Section],
  samples,
  *,
  left_out: Sequence[str] = (),
  remarks: Sequence[str] = (),
) -> str:
  """The whole page.

  Args:
    samples: run -> predictions to show of it.
    left_out: sentences about what is missing.
    remarks: sentences about the files.
  """
  # What counts comes first: the summary and what differs, then plots, then every table.
  body = [f"<h1>{_safe(title)}</h1>"]
  for section in sections:
    body += [f"<h2>{_safe(section.title)}</h2>", _table(section.summary), _differences(section)]
    body += [
      _plot(section, name, plots.draw(figure, "svg"))
      for name, figure in plots.section_plots(section).items()
    ]
    body += [_table(table) for table in section.tables]
    runs = [run for runs in section.group.runs.values() for run in runs]
    body += [_runs(runs), _samples(section, samples)]
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
    f'<th class="start" colspan="{len(positions)}">{_safe(name)}</th>'
    for name, positions in table.groups()
  )
  second = "".join(
    f'<th class="{_classes(column.kind, i in starts)}">{_safe(column.header)}</th>'
    for i, column in enumerate(table.columns)
  )
  lines = []
  for row in table.rows:
    cells = "".join(
      f'<td class="{_classes(column.kind, i in starts)}"{_hint(cell)}>'
      f"{_safe(cell.text()) if cell else ''}</td>"
      for i, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True))
    )
    label = f'{_safe(row.label)} <span class="detail">{_safe(row.detail)}</span>'
    lines.append(f'<tr class="{"strong" if row.strong else ""}"><td>{label}</td>{cells}</tr>')
  notes = "".join(f'<p class="note">{_safe(note)}</p>' for note in table.notes)
  return (
    f"<h3>{_safe(table.title)}</h3>"
    f'<div class="scroll"><table><thead><tr><th></th>{top}</tr><tr><th></th>{second}</tr></thead>'
    f"<tbody>{''.join(lines)}</tbody></table></div>{notes}"
  )


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
    f"<tr><td>{_safe(aspect)}</td><td>{_safe(ours)}</td><td>{_safe(paper)}</td></tr>"
    for aspect, ours, paper in section.differences
  )
  return (
    "<h3>What differs from the paper</h3>"
    '<table class="words"><thead><tr><th></th><th>ours</th><th>paper</th></tr></thead>'
    f"<tbody>{lines}</tbody></table>"
  )


def _plot(section: Section, name: str, svg: bytes) -> str:
  caption = _safe(f"{section.title}. {_CAPTIONS[name]}")
  data = base64.b64encode(svg).decode("ascii")  # as an image, an SVG cannot run anything
  return (
    f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
    f"<figcaption>{caption}</figcaption></figure>"
  )


def _runs(runs: Iterable[Run]) -> str:
  """How each model was made: method, seed, checkpoint and why, settings, environment, command."""
  lines = []
  for run in runs:
    record = run.record
    facts = [*record.settings.items(), *record.environment.items()]
    shown = "; ".join(f"{name} {value}" for name, value in facts)
    values = [
      runs_lib.method_name(record),
      str(record.seed),
      run.selected,
      record.why,
      shown,
      record.command,
    ]
    lines.append("<tr>" + "".join(f"<td>{_safe(value)}</td>" for value in values) + "</tr>")
  headings = ("method", "seed", "checkpoint", "chosen because", "settings", "command")
  top = "".join(f"<th>{heading}</th>" for heading in headings)
  return (
    "<details><summary>How each model was made</summary>"
    f'<table class="words"><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    "</details>"
  )


def _samples(section: Section, samples) -> str:
  """Sample predictions of the first run of each method."""
  parts = []
  # One seed stands for a method: samples are to be read, not counted.
  for method, runs in section.group.runs.items():
    lines = "".join(_sample(prediction) for prediction in samples(runs[0]))
    if lines:
      top = "".join(f"<th>{name}</th>" for name in ("task", "input", "answer", "output", "score"))
      parts.append(
        f"<details><summary>Sample predictions: {_safe(section.group.name(method))}, "
        f"seed {_safe(runs[0].record.seed)}</summary>"
        f'<table class="words"><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></details>'
      )
  return "".join(parts)


def _sample(prediction: Prediction) -> str:
  targets = prediction.targets
  several = targets if isinstance(targets, list | tuple) else (targets,)
  answer = " | ".join(map(str, several))
  # Half of the points, as scores of one example are not only 0 or 100.
  right = (prediction.score or 0) >= 50
  score = "" if prediction.score is None else f"{prediction.score:.0f}"
  return (
    f"<tr><td>{_safe(prediction.task)} {_safe(prediction.shots)}-shot</td>"
    f"<td><pre>{_cut(prediction.input)}</pre></td><td><pre>{_cut(answer)}</pre></td>"
    f"<td><pre>{_cut(prediction.raw)}</pre></td>"
    f'<td class="{"right" if right else "wrong"}">{score}</td></tr>'
  )


def _cut(text: str) -> str:
  """Escaped text; of a long one the end is shown, where the question stands."""
  # Cut before it is escaped, or an entity might be cut in its middle.
  short = text if len(text) <= _LONGEST_TEXT else "[...] " + text[-_LONGEST_TEXT:]
  return _safe(short)
