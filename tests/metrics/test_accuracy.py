"""Accuracy and the checks that every metric shares, against hand counts."""

import pytest

from promot_jax import errors
from promot_jax.metrics import accuracy, bleu, exact_match, format_share, rouge

EVERY_METRIC = [
  accuracy.accuracy,
  exact_match.exact_match,
  bleu.bleu,
  rouge.rouge,
  format_share.FormatShare(),
  format_share.LanguageShare(is_word=str.isalpha),
]


def test_accuracy_is_the_percentage_of_equal_labels():
  targets = ["True", "False", "True"]
  assert accuracy.accuracy(targets, ["True", "True", "True"]) == {
    "accuracy": pytest.approx(200 / 3)
  }


def test_accuracy_ignores_surrounding_spaces_but_not_capitals_or_extra_words():
  targets = ["True", "True", "True"]
  assert accuracy.accuracy(targets, [" True ", "true", "True or not"])["accuracy"] == pytest.approx(
    100 / 3
  )


def test_any_of_several_labels_counts():
  assert accuracy.accuracy([["True", "Yes"], ["False", "No"]], ["Yes", "Maybe"])["accuracy"] == 50


@pytest.mark.parametrize("metric", EVERY_METRIC, ids=lambda metric: type(metric).__name__)
def test_unequal_lengths_and_no_examples_are_refused(metric):
  with pytest.raises(errors.DataError, match="2 targets and 1 predictions"):
    metric(["a", "b"], ["a"])
  with pytest.raises(errors.DataError, match="no examples"):
    metric([], [])


@pytest.mark.parametrize("metric", EVERY_METRIC, ids=lambda metric: type(metric).__name__)
def test_seqio_may_call_a_metric_with_named_arguments(metric):
  scores = metric(targets=["a b c d", "e f g h"], predictions=["a b c d", "x y z w"])
  assert all(0 <= score <= 100 + 1e-9 for score in scores.values())
