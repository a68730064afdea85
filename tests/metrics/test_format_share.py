"""Shares of outputs in the tuned task's format, against hand counts."""

import pytest

from promot_jax.metrics import format_share


def test_only_outputs_that_are_exactly_a_label_count():
  outputs = ["True", " False ", "True story", "true", ""]
  assert format_share.FormatShare()([""] * 5, outputs) == {"format_share": pytest.approx(40)}


def test_labels_are_the_tuned_tasks_own():
  share = format_share.FormatShare(labels=("A", "B", "C", "D"))
  assert share(["x", "x"], ["B", "E"])["format_share"] == 50


def test_words_of_the_tuned_language_are_counted_over_all_outputs():
  french = {"le", "chat", "noir"}
  share = format_share.LanguageShare(is_word=french.__contains__, language="French")
  # 2 of 3 words, then 1 of 5: 3 of 8 in all, not the mean of the two shares.
  outputs = ["Le chat, sleeps", "der Hund und noir Katze"]
  assert share(["", ""], outputs)["format_share"] == pytest.approx(100 * 3 / 8)


def test_outputs_without_words_score_zero():
  share = format_share.LanguageShare(is_word=str.isalpha)
  assert share(["", ""], ["", "..."]) == {"format_share": 0.0}
