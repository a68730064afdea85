"""Two models on the same examples: what is compared, with which figures, and what is refused."""

import json

import pytest

from answered_tasks import answer, run_of
from promot_jax import errors
from promot_jax.cli.main import main
from promot_jax.evaluation import pairs, report, runs
from promot_jax.metrics import bleu, paired

RIGHT = ["yes"] * 20
FIRST = ["yes"] * 8 + ["no"] * 12
P = pytest.approx(20 / 2**9)  # of 9 examples, on which they differ, 8 to 1: 2 * (1 + 9) / 2^9
SECOND = ["no"] + ["yes"] * 15 + ["no"] * 4


def compared(first, second, **options):
  sides = pairs.side(first), pairs.side(second)
  return [
    pairs.compare(
      *(
        [pairs.scored(side.store, side.checkpoint, result)] for side, result in zip(sides, results)
      ),
      **options,
    )
    for results in pairs.alike(*sides)
  ]


def test_right_and_wrong_answers_of_two_folders_are_tested_example_by_example(tmp_path):
  answer(tmp_path / "a", FIRST, RIGHT)
  answer(tmp_path / "b", SECOND, RIGHT)
  (pair,) = compared(tmp_path / "a", tmp_path / "b", resamples=200)
  apart = pair.difference
  assert (apart.first, apart.second, apart.higher, apart.lower) == (40.0, 75.0, 8, 1)
  assert (apart.test, apart.p_value) == ("McNemar, exact", paired.mcnemar(8, 1))
  assert pair.remarks == ()


def test_bleu_is_compared_as_that_of_the_corpus(tmp_path):
  targets = ["a b c d e f", "f g h i j k", "a c e g"]
  outputs = (["a b c d x y", "f g h i j x", "a c e g"], ["a b c d e f", "f g h i x k", "a c x g"])
  for name, texts in zip("ab", outputs):
    answer(tmp_path / name, texts, [[target] for target in targets], metric=bleu.bleu)
  (pair,) = compared(tmp_path / "a", tmp_path / "b", resamples=50)
  expected = [bleu.bleu(targets, texts)["bleu"] for texts in outputs]
  assert [pair.difference.first, pair.difference.second] == pytest.approx(expected)
  assert pair.difference.test == "exchanges, all 8" and not pair.remarks


def test_the_first_examples_are_compared_where_one_has_no_more(tmp_path):
  answer(tmp_path / "a", FIRST, RIGHT)
  answer(tmp_path / "b", SECOND[:5], RIGHT[:5], limit=5)
  (pair,) = compared(tmp_path / "a", tmp_path / "b", resamples=20)
  assert (pair.difference.count, pair.difference.first) == (5, 100.0)
  assert pair.remarks == ("the first 5 examples, which both have",)


def test_what_else_is_not_alike_is_said(tmp_path):
  answer(tmp_path / "a", FIRST, RIGHT)
  written = [f"Q: question {index}" for index in range(20)]
  answer(tmp_path / "b", SECOND, RIGHT, settings={"decoding": "Beam(4)"}, inputs=written)
  (pair,) = compared(tmp_path / "a", tmp_path / "b", resamples=20)
  assert pair.remarks == ("questions are written differently", "measured differently: decoding")


def test_of_several_ways_the_one_that_both_have_is_taken(tmp_path):
  beam = {"decoding": "Beam(4)"}
  answer(tmp_path / "a", FIRST, RIGHT)
  answer(tmp_path / "a", SECOND, RIGHT, settings=beam)
  answer(tmp_path / "b", FIRST, RIGHT, settings=beam)
  (pair,) = compared(tmp_path / "a", tmp_path / "b", resamples=20)
  assert (pair.difference.first, pair.difference.second) == (75.0, 40.0)


