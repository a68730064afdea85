"""Choice of a candidate by its score."""

import math

import pytest

from promot_jax import errors
from promot_jax.evaluation import selection


def test_the_best_score_wins_and_ties_go_to_the_earliest():
  chosen = selection.select({100: 70.0, 200: 72.5, 300: 72.5, 400: 71.0}, metric="rte accuracy")
  assert (chosen.candidate, chosen.score) == (200, 72.5)
  assert chosen.why == (
    "checkpoint 200: highest rte accuracy 72.50 of 4 checkpoints, first of 2 equal"
  )


def test_the_lowest_wins_where_lower_is_better():
  chosen = selection.select({0.25: 3.0, 0.5: 2.0}, metric="loss", mode="min", noun="lambda")
  assert chosen.candidate == 0.5
  assert chosen.why == "lambda 0.5: lowest loss 2.00 of 2 lambdas"


def test_nan_never_wins_and_is_mentioned():
  chosen = selection.select({1: math.nan, 2: 1.0}, metric="accuracy")
  assert chosen.candidate == 2
  assert chosen.why.endswith("of 1 checkpoints, 1 without a score")


def test_nothing_to_choose_from_and_an_unknown_mode_are_refused():
  with pytest.raises(errors.DataError, match="None of the 1 checkpoints"):
    selection.select({1: math.nan}, metric="accuracy")
  with pytest.raises(errors.ConfigError, match="'best'"):
    selection.select({1: 1.0}, metric="accuracy", mode="best")
