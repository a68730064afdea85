"""Exact match against hand-normalized answers and real TriviaQA aliases."""

import pytest

from promot_jax.metrics import exact_match


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


def test_a_longer_answer_that_contains_the_target_does_not_match():
  assert exact_match.exact_match([["Paris"]], ["Paris France"])["exact_match"] == 0
