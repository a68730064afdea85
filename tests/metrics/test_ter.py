"""TER against hand counts and sacrebleu's corpus function."""

import pytest
import sacrebleu

from promot_jax.metrics import ter


def test_edits_are_divided_by_the_mean_reference_length():
  # One substitution makes the first reference (4 words); the other has 6.
  targets, outputs = [["a b c d", "p q r s t u"]], ["a b x d"]
  assert ter.ter(targets, outputs)["ter"] == pytest.approx(100 * 1 / 5)


def test_a_shift_is_one_edit():
  assert ter.ter(["a b c d e"], ["c d e a b"])["ter"] == pytest.approx(100 * 1 / 5)


def test_the_corpus_equals_sacrebleu():
  first = ["The cat sat on the mat .", "It is 3.5 km .", "Nothing here"]
  second = ["A cat was sitting on the mat .", "That is 3.5 km , right ?", "Some else"]
  outputs = ["on the mat the cat was", "It's 3.5 km", "Completely different , indeed not it"]
  expected = sacrebleu.corpus_ter(outputs, [first, second]).score
  ours = ter.ter(list(zip(first, second, strict=True)), outputs)["ter"]
  assert ours == pytest.approx(expected, abs=1e-9)


def test_empty_references_can_be_left_out():
  targets, outputs = [["a b c d", "", ""]], ["a b c x"]
  assert ter.tercom(targets, outputs)["ter"] == pytest.approx(25)
  assert ter.ter(targets, outputs)["ter"] == pytest.approx(75)


def test_only_empty_texts_are_no_error_and_words_for_nothing_a_whole_one():
  assert ter.tercom([["", ""]], [""]) == {"ter": 0.0}
  assert ter.tercom([["", ""]], ["a b"]) == {"ter": 100.0}


def test_the_signature_is_sacrebleus():
  scorer = sacrebleu.metrics.TER()
  scorer.corpus_score(["a"], [["a"]])
  assert f"nrefs:1|{ter.ter.signature}" == scorer.get_signature().format()


def test_lower_is_better_and_there_is_no_upper_end():
  assert not ter.ter.scale.higher_is_better
  assert ter.ter.scale.holds(250.0)
  assert not ter.ter.scale.holds(float("nan"))
