"""Classification tasks class by class, from stored predictions."""

import pytest

from hand_made_results import answer_by_hand
from promot_jax.evaluation import class_tables, runs

TARGETS = ["True", "True", "True", "False", "False", "Neither", "Neither"]
OUTPUTS = ["True", "False", "Paris", "False", "False", "True", "False"]


def of(folder):
  (group,) = runs.group(runs.collect([folder]))
  return class_tables.of_group(group)


def answers(outputs=OUTPUTS):
  return [(f"q{n}", [target], output) for n, (target, output) in enumerate(zip(TARGETS, outputs))]


def values(table):
  return {
    row.label: [None if cell is None else cell.value for cell in row.cells] for row in table.rows
  }


def test_each_class_has_precision_recall_and_f1(tmp_path):
  answer_by_hand(tmp_path / "a", "fine_tuning", answers(), task="cb")
  each, _ = of(tmp_path)
  found = values(each)
  # True: 1 of 3 found, 2 answered.  False: 2 of 2 found, 4 answered.  Neither: 0 of 2, never answered.
  assert found["True"] == pytest.approx([50, 100 / 3, 40])
  assert found["False"] == pytest.approx([50, 100, 200 / 3])
  assert found["Neither"] == [None, 0, 0]
  assert found["mean"] == pytest.approx([50, 400 / 9, 320 / 9])


def test_answers_that_are_no_class_have_a_column(tmp_path):
  answer_by_hand(tmp_path / "a", "fine_tuning", answers(), task="cb")
  _, confusion = of(tmp_path)
  assert [column.header for column in confusion.columns] == [
    "False",
    "Neither",
    "True",
    "no class",
  ]
  assert values(confusion) == {
    "False": [2, 0, 0, 0],
    "Neither": [1, 0, 1, 0],
    "True": [1, 0, 1, 1],
  }


def test_methods_stand_side_by_side_and_seeds_are_added(tmp_path):
  for seed in (0, 1):
    answer_by_hand(tmp_path / f"a{seed}", "fine_tuning", answers(), task="cb", seed=seed)
  answer_by_hand(tmp_path / "b", "promot", answers(TARGETS), task="cb")
  each, confusion = of(tmp_path)
  assert [name for name, _ in each.groups()] == ["Standard fine-tuning", "ProMoT"]
  assert values(each)["True"][3:] == [100, 100, 100]
  assert values(confusion)["True"] == [2, 0, 2, 2, 0, 0, 3, 0]
  assert "Counts of several seeds are added up." in confusion.notes[0]


@pytest.mark.parametrize(
  ("metric", "targets"),
  [("bleu", [["a"], ["b"]]), ("accuracy", [["a"], ["b", "c"]]), ("accuracy", [["a"], ["a"]])],
)
def test_what_is_no_classification_has_no_such_tables(tmp_path, metric, targets):
  given = [(f"q{n}", each, "a") for n, each in enumerate(targets)]
  answer_by_hand(tmp_path / "a", "fine_tuning", given, metric=metric)
  assert of(tmp_path) == ()
