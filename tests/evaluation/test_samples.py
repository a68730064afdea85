"""Outputs of the methods of a report, side by side."""

import hashlib

from hand_made_results import answer_by_hand
from promot_jax.evaluation import runs, samples


def of(folder):
  (group,) = runs.group(runs.collect([folder]))
  return samples.of_group(group)


def test_every_method_answers_the_same_questions(tmp_path):
  asked = [(f"question {n}", ["True"]) for n in range(9)]
  answer_by_hand(tmp_path / "a", "fine_tuning", [(*each, "True") for each in asked])
  answer_by_hand(tmp_path / "b", "promot", [(*each, "Maybe") for each in asked])
  found = of(tmp_path)
  assert len(found) == samples.EACH
  for sample in found:
    assert sample.input == f"question {sample.index}"
    assert sample.targets == ("True",)
    assert [(each.method, each.output, each.score) for each in sample.answers] == [
      ("Standard fine-tuning", "<extra_id_0> True", 100.0),
      ("ProMoT", "<extra_id_0> Maybe", 0.0),
    ]


def test_no_output_has_a_say_in_what_is_shown(tmp_path):
  asked = [f"question {n}" for n in range(9)]
  first = sorted(asked, key=lambda text: hashlib.sha256(text.encode()).digest())[: samples.EACH]
  for name in ("True", "False"):
    outputs = [(text, ["True"], name) for text in asked]
    answer_by_hand(tmp_path / name / "run", "promot", outputs)
    assert [sample.input for sample in of(tmp_path / name)] == first


def test_only_questions_that_all_methods_were_asked_are_shown(tmp_path):
  answer_by_hand(tmp_path / "a", "fine_tuning", [(f"q{n}", ["x"], "x") for n in range(9)])
  answer_by_hand(tmp_path / "b", "promot", [(f"q{n}", ["x"], "y") for n in range(2)])
  # With a demonstration before the question it is another question.
  answer_by_hand(tmp_path / "c", "joint", [(f"demo. q{n}", ["x"], "z") for n in range(9)])
  found = of(tmp_path)
  assert sorted(sample.input for sample in found) == ["q0", "q1"]
  assert {each.method for each in found[0].answers} == {"Standard fine-tuning", "ProMoT"}


def test_the_first_seed_stands_for_a_method(tmp_path):
  for seed in (5, 3):
    answer_by_hand(tmp_path / str(seed), "promot", [("q", ["x"], f"by {seed}")], seed=seed)
  ((answer,),) = [sample.answers for sample in of(tmp_path)]
  assert (answer.seed, answer.output) == (3, "<extra_id_0> by 3")


def test_damaged_predictions_are_left_out(tmp_path):
  answer_by_hand(tmp_path / "a", "fine_tuning", [("q", ["x"], "x")])
  answer_by_hand(tmp_path / "b", "promot", [("q", ["x"], "y")])
  (file,) = (tmp_path / "b").rglob("*.jsonl")
  file.write_text(file.read_text().replace("extra", "other"))
  ((answer,),) = [sample.answers for sample in of(tmp_path)]
  assert answer.method == "Standard fine-tuning"
