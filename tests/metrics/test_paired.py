"""Paired tests against scipy, and against every arrangement of a small corpus."""

import itertools

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.metrics import bleu, metric, paired

stats = pytest.importorskip("scipy.stats")


def of_scores(first, second, **options):
  rows = [metric.mean_statistics([scores]) for scores in (first, second)]
  return paired.difference(*rows, summarize=paired.mean, **options)


@pytest.mark.parametrize(
  ("first_only", "second_only"), [(0, 0), (0, 1), (5, 5), (3, 11), (40, 2), (260, 331)]
)
def test_mcnemar_is_the_binomial_test_of_the_examples_on_which_they_differ(first_only, second_only):
  n = first_only + second_only
  expected = stats.binomtest(second_only, n).pvalue if n else 1.0
  assert paired.mcnemar(first_only, second_only) == pytest.approx(expected, rel=1e-9)


def test_examples_that_are_right_or_wrong_are_counted_where_the_systems_differ():
  first = [100, 100, 0, 0, 0, 0, 0, 100]
  second = [100, 0, 100, 100, 100, 100, 0, 100]
  found = of_scores(first, second, resamples=2000)
  assert (found.first, found.second, found.value) == (37.5, 75.0, 37.5)
  assert (found.higher, found.lower, found.count, found.test) == (4, 1, 8, "McNemar, exact")
  assert found.p_value == pytest.approx(stats.binomtest(1, 5).pvalue)
  # Of the differences, whose mean and deviation are known: the normal interval, roughly.
  gains = np.subtract(second, first)
  reach = 1.96 * gains.std() / np.sqrt(8)
  assert found.interval == pytest.approx((37.5 - reach, 37.5 + reach), abs=7)


def test_exchanges_of_a_few_examples_are_all_tried():
  first = [10.0, 20.0, 35.0, 80.0, 5.0, 60.0, 60.0]
  second = [30.0, 25.0, 30.0, 99.0, 45.0, 70.0, 60.0]
  found = of_scores(first, second)
  expected = stats.permutation_test(
    (second, first), lambda a, b: np.mean(a) - np.mean(b), permutation_type="samples"
  )
  assert found.p_value == pytest.approx(expected.pvalue)
  assert found.test == "exchanges, all 64"  # the last example is alike: nothing to exchange


def test_exchanges_of_many_examples_are_drawn_and_a_seed_repeats_them():
  generator = np.random.default_rng(3)
  first = generator.uniform(0, 100, 60)
  second = np.clip(first + generator.normal(2, 9, 60), 0, 100)
  found, again, other = (of_scores(first, second, seed=seed) for seed in (1, 1, 2))
  assert found == again and found.p_value != other.p_value
  expected = stats.permutation_test(
    (second, first),
    lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
    permutation_type="samples",
    vectorized=True,
    n_resamples=20_000,
    rng=np.random.default_rng(0),
  )
  assert found.p_value == pytest.approx(expected.pvalue, abs=0.015)  # both are draws
  assert found.p_value == pytest.approx(stats.ttest_rel(second, first).pvalue, abs=0.02)
  interval = stats.ttest_rel(second, first).confidence_interval(0.95)
  assert found.interval == pytest.approx((interval.low, interval.high), abs=0.4)


def test_outputs_change_places_in_the_corpus_whose_bleu_is_compared():
  targets = ["a b c d e f", "f g h i j k", "a c e g i k", "b d f h j l"]
  outputs = (
    ["a b c d x y", "f g h i j x", "a c e x i k", "b d f x j l"],
    ["a b c d e x", "f g h i j k", "a c e g x k", "b d x h j l"],
  )
  rows = [bleu.bleu.statistics(targets, texts) for texts in outputs]

  def summarize(totals):
    flat = totals.reshape(-1, totals.shape[-1])
    return np.asarray([bleu.bleu.summarize(row)["bleu"] for row in flat]).reshape(totals.shape[:-1])

  found = paired.difference(*rows, summarize=summarize, resamples=50)
  scores = [bleu.bleu(targets, texts)["bleu"] for texts in outputs]
  assert (found.first, found.second) == pytest.approx(tuple(scores))
  as_far = 0
  for exchanged in itertools.product((False, True), repeat=4):
    mixed = [
      [pair[each != side] for pair, each in zip(zip(*outputs), exchanged)] for side in (0, 1)
    ]
    apart = [bleu.bleu(targets, texts)["bleu"] for texts in mixed]
    as_far += abs(apart[0] - apart[1]) >= abs(scores[0] - scores[1]) - 1e-9
  assert found.p_value == as_far / 16


def test_the_difference_of_mean_scores_is_that_of_independent_tasks_of_one_weight_each():
  generator = np.random.default_rng(5)
  first = [generator.uniform(0, 100, count) for count in (60, 60, 150)]
  gains = [generator.normal(3, 12, len(scores)) for scores in first[:2]]
  # What the first task gains the second loses, example by example: one draw for both would show no spread.
  gains = [gains[0], 4 - gains[0], generator.normal(3, 12, 150)]
  samples = [
    paired.Sample(
      first=metric.mean_statistics([scores]),
      second=metric.mean_statistics([scores + gain]),
      summarize=paired.mean,
    )
    for scores, gain in zip(first, gains)
  ]
  found = paired.mean_difference(samples, resamples=4000)
  value = np.mean([gain.mean() for gain in gains])
  assert found.value == pytest.approx(value)
  assert (found.first, found.count) == (pytest.approx(np.mean([s.mean() for s in first])), 270)
  deviation = np.sqrt(sum(gain.var() / len(gain) for gain in gains)) / 3
  assert found.interval == pytest.approx(
    (value - 1.96 * deviation, value + 1.96 * deviation), abs=0.2
  )
  # Under the hypothesis signs are a coin's: the spread is that of the gains about 0.
  spread = np.sqrt(sum((gain**2).sum() / len(gain) ** 2 for gain in gains)) / 3
  assert found.p_value == pytest.approx(2 * stats.norm.sf(value / spread), abs=0.015)
  alone = paired.difference(
    samples[2].first, samples[2].second, summarize=paired.mean, resamples=4000
  )
  one = paired.mean_difference(samples[2:], resamples=4000)
  assert one.value == alone.value and one.interval == pytest.approx(alone.interval, abs=0.3)
  with pytest.raises(errors.DataError, match="no task"):
    paired.mean_difference([])


def test_systems_that_are_alike_have_p_1_and_no_interval():
  found = of_scores([30.0, 70.0, 10.0], [30.0, 70.0, 10.0])
  assert (found.value, found.p_value, found.interval, found.higher) == (0.0, 1.0, None, 0)


def test_p_values_of_several_tests_are_raised_as_holm_says():
  # Worked by hand: 3 * 0.01, max(that, 2 * 0.04), max(that, 0.03 * 1 of the last).
  assert paired.adjusted([0.04, 0.01, 0.045]) == pytest.approx([0.08, 0.03, 0.08])
  assert paired.adjusted([0.5, 0.9]) == [1.0, 1.0]
  assert paired.adjusted([]) == []


@pytest.mark.parametrize("counts", [(3, 4), (0, 0)])
def test_different_numbers_of_examples_are_refused(counts):
  first, second = (np.ones((count, 2)) for count in counts)
  with pytest.raises(errors.DataError, match="the same examples"):
    paired.difference(first, second, summarize=paired.mean)
