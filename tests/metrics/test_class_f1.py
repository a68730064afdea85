"""Confusion matrix and F1 of classes against counts by hand."""

import pytest

from promot_jax import errors
from promot_jax.metrics import class_f1, confidence

LABELS = ("yes", "no", "maybe")
TARGETS = ["yes", "yes", "yes", "no", "no", "maybe"]
OUTPUTS = ["yes", "no", "Paris", " no", "yes", "no"]


def test_the_matrix_counts_targets_by_predictions():
  matrix = class_f1.confusion_matrix(LABELS, TARGETS, OUTPUTS)
  assert matrix.counts.tolist() == [[1, 1, 0, 1], [1, 1, 0, 0], [0, 1, 0, 0]]


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
  # yes: 1 of 2 predictions, 1 of 3 targets; no: 1 of 3 predictions, 1 of 2 targets; maybe: never right.
  scores = class_f1.ClassF1(labels=LABELS)(TARGETS, OUTPUTS)
  assert scores["f1_yes"] == pytest.approx(40)
  assert scores["f1_no"] == pytest.approx(40)
  assert scores["f1_maybe"] == 0
  assert scores["macro_f1"] == pytest.approx(80 / 3)


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
  assert class_f1.ClassF1(labels=LABELS)(["yes", "no"], ["yes", "no"])["macro_f1"] == 100
  assert class_f1.confusion_matrix(LABELS, ["yes"], ["no"]).f1["maybe"] is None


@pytest.mark.parametrize("output", ["no", "Paris", ""])
def test_one_wrong_example_scores_zero(output):
  assert class_f1.ClassF1(labels=LABELS)(["yes"], [output])["macro_f1"] == 0


def test_the_macro_average_has_an_interval():
  metric = class_f1.ClassF1(labels=LABELS)
  found = confidence.estimate(metric, metric.statistics(TARGETS, OUTPUTS), resamples=60)["macro_f1"]
  assert found.interval[0] < found.value < found.interval[1]


def test_a_target_that_is_no_label_is_refused():
  with pytest.raises(
    errors.DataError, match="'perhaps' of example 1 is none of the labels yes, no"
  ):
    class_f1.ClassF1(labels=LABELS)(["yes", "perhaps"], ["yes", "yes"])


@pytest.mark.parametrize("labels", [(), ("yes",), ("yes", "yes ")])
def test_two_labels_are_needed(labels):
  with pytest.raises(errors.ConfigError, match="name at least two, each once"):
    class_f1.ClassF1(labels=labels)
