"""F1 of answers against counts by hand."""

import pytest

from promot_jax.metrics import answer_f1


def test_shared_words_give_the_harmonic_mean_of_both_shares():
  # Without the article: 3 words against 2, of which 2 are shared.
  scores = answer_f1.f1(["Denver Broncos!"], ["the winning Denver Broncos"])
  assert scores == pytest.approx({"f1": 100 * 2 * (2 / 3) * 1 / (2 / 3 + 1), "exact_match": 0})


def test_a_word_counts_as_often_as_both_have_it():
  # "new" twice against once: 2 of 3 and 2 of 2 words.
  assert answer_f1.f1(["new york"], ["new new york"])["f1"] == pytest.approx(80)


def test_the_best_of_several_answers_counts():
  scores = answer_f1.f1([["Broncos", "Denver Broncos", "Carolina"]], ["denver broncos."])
  assert scores == {"f1": 100.0, "exact_match": 100.0}


@pytest.mark.parametrize(
  ("accepted", "answer", "expected"),
  [([], "", 100), ([], "no answer", 0), ("the", "a", 100), ("the", "one", 0), ("one", "", 0)],
)
def test_empty_answers_are_right_where_there_is_nothing_to_say(accepted, answer, expected):
  assert answer_f1.f1([accepted], [answer]) == {"f1": expected, "exact_match": expected}


def test_trivia_qa_parts_words_at_punctuation():
  assert answer_f1.trivia_qa(["U.S. Navy"], ["s navy"])["f1"] == pytest.approx(80)
  assert answer_f1.f1(["U.S. Navy"], ["s navy"])["f1"] == pytest.approx(50)
