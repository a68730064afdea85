"""Bootstrap errors against the textbook formula and a direct resampling of the corpus."""

import numpy as np
import pytest

from promot_jax.metrics import accuracy, bleu, confidence


def test_the_error_of_a_mean_is_the_binomial_one():
  targets = ["True"] * 277
  predictions = ["True"] * 200 + ["False"] * 77
  result = confidence.bootstrap(accuracy.accuracy, targets, predictions, resamples=4000)["accuracy"]
  share = 200 / 277
  assert result.value == pytest.approx(100 * share)
  expected = 100 * np.sqrt(share * (1 - share) / 277)
  assert result.standard_error == pytest.approx(expected, rel=0.05)
  assert result.low == pytest.approx(result.value - 1.96 * expected, abs=0.4)
  assert result.high == pytest.approx(result.value + 1.96 * expected, abs=0.4)


def test_resampled_bleu_is_the_bleu_of_the_resampled_corpus():
  targets = ["a b c d e", "f g h i j k", "a c e g i"]
  outputs = ["a b c d x", "f g h i j", "a c e g i"]
  statistics = bleu.bleu.statistics(targets, outputs)
  rows = [2, 0, 0]
  direct = bleu.bleu([targets[i] for i in rows], [outputs[i] for i in rows])
  assert bleu.bleu.summarize(statistics[rows].sum(axis=0)) == direct


def test_the_same_seed_gives_the_same_errors():
  targets, predictions = ["a", "b", "c", "d"], ["a", "x", "c", "y"]
  first, second, other = (
    confidence.bootstrap(accuracy.accuracy, targets, predictions, seed=seed) for seed in (3, 3, 4)
  )
  assert first == second
  assert first["accuracy"].standard_error != other["accuracy"].standard_error


def test_certain_scores_have_no_error():
  result = confidence.bootstrap(accuracy.accuracy, ["a"] * 5, ["a"] * 5)["accuracy"]
  assert (result.value, result.standard_error, result.low, result.high) == (100, 0, 100, 100)


def test_the_standard_error_of_few_scores_is_the_sample_one():
  assert confidence.mean_standard_error([1.0, 2.0, 6.0]) == pytest.approx(np.sqrt(7 / 3))
  assert np.isnan(confidence.mean_standard_error([1.0]))
