"""Exact match against hand-normalized answers and real TriviaQA aliases."""

import json

import pytest

import tasks
from promot_jax.metrics import answer_f1, exact_match


@pytest.mark.parametrize(
  ("text", "normalized"),
  [
    ("The Cat's pyjamas!", "cats pyjamas"),
    ("  an   apple\ta day ", "apple day"),
    ("theatre", "theatre"),  # an article inside a word stays
    ("U.S.A.", "usa"),
    ("São Paulo", "são paulo"),
    ("a", ""),
  ],
)
def test_answers_are_normalized_as_in_squad(text, normalized):
  assert exact_match.normalize_answer(text) == normalized


def test_any_alias_counts():
  targets = [["Sunset Blvd", "Sunset Boulevard"], ["Portugal"], "the Moon"]
  predictions = ["sunset boulevard.", "Spain", "Moon"]
  assert exact_match.exact_match(targets, predictions) == {"exact_match": pytest.approx(200 / 3)}


@pytest.mark.parametrize("scorer", [exact_match.exact_match, answer_f1.f1])
def test_a_question_without_answers_is_right_when_nothing_is_said(scorer):
  """SQuAD 2's script: `gold_answers = ['']` for unanswerable questions."""
  assert scorer([[], [], []], ["", "the", "no"])["exact_match"] == pytest.approx(200 / 3)


def test_a_longer_answer_that_contains_the_target_does_not_match():
  assert exact_match.exact_match([["Paris"]], ["Paris France"])["exact_match"] == 0


@pytest.mark.parametrize(
  ("prediction", "answer", "right"),
  [
    ("Spider Man", "Spider-Man", True),  # punctuation parts words
    ("SpiderMan", "Spider-Man", False),
    ("U S A", "U.S.A.", True),
    ("USA", "U.S.A.", False),
    ("the \u2018Beatles\u2019", "Beatles", True),
    ("O\u00b4Neill", "O'Neill", True),
    ("twenty_one pilots", "Twenty-One Pilots", True),
    ("A.A. Milne", "A A Milne", True),
    ("A1", "A-1", False),
    ("an A-team", "team", True),  # a part that has become an article goes, too
    ("«Tosca»", "Tosca", False),  # other quotation marks stay
  ],
)
def test_trivia_qa_parts_words_at_punctuation(prediction, answer, right):
  """Worked out by hand from the rule of TriviaQA's own script."""
  assert exact_match.trivia_qa([[answer]], [prediction])["exact_match"] == 100 * right


@pytest.mark.parametrize(
  ("prediction", "answer", "right"),
  [("SpiderMan", "Spider-Man", True), ("Spider Man", "Spider-Man", False), ("USA", "U.S.A.", True)],
)
def test_squad_deletes_punctuation(prediction, answer, right):
  assert exact_match.exact_match([[answer]], [prediction])["exact_match"] == 100 * right


def test_aliases_of_trivia_qa_are_normalized_as_its_authors_did(shared_data):
  file = shared_data / "trivia_qa" / "triviaqa_sample.json"
  for record in json.loads(file.read_text())["Data"]:
    answer = record["Answer"]
    ours = {exact_match.normalize_answer(text, "trivia_qa") for text in answer["Aliases"]}
    assert ours == set(answer["NormalizedAliases"])
    value = exact_match.normalize_answer(answer["Value"], "trivia_qa")
    assert value == answer["NormalizedValue"]


@pytest.mark.parametrize(
  ("task", "normalization"), [("trivia_qa", "trivia_qa"), ("web_questions", "squad")]
)
def test_each_data_set_is_scored_by_its_own_rule(task, normalization):
  assert tasks.find(task).metric_fns[0].normalization == normalization