def test_a_model_without_a_method_is_compared_with_every_state_of_one(tmp_path):
  answer(tmp_path / "a", FIRST, RIGHT)
  answer(tmp_path / "b", SECOND, RIGHT, method="attached")
  answer(tmp_path / "b", FIRST, RIGHT, method="detached")
  answer(tmp_path / "c", SECOND, RIGHT, method="attached")
  found = compared(tmp_path / "a", tmp_path / "b", resamples=20)
  assert {pair.second.method: pair.difference.value for pair in found} == {
    "attached": 35.0,
    "detached": 0.0,
  }
  (pair,) = compared(tmp_path / "b", tmp_path / "c", resamples=20)
  assert (pair.first.method, pair.second.method) == ("attached", "attached")


@pytest.mark.parametrize(
  ("change", "told"),
  [
    ({"targets": ["yes"] * 19 + ["no"]}, "the answers of 19 differ"),
    ({"metric": bleu.bleu}, "different metrics: accuracy, bleu"),
  ],
)
def test_other_examples_and_other_metrics_are_refused(tmp_path, change, told):
  answer(tmp_path / "a", FIRST, RIGHT)
  answer(tmp_path / "b", SECOND, **{"targets": RIGHT, **change})
  with pytest.raises(errors.DataError, match=told):
    compared(tmp_path / "a", tmp_path / "b")


def test_the_command_prints_a_table_or_json(tmp_path, capsys):
  answer(tmp_path / "a", FIRST, RIGHT)
  answer(tmp_path / "b" / "evaluation", SECOND, RIGHT)
  answer(tmp_path / "a", RIGHT, RIGHT, task="wic")
  answer(tmp_path / "b" / "evaluation", RIGHT, RIGHT, task="wic")
  command = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--resamples=100"]
  assert main(command) == 0
  shown = capsys.readouterr().out
  assert "+35.00" in shown and "McNemar, exact" in shown and "0.039" in shown
  assert main([*command, "--json", "--tasks=cb"]) == 0
  (found,) = json.loads(capsys.readouterr().out)["comparisons"]
  assert (found["difference"], found["higher"], found["p_value"]) == (35.0, 8, P)
  assert found["p_value_holm"] == found["p_value"]


@pytest.mark.parametrize(
  ("arguments", "code", "told"),
  [
    (["a", "a"], 2, "compared with itself"),
    (["a", "empty"], 65, "holds no results"),
    (["a", "b", "--checkpoints=tune-20"], 2, "name two joined by a comma"),
    (["a", "b", "--checkpoints=tune-20,tune-9"], 2, "no results of checkpoint 'tune-9'"),
    (["a", "b", "--tasks=rte"], 2, "it has cb"),
    (["a", "c"], 2, "has several checkpoints; name one with --checkpoints: tune-9, tune-20"),
    (["a", "other"], 65, "no results of the same task"),
    (["a", "removed"], 65, "0 predictions of 20"),
    (["a", "b", "--resamples=0"], 2, "whole number"),
  ],
)
def test_what_cannot_be_compared_is_one_sentence(
  tmp_path, monkeypatch, capsys, arguments, code, told
):
  monkeypatch.chdir(tmp_path)
  for name in ("a", "b", "removed"):
    answer(tmp_path / name, FIRST, RIGHT)
  for checkpoint in ("tune-9", "tune-20"):
    answer(tmp_path / "c", FIRST, RIGHT, checkpoint=checkpoint)
  answer(tmp_path / "other", FIRST, RIGHT, task="wic")
  next((tmp_path / "removed").rglob("*.jsonl")).unlink()
  (tmp_path / "empty").mkdir()
  assert main(["compare", *arguments]) == code
  assert told in capsys.readouterr().err


def test_two_checkpoints_of_one_run_are_compared(tmp_path, capsys):
  for checkpoint, texts in (("tune-9", FIRST), ("tune-20", SECOND)):
    answer(tmp_path, texts, RIGHT, checkpoint=checkpoint)
  command = ["compare", str(tmp_path), str(tmp_path), "--checkpoints=tune-9,tune-20", "--json"]
  assert main([*command, "--resamples=50"]) == 0
  assert json.loads(capsys.readouterr().out)["comparisons"][0]["difference"] == 35.0


