"""Bootstrap errors against the textbook formula and a direct resampling of the corpus."""

import numpy as np
import pytest

from promot_jax.metrics import accuracy, bleu, confidence


def estimate(metric, targets, predictions, **options):
  return confidence.estimate(metric, metric.statistics(targets, predictions), **options)


def test_the_error_of_a_mean_is_the_binomial_one():
  targets = ["True"] * 277
  predictions = ["True"] * 200 + ["False"] * 77
  result = estimate(accuracy.accuracy, targets, predictions, resamples=4000)["accuracy"]
  share = 200 / 277
  assert result.value == pytest.approx(100 * share)
  expected = 100 * np.sqrt(share * (1 - share) / 277)
  assert result.standard_error == pytest.approx(expected, rel=0.05)
  assert result.interval == pytest.approx(
    (result.value - 1.96 * expected, result.value + 1.96 * expected), abs=0.4
  )


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
    estimate(accuracy.accuracy, targets, predictions, seed=seed) for seed in (3, 3, 4)
  )
  assert first == second
  assert first["accuracy"].standard_error != other["accuracy"].standard_error


def test_certain_scores_have_no_error():
  result = estimate(accuracy.accuracy, ["a"] * 5, ["a"] * 5)["accuracy"]
  assert (result.value, result.standard_error) == (100, 0)  # of the resamples, not of the model
  assert result.interval == pytest.approx((56.55, 100.0), abs=0.01)


@pytest.mark.parametrize(("hits", "count"), [(0, 8), (8, 8), (3, 8), (50, 96), (277, 277)])
def test_shares_have_the_interval_of_wilson(hits, count):
  stats = pytest.importorskip("scipy.stats")
  expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
  right = ["a"] * hits + ["b"] * (count - hits)
  found = estimate(accuracy.accuracy, ["a"] * count, right, resamples=5)["accuracy"]
  assert found.interval == pytest.approx((100 * expected.low, 100 * expected.high))


def test_a_corpus_score_that_no_resample_moves_has_no_interval():
  texts = ["a b c d e"] * 4
  found = estimate(bleu.bleu, texts, texts, resamples=20)["bleu"]
  assert (found.value, found.interval) == (pytest.approx(100.0), None)


def test_the_standard_error_of_few_scores_is_the_sample_one():
  assert confidence.mean_standard_error([1.0, 2.0, 6.0]) == pytest.approx(np.sqrt(7 / 3))
  assert np.isnan(confidence.mean_standard_error([1.0]))
