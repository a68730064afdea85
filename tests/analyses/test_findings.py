"""What is written of an analysis: whole files, equal for equal figures, and charts that need no colour."""

import csv
import dataclasses
import json
import xml.etree.ElementTree as ElementTree

import pytest

from promot_jax.analyses import charts, findings
from promot_jax.analyses.charts import Chart, Panel, Point, Series
from promot_jax.errors import DataError
from promot_jax.evaluation import canvas


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  run: str
  step: int
  score: float
  low: float | None = None


ROWS = [Row(run="=1+1", step=0, score=50.0), Row(run="b", step=20, score=12.5, low=10.0)]


def chart(**changes):
  points = [Point(x=0, y=50), Point(x=20, y=12.5, low=10, high=20, text="last")]
  series = [Series(name=f"series {number}", points=points) for number in range(3)]
  values = {"panels": [Panel(series=series)], "across": "step", "up": "score", "words": "Lines."}
  return Chart(**{**values, **changes})


def test_figures_are_written_as_table_json_and_pictures(tmp_path):
  made = findings.Findings(title="Scores", rows=ROWS, charts={"": chart()}, notes=["a note"])
  written = findings.write(made, tmp_path / "new", name="curve", settings={"shots": 1})
  assert [path.name for path in written] == ["curve.csv", "curve.json", "curve.png", "curve.svg"]
  with (tmp_path / "new/curve.csv").open() as file:
    lines = list(csv.reader(file))
  assert lines == [
    ["run", "step", "score", "low"],
    ["'=1+1", "0", "50.0", ""],  # no formula in a spreadsheet
    ["b", "20", "12.5", "10.0"],
  ]
  found = json.loads((tmp_path / "new/curve.json").read_text())
  assert found["rows"][1] == {"run": "b", "step": 20, "score": 12.5, "low": 10.0}
  assert (found["settings"], found["notes"]) == ({"shots": 1}, ["a note"])
  before = {path: path.read_bytes() for path in written}
  findings.write(made, tmp_path / "new", name="curve", settings={"shots": 1})
  assert before == {path: path.read_bytes() for path in written}


def test_a_chart_that_cannot_be_drawn_leaves_no_file_behind(tmp_path, monkeypatch):
  def draw(plot, kind):
    if kind == "svg":
      raise ValueError("no room for the labels")
    return b"png"

  monkeypatch.setattr(canvas, "draw", draw)
  made = findings.Findings(title="Scores", rows=ROWS, charts={"": chart()})
  with pytest.raises(ValueError, match="no room"):
    findings.write(made, tmp_path / "new", name="curve")
  assert not (tmp_path / "new").exists()


def test_nothing_to_show_is_refused():
  with pytest.raises(DataError, match="Scores: there is nothing to show"):
    findings.Findings(title="Scores", rows=[], charts={})


def test_no_two_series_share_a_marker_or_a_kind_of_line():
  figure = charts._figure(chart())
  (axis,) = figure.axes
  lines = [container.lines[0] for container in axis.containers]
  for look in ("get_marker", "get_linestyle", "get_color"):
    assert len({str(getattr(line, look)()) for line in lines}) == 3


def test_a_series_looks_the_same_in_every_panel():
  one, two, three = chart().panels[0].series
  figure = charts._figure(chart(panels=[Panel(series=[one, two]), Panel(series=[three, two])]))
  first, second = (
    {
      container.lines[0].get_color(): container.lines[0].get_marker()
      for container in axis.containers
    }
    for axis in figure.axes
  )
  assert len(first.keys() & second.keys()) == 1
  assert all(second[color] == first[color] for color in first.keys() & second.keys())
  names = [text.get_text() for text in figure.legends[0].get_texts()]
  assert names == ["series 0", "series 1", "series 2"]


def test_a_chart_is_as_wide_as_a_phone_shows():
  root = ElementTree.fromstring(charts.draw(chart(), "svg").decode())
  assert float(root.attrib["width"].removesuffix("pt")) <= canvas.WIDTH * 72