def test_a_report_has_the_differences_of_columns_that_share_examples(tmp_path):
  run_of(answer(tmp_path / "base", FIRST, RIGHT), "pretrained")
  run_of(answer(tmp_path / "tuned", SECOND, RIGHT), "fine_tuning")
  for seed, texts in enumerate((SECOND, RIGHT)):
    run_of(answer(tmp_path / f"promot{seed}", texts, RIGHT), "promot", seed=seed)
  (section,) = report.build(runs.collect([tmp_path])).sections
  (table,) = [table for table in section.tables if table.title.startswith("Differences")]
  (row,) = table.rows
  found = {(column.group, column.header): cell for column, cell in zip(table.columns, row.cells)}
  cell = found["Standard fine-tuning less Pretrained", "p"]
  assert (cell.value, cell.text()) == (P, "0.0391")
  # Of two seeds an example counts with their mean: 15 of 20 and 20 of 20, which is 87.5.
  assert found["ProMoT less Pretrained", "difference"].value == 47.5
  assert found["ProMoT less Standard fine-tuning", "difference"].value == 12.5
  assert len(found) == 6


def test_a_report_tests_the_mean_of_the_unseen_tasks_where_both_columns_have_all(tmp_path):
  unseen = ("cb", "wic")
  for name, method, texts in (("base", "pretrained", FIRST), ("tuned", "fine_tuning", SECOND)):
    for task, given in (("cb", texts), ("wic", FIRST)):
      answer(tmp_path / name, given, RIGHT, task=task)
    run_of(tmp_path / name, method, unseen=unseen)
  run_of(answer(tmp_path / "promot", RIGHT, RIGHT), "promot", unseen=unseen)  # of cb alone
  (section,) = report.build(runs.collect([tmp_path])).sections
  (table,) = [table for table in section.tables if table.title.startswith("Differences")]
  (row,) = [row for row in table.rows if row.label == "Norm. Avg"]
  found = {(column.group, column.header): cell for column, cell in zip(table.columns, row.cells)}
  (cb,) = [row for row in table.rows if row.label == "cb"]
  value, p_value = (
    found["Standard fine-tuning less Pretrained", kind] for kind in ("difference", "p")
  )
  # Nothing changes on the other task, so half of it is left and the test is that of the first.
  assert value.value == cb.cells[0].value / 2
  assert abs(p_value.value - 0.0390625) < 0.02 and "within 2 tasks" in p_value.note  # a draw
  assert found["ProMoT less Pretrained", "p"] is None


@pytest.mark.parametrize("error", [errors.ConfigError("no Java"), ImportError("no package")])
def test_a_metric_that_this_machine_cannot_compute_does_not_end_the_report(
  tmp_path, monkeypatch, error
):
  targets = [["a b c d e f"], ["f g h i j k"]]
  for name, method, text in (("base", "pretrained", "x"), ("tuned", "fine_tuning", "f")):
    texts = [f"a b c d e {text}", "f g h i j k"]
    run_of(answer(tmp_path / name, texts, targets, metric=bleu.bleu), method)

  def missing(*_):
    raise error

  monkeypatch.setattr(bleu.Bleu, "statistics", missing)
  (section,) = report.build(runs.collect([tmp_path])).sections
  (table,) = [table for table in section.tables if table.title.startswith("Differences")]
  assert "own bleu" in table.rows[0].cells[1].note


def test_a_report_on_columns_without_common_examples_has_no_such_table(tmp_path):
  run_of(answer(tmp_path / "base", FIRST, RIGHT), "pretrained")
  run_of(answer(tmp_path / "tuned", SECOND, [*RIGHT[:-1], "no"]), "fine_tuning")
  (section,) = report.build(runs.collect([tmp_path])).sections
  assert not [table for table in section.tables if table.title.startswith("Differences")]
