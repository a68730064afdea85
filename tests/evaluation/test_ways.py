"""Which of several results of a task a report shows."""

import dataclasses

import pytest

from promot_jax.evaluation import report, runs, ways
from promot_jax.evaluation.results import ResultStore


@pytest.fixture(scope="module")
def by_hand(module_of_tests):
  """tests/evaluation/test_report.py, which knows how to write what an evaluation leaves."""
  return module_of_tests("evaluation/test_report")


def test_a_score_of_the_first_examples_says_so_beside_the_number(tmp_path, by_hand):
  folder = by_hand.evaluate_by_hand(tmp_path / "run", "promot")
  store = ResultStore(folder)
  (whole,) = [r for r in store.results("tune-20") if r.task == "xsum"]
  store.write("tune-20", dataclasses.replace(whole, limit=7, count=7, scores={"rouge2": 99.0}))
  (section,) = report.build(runs.collect([tmp_path])).sections
  cell = by_hand.figure(section.main, "xsum 1-shot rouge2", "ProMoT")
  assert (cell.value, cell.first) == (40, None) and "first" not in cell.text()
  for path in folder.glob("*/xsum.test.1shot.detached.json*"):
    path.unlink()
  (section,) = report.build(runs.collect([tmp_path])).sections
  assert by_hand.figure(section.main, "xsum 1-shot rouge2", "ProMoT").text().endswith("] first 7")
  assert by_hand.figure(section.main, "Norm. Avg 1-shot", "ProMoT").text().endswith(" first 7")
  assert any("first N" in note for note in section.main.notes)
  assert "first" not in by_hand.figure(section.main, "rte tuned task", "ProMoT").text()


def test_the_report_takes_the_results_of_the_runs_own_plan(tmp_path, by_hand):
  folder = by_hand.evaluate_by_hand(tmp_path / "run", "promot")
  store = ResultStore(folder)
  planned = store.results("tune-20")
  for result in planned:
    for changes in ({"decoding": "Beam()"}, {"max_target_length": 4}, {"answers": "ranked"}):
      settings = {**result.settings, **changes}
      store.write(
        "tune-20", dataclasses.replace(result, settings=settings, scores={result.metric: 9.0})
      )
  other_split = dataclasses.replace(planned[0], split="validation", count=500)
  added = dataclasses.replace(planned[0], shots=4)  # by promot eval --shots=4
  foreign = dataclasses.replace(added, settings={"decoding": "Beam()"}, count=500)
  for result in (other_split, added, foreign):
    store.write("tune-20", result)
  record = dataclasses.replace(
    store.read_run(), measured=ways.own(planned), settings={"strategy": "Greedy()"}
  )
  store.write_run(record)
  lines: list[str] = []
  (run,) = runs.collect([folder], report=lines.append)
  shown = {(r.task, r.shots, r.split, r.settings["decoding"], r.score) for r in run.reported}
  wanted = [*planned, added]
  assert shown == {(r.task, r.shots, r.split, "Greedy()", r.score) for r in wanted}
  (line,) = lines
  assert str(folder) in line and "29 results measured in another way" in line


def test_ranked_and_generated_answers_stand_side_by_side(tmp_path, by_hand):
  folder = by_hand.evaluate_by_hand(tmp_path / "run", "promot")
  store = ResultStore(folder)
  (cb,) = [result for result in store.results("tune-20") if result.task == "cb"]
  ranked = {**cb.settings, "answers": "ranked"}
  store.write("tune-20", dataclasses.replace(cb, settings=ranked, scores={"accuracy": 77.0}))
  record = dataclasses.replace(store.read_run(), measured=ways.own([cb]))
  store.write_run(record)
  (section,) = report.build(runs.collect([tmp_path], report=lambda line: None)).sections
  (table,) = [each for each in section.further if each.title == "Answers generated and ranked"]
  assert [column.header for column in table.columns] == ["generated", "ranked"]
  assert [(row.label, [cell.value for cell in row.cells]) for row in table.rows] == [
    ("cb", [40.0, 77.0])
  ]
  # The main table keeps to the plan, and says nothing where all was generated.
  assert by_hand.figure(section.main, "cb 1-shot accuracy", "ProMoT").value == 40
  assert [row.detail for row in section.main.rows if row.label == "cb"] == ["1-shot accuracy"]


def test_a_ranked_score_says_so_beside_the_task(tmp_path, by_hand):
  folder = by_hand.evaluate_by_hand(tmp_path / "run", "promot")
  store = ResultStore(folder)
  (cb,) = [result for result in store.results("tune-20") if result.task == "cb"]
  for path in folder.glob("*/cb.*"):
    path.unlink()
  store.write("tune-20", dataclasses.replace(cb, settings={**cb.settings, "answers": "ranked"}))
  (section,) = report.build(runs.collect([tmp_path])).sections
  assert [row.detail for row in section.main.rows if row.label == "cb"] == [
    "1-shot accuracy ranked"
  ]
  assert not [each for each in section.further if each.title.startswith("Answers")]


@pytest.mark.parametrize(
  ("planned", "shown"),
  [({}, "generated"), ({"answers": "generated"}, "generated"), ({"answers": "ranked"}, "ranked")],
)
def test_an_added_task_is_shown_with_the_answers_of_the_plan(tmp_path, by_hand, planned, shown):
  folder = by_hand.evaluate_by_hand(tmp_path / "run", "promot")
  store = ResultStore(folder)
  (xsum,) = [r for r in store.results("tune-20") if r.task == "xsum"]
  written = dataclasses.replace(xsum, shots=4, settings={**xsum.settings, "answers": "generated"})
  ranked = {"decoding": "options by log-probability", "answers": "ranked"}
  chosen = dataclasses.replace(
    written, settings={**xsum.settings, **ranked}, scores={"rouge2": 9.0}
  )
  settings = {"strategy": written.settings["decoding"], **planned}
  record = dataclasses.replace(store.read_run(), settings=settings, measured=ways.own([xsum]))
  found, others = ways.reported([written, chosen], record)
  assert [ways.answers(result) for result in found] == [shown] and len(others) == 1
  # Where there is no other: what promot eval adds of a task that ranks its answers by itself.
  found, _ = ways.reported([chosen], record)
  assert bool(found) == (planned.get("answers") != "generated")
