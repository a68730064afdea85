"""Values of settings that a comparison tried: the choice by validation, and what a report shows of them."""

import pytest

from hand_made_results import evaluate_by_hand
from promot_jax.evaluation import plots, points, report, runs
from promot_jax.evaluation.records import RunRecord


def record(value, score, *, seed=0, row="cocktail", higher=True):
  return RunRecord(
    method=f"{row}-weight-{value}",
    row=row,
    point={"WEIGHT": value},
    seed=seed,
    validation=score,
    higher_is_better=higher,
  )


def chosen(*records):
  methods = {}
  for each in records:
    methods.setdefault(each.method, []).append(each)
  return points.choose(methods)


def test_the_best_mean_over_seeds_is_chosen_whatever_the_order_of_the_folders():
  (found,) = chosen(
    record(10, 70.0), record(10, 80.0, seed=1), record(9, 90.0), record(9, 50.0, seed=1)
  )
  assert found.methods == ["cocktail-weight-9", "cocktail-weight-10"]  # by size, not by name
  assert found.chosen == "cocktail-weight-10"
  assert found.why.startswith("weight 10 is chosen, the maximum of the validation score 75, a mean")


def test_ties_go_to_the_smallest_and_losses_to_the_lowest():
  (found,) = chosen(record(0.5, 70.0), record(0.25, 70.0), record(1, 60.0))
  assert found.chosen == "cocktail-weight-0.25"
  assert "weight 0.25, weight 0.5 tie, and the smallest is taken" in found.why
  (found,) = chosen(record(0.5, 0.7, higher=False), record(1, 0.9, higher=False))
  assert found.chosen == "cocktail-weight-0.5" and "minimum" in found.why


def test_a_value_whose_seeds_are_missing_takes_no_part():
  (found,) = chosen(
    record(1, 60.0),
    record(1, 62.0, seed=1),
    record(2, 99.0),
    record(3, 61.5),
    record(3, 60.9, seed=1),
  )
  assert found.chosen == "cocktail-weight-3"
  assert "without weight 2, of which seeds are missing" in found.why
  (found,) = chosen(record(1, None), record(2, None))
  assert found.chosen == "cocktail-weight-1" and "none was validated" in found.why


def test_a_report_has_the_chosen_value_among_the_methods_and_all_of_them_apart(tmp_path):
  evaluate_by_hand(tmp_path / "base", "pretrained", tuned=36.0, unseen=45.0)
  for value, validation, tuned, kept in [(0.25, 80.0, 91.0, 40.0), (0.75, 85.0, 88.0, 43.0)]:
    evaluate_by_hand(
      tmp_path / str(value),
      f"cocktail-weight-{value}",
      tuned=tuned,
      unseen=kept,
      row="cocktail",
      point={"WEIGHT": value},
      validation=validation,
      printed=f"Cocktail (weight {value})",
    )
  (section,) = report.build(runs.collect([tmp_path])).sections
  # The other one has the higher score on the test set, which is not asked.
  assert [name for name, _ in section.main.groups()] == ["Pretrained", "Cocktail (weight 0.75)"]
  (table,) = [t for t in section.tables if t.title == "Cocktail: values that were tried"]
  assert [(row.label, row.detail) for row in table.rows] == [
    ("weight 0.25", ""),
    ("weight 0.75", "chosen"),
  ]
  assert [cell.value for cell in table.rows[0].cells] == pytest.approx([80.0, 91.0, 40.0])
  plot = plots.section_plots(section)["points"]
  assert "cocktail 0.75 (chosen) 88.0 and 43.0" in plot.words
