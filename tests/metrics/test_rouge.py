"""ROUGE against hand counts and published scores of the XSum lead baseline and ROUGE-1.5.5."""

import pytest

from promot_jax.metrics import metric as metric_lib
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


def test_the_xsum_lead_baseline_scores_as_published(shared_data):
  folder = shared_data / "xsum"
  outputs = _lines(folder / "lead-test-output.txt")
  targets = _lines(folder / "gold-test-sentences.txt")
  scores = rouge.rouge(targets, outputs)
  assert len(targets) == 11334
  # Published with the same package and stemming.
  assert scores["rouge1"] == pytest.approx(16.01, abs=0.006)
  assert scores["rouge2"] == pytest.approx(1.58, abs=0.006)
  assert scores["rougeL"] == pytest.approx(11.79, abs=0.006)


@pytest.mark.parametrize(
  ("stemming", "name", "published"),
  [(False, "rouge1", 38.554), (True, "rouge1", 40.524), (True, "rougeL", 40.275)],
)
def test_the_original_perl_scores_are_reproduced(shared_data, stemming, name, published):
  folder = shared_data / "rouge_testdata"
  outputs, targets = _lines(folder / "prediction_large.txt"), _lines(folder / "target_large.txt")
  statistics = rouge.Rouge(types=(name,), stemming=stemming).statistics(targets, outputs)
  assert statistics.shape == (1000, 2)
  score = metric_lib.mean_summary([name], statistics.sum(axis=0))[name]
  assert score == pytest.approx(published, abs=0.2)


def _lines(path):
  return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
