"""BLEU against a hand computation, sacrebleu's corpus function and published WebNLG figures."""

import math

import pytest
import sacrebleu

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


# Official WebNLG 2017 scores, Moses multi-bleu in lower case on tokenized text, references 0 to 2.
@pytest.mark.parametrize(
  ("system", "part", "published"),
  [
    ("GKB_Unimelb", "all", 45.13),
    ("GKB_Unimelb", "old", 54.52),
    ("GKB_Unimelb", "new", 33.27),
    ("Tilburg_University-2", "all", 44.28),
    ("Tilburg_University-2", "old", 54.29),
    ("Tilburg_University-2", "new", 29.88),
    ("UIT-DANGNT-CLNLP", "all", 7.07),
    ("UIT-DANGNT-CLNLP", "old", 19.87),
    ("UIT-DANGNT-CLNLP", "new", 0.11),
  ],
)
def test_published_webnlg_scores_are_reproduced(shared_data, system, part, published):
  folder = shared_data / "webnlg_2017" / "official_scoring"
  outputs = _lines(folder / f"{system}_{part}-cat.txt")
  references = [_lines(folder / f"gold-{part}-cat-reference{i}.lex") for i in range(3)]
  multi_bleu = bleu.Bleu(tokenizer="none", lowercase=True, smoothing="none")
  score = multi_bleu(list(zip(*references, strict=True)), outputs)["bleu"]
  assert score == pytest.approx(published, abs=0.006)


def _lines(path):
  return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
