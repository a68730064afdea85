"""ROUGE against hand counts."""

import pytest

from promot_jax.metrics import rouge


def test_rouge_of_one_pair_equals_hand_counts():
  # Output of 4 words, target of 6; common: 3 words, 1 pair (the cat), longest subsequence 3.
  scores = rouge.rouge(["the cat lay on the mat"], ["the cat a mat"])
  assert scores["rouge1"] == pytest.approx(100 * 2 * (3 / 4) * (3 / 6) / (3 / 4 + 3 / 6))
  assert scores["rouge2"] == pytest.approx(100 * 2 * (1 / 3) * (1 / 5) / (1 / 3 + 1 / 5))
  assert scores["rougeL"] == pytest.approx(scores["rouge1"])


def test_stemming_joins_word_forms_and_can_be_turned_off():
  targets, outputs = ["cameras filming"], ["camera films"]
  assert rouge.rouge(targets, outputs)["rouge2"] == pytest.approx(100)
  assert rouge.Rouge(stemming=False)(targets, outputs)["rouge2"] == 0


def test_the_best_reference_counts():
  assert rouge.rouge([["x y", "a b"]], ["a b"])["rouge2"] == pytest.approx(100)


def test_precision_and_recall_are_the_shares_of_output_and_target():
  # 3 of the output's 4 words and of the target's 6.
  pair = ["the cat lay on the mat"], ["the cat a mat"]
  assert rouge.Rouge(measure="precision")(*pair)["rouge1"] == pytest.approx(75)
  assert rouge.Rouge(measure="recall")(*pair)["rouge1"] == pytest.approx(50)


def test_the_summary_level_unites_the_sentences():
  # Each sentence of the target is found whole in the output, whose order is the other one.
  target, output = "a b c\nd e f", "d e f\na b c"
  assert rouge.rouge_sum([target], [output])["rougeLsum"] == pytest.approx(100)
  assert rouge.rouge([target], [output])["rougeL"] == pytest.approx(50)
