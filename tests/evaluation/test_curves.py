"""Scores over numbers of training examples and over lengths of methods."""

import re
import statistics

from hand_made_results import evaluate_by_hand
from promot_jax.evaluation import curves, report, runs


def few(folder, row, size, number, score):
  name = f"{row}-low_data_size-{size}-low_data_subsample-{number}"
  evaluate_by_hand(
    folder / name, name, row=row, training_examples=size, subsample=number, tuned=score
  )


def test_a_line_is_a_row_and_a_point_the_mean_over_subsamples(tmp_path):
  for number, scores in enumerate([(20.0, 30.0, 60.0), (24.0, 38.0, 66.0)]):
    for size, score in zip((50, 100, 500), scores, strict=True):
      few(tmp_path, "fine_tuning", size, number, score)
  few(tmp_path, "prefix_random", 100, 0, 50.0)  # one point is no line
  evaluate_by_hand(tmp_path / "whole", "fine_tuning", tuned=99.0)  # nor is a run on all examples
  (found,) = curves.of_runs(runs.collect([tmp_path]))
  assert (found.number, found.task) == ("training examples", "rte")
  assert list(found.lines) == ["fine_tuning"]
  points = found.lines["fine_tuning"]
  assert {size: cell.value for size, cell in points.items()} == {50: 22, 100: 34, 500: 63}
  assert points[100].spread == statistics.stdev([30, 38])
  assert [row.label for row in found.table.rows] == ["50", "100", "500"]


def test_lengths_of_a_class_of_methods_are_a_line_whatever_its_rows_are_called(tmp_path):
  for length, name in ((8, "prefix_tuning"), (1, "prefix_0_1"), (32, "prefix_tuning-length-32")):
    evaluate_by_hand(
      tmp_path / name,
      name,
      kind="PrefixTuning",
      positions=length,
      backbone_trained=False,
      tuned=length,
    )
  evaluate_by_hand(tmp_path / "promot", "promot", kind="SoftPrompt", positions=16)
  (found,) = curves.of_runs(runs.collect([tmp_path]))
  assert found.number == "positions" and found.name("PrefixTuning") == "Prefix tuning"
  assert {n: cell.value for n, cell in found.lines["PrefixTuning"].items()} == {1: 1, 8: 8, 32: 32}


def test_a_report_draws_its_curves_and_prints_them(tmp_path):
  for size in (50, 100):
    few(tmp_path / "runs", "fine_tuning", size, 0, size / 2)
  _, written = report.write([tmp_path / "runs"], tmp_path / "report", formats=("html", "md", "png"))
  assert tmp_path / "report-curves-1.png" in written
  page = (tmp_path / "report.html").read_text()
  assert "<h2>Curves</h2>" in page
  assert re.search(r"Standard fine-tuning 50: 25\.0, 100: 50\.0", page)
  assert "## Curves" in (tmp_path / "report.md").read_text()
