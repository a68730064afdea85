"""F1 by hand, and of labels against counts made another way."""

import numpy as np
import pytest

from promot_jax.metrics import confidence
from promot_jax.metrics.f1 import LabelF1, WordF1


def test_macro_f1_by_hand():
  metric = LabelF1(labels=("a", "b", "c", "never"))
  targets, predictions = ["a", "a", "b", "c"], ["a", "b", " b", "nothing"]
  # a: 1 right, 1 said, 2 true; b: 1 right, 2 said, 1 true; c: none of 1 true.
  assert metric(targets, predictions) == {"f1": pytest.approx(100 * (2 / 3 + 2 / 3 + 0) / 3)}
  assert metric(["a"], ["x"]) == {"f1": 0.0}
  assert metric([["b", "a"]], ["a"]) == {"f1": 100.0}


def test_macro_f1_of_many_is_that_of_its_confusion_matrix():
  draw = np.random.default_rng(0)
  labels = ("a", "b", "c")
  truth, said = draw.integers(0, 3, 200), draw.integers(0, 3, 200)
  matrix = np.zeros((3, 3))
  np.add.at(matrix, (truth, said), 1)
  precision = np.diag(matrix) / matrix.sum(0)
  recall = np.diag(matrix) / matrix.sum(1)
  expected = 100 * np.mean(2 * precision * recall / (precision + recall))
  targets, predictions = ([labels[n] for n in numbers] for numbers in (truth, said))
  metric = LabelF1(labels=labels)
  assert metric(targets, predictions)["f1"] == pytest.approx(expected)
  estimate = confidence.bootstrap(metric, targets, predictions)["f1"]
  assert estimate.value == pytest.approx(expected) and estimate.standard_error > 0


def test_words_that_are_shared_count():
  metric = WordF1()
  assert metric(["the red car"], ["a red red bike"]) == {"f1": pytest.approx(100 * 2 / 5)}
  assert metric([["x", "Red car!"]], ["red car"]) == {"f1": 100.0}
  assert metric(["the", "the"], ["", "car"]) == {"f1": 50.0}
