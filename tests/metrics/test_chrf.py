"""chrF against hand counts and sacrebleu's corpus function."""

import pytest
import sacrebleu

from promot_jax.metrics import chrf

FIRST = ["The cat sat on the mat.", "It is 3.5 km.", "Nothing here"]
SECOND = ["A cat was sitting on the mat.", "That's 3.5 km, right?", "Some else"]
OUTPUTS = ["The cat was on the mat.", "It's 3.5 km", "Completely different"]


def test_chrf_of_one_pair_equals_hand_counts():
  # Characters: 2 of 3 and 2 of 4 match; pairs: 1 of 2 and 1 of 3; triples 0 of 1 and 0 of 2.  Orders 4
  # to 6 have no n-grams in the output.  beta = 2 weighs recall four times.
  precision, recall = (2 / 3 + 1 / 2 + 0) / 3, (2 / 4 + 1 / 3 + 0) / 3
  expected = 100 * 5 * precision * recall / (4 * precision + recall)
  assert chrf.chrf(["abcd"], ["abx"])["chrf"] == pytest.approx(expected)


@pytest.mark.parametrize(("metric", "words"), [(chrf.chrf, 0), (chrf.chrf_plus_plus, 2)])
def test_the_corpus_equals_sacrebleu(metric, words):
  expected = sacrebleu.corpus_chrf(OUTPUTS, [FIRST, SECOND], word_order=words).score
  ours = metric(list(zip(FIRST, SECOND, strict=True)), OUTPUTS)
  assert ours == pytest.approx({metric.name: expected}, abs=1e-9)


def test_the_signature_is_sacrebleus():
  scorer = sacrebleu.metrics.CHRF(word_order=2)
  scorer.corpus_score(OUTPUTS, [FIRST])
  assert f"nrefs:1|{chrf.chrf_plus_plus.signature}" == scorer.get_signature().format()


def test_empty_outputs_score_zero():
  assert chrf.chrf(["abc", ""], ["", ""]) == {"chrf": 0.0}
