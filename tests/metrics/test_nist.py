"""NIST against the formula by hand; published figures are in test_published_scores.py."""

import math

import pytest

from promot_jax.metrics import confidence, nist


def test_information_and_length_penalty_equal_the_formula():
  # References: "a b" and "a c d": 5 words, a twice.  The output "a b" matches a (log2 5/2), b (log2 5/1)
  # and the pair a b (log2 2/1); it has 2 words and 1 pair against a mean length of 2.5.
  penalty = math.exp(math.log(0.5) * (math.log(2 / 2.5) / math.log(1.5)) ** 2)
  expected = ((math.log2(5 / 2) + math.log2(5)) / 2 + math.log2(2) / 1) * penalty
  assert nist.nist([["a b", "a c d"]], ["a b"])["nist"] == pytest.approx(expected)


def test_matches_are_clipped_by_the_largest_count_of_one_reference():
  row = nist.nist.statistics([["a b", "a a"]], ["a a a"])[0]
  assert row[0] == pytest.approx(2 * math.log2(4 / 3))


def test_the_two_reference_lengths_differ_with_unequal_numbers_of_references():
  # 2 + 6 + 4 words in 3 references of 2 examples: 12 / 1.5 = 8 pooled, 2 + 5 = 7 as means.
  targets = [["a b"], ["a b c d e f", "a b c d"]]
  outputs = ["a b", "a b c d e"]
  pooled, each = nist.Nist(), nist.Nist(reference_length="per_example")
  assert pooled(targets, outputs)["nist"] < each(targets, outputs)["nist"]
  ratio = pooled(targets, outputs)["nist"] / each(targets, outputs)["nist"]
  assert ratio == pytest.approx(math.exp(math.log(0.5) * (math.log(7 / 8) / math.log(1.5)) ** 2))


def test_an_empty_reference_is_no_reference():
  targets, outputs = [["a b c", ""], ["d e f"]], ["a b x", "d e"]
  assert nist.nist(targets, outputs) == nist.nist(["a b c", "d e f"], outputs)


def test_empty_outputs_score_zero():
  assert nist.nist(["a b", ""], ["", ""]) == {"nist": 0.0}
  assert nist.nist([""], ["a"]) == {"nist": 0.0}


def test_case_counts_only_where_asked():
  assert nist.nist(["A b"], ["a b"])["nist"] > nist.Nist(lowercase=False)(["A b"], ["a b"])["nist"]


def test_there_is_an_interval():
  targets = ["a b c d e", "f g h", "a c e g", "b d"]
  rows = nist.nist.statistics(targets, ["a b c", "f g", "a c x g", "b"])
  found = confidence.estimate(nist.nist, rows, resamples=50)
  assert found["nist"].standard_error > 0
