"""BLEU against hand computations and sacrebleu's corpus function."""

import math

import pytest
import sacrebleu

from promot_jax import errors
from promot_jax.metrics import bleu


def test_bleu_of_one_sentence_equals_the_formula():
  # Output of 5 words, reference of 6: 5/5 unigrams, 4/4 bigrams, 3/3 trigrams, 2/2 4-grams match.
  score = bleu.bleu(["the cat sat down here today"], ["the cat sat down here"])["bleu"]
  assert score == pytest.approx(100 * math.exp(1 - 6 / 5))


def test_bleu_counts_clipped_matches():
  # Unigrams 3/4 ("a" counts once), bigrams 1/3, trigrams 0/2 and 4-grams 0/1 with exponential
  # smoothing: 1/(2*2) and 1/(4*1).  No brevity penalty at equal length.
  score = bleu.bleu(["a b c e"], ["a b a c"])["bleu"]
  assert score == pytest.approx(100 * (3 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** 0.25)


def test_bleu_equals_sacrebleu_on_a_corpus_with_two_references():
  first = ["The cat sat on the mat.", "It's 3.5 km, isn't it?", "Nothing here matches"]
  second = ["A cat was sitting on the mat.", "It is 3.5 km, is it not?", "Something else"]
  outputs = ["The cat was on the mat.", "It is 3.5 km, isn't it?", "Completely different words"]
  expected = sacrebleu.corpus_bleu(outputs, [first, second]).score
  ours = bleu.bleu(list(zip(first, second, strict=True)), outputs)["bleu"]
  assert ours == pytest.approx(expected, abs=1e-9)


def test_the_order_of_examples_does_not_matter():
  targets, outputs = ["a b c d e", "f g h i"], ["a b c d", "f g h i"]
  assert bleu.bleu(targets, outputs) == bleu.bleu(targets[::-1], outputs[::-1])


def test_empty_outputs_score_zero():
  assert bleu.bleu(["a b c d", "e"], ["", ""]) == {"bleu": 0.0}


def test_the_signature_names_tokenizer_and_case():
  assert bleu.Bleu(tokenizer="none", lowercase=True).signature.startswith("case:lc|tok:none|")


def test_orders_below_four_count_shorter_ngrams_only():
  # 4 of 5 words and 2 of 4 pairs match, equal lengths.
  targets, outputs = ["a b c d e"], ["a b x d e"]
  assert bleu.Bleu(order=1, name="bleu1")(targets, outputs) == pytest.approx({"bleu1": 80.0})
  assert bleu.Bleu(order=2)(targets, outputs)["bleu"] == pytest.approx(100 * (4 / 5 * 2 / 4) ** 0.5)


def test_an_empty_reference_is_one_of_length_zero():
  # The output has 3 words: the references of 0 and 6 are equally close, and the shorter one counts.
  targets, outputs = [["a b c d e f", ""]], ["a b c"]
  row = bleu.multi_bleu.statistics(targets, outputs)[0]
  assert row[:2].tolist() == [3, 0]


def test_an_example_without_references_is_refused():
  with pytest.raises(errors.DataError, match="Example 1 has no reference"):
    bleu.bleu(["a", []], ["a", "b"])
