"""Demonstrations depend on the query, the seed and the pool, and on nothing else."""

import pytest

from promot_jax import errors
from promot_jax.data import few_shot

PAIRS = [(f"question {number}", f"answer {number}") for number in range(30)]


def test_the_query_is_never_its_own_demonstration():
  pool = few_shot.Demonstrations(PAIRS[:5])
  for query, _ in PAIRS[:5]:
    shown = [text for text, _ in pool.choose(query, shots=4, seed=3)]
    assert query not in shown
    assert len(set(shown)) == 4


def test_the_same_seed_gives_the_same_demonstrations_and_another_seed_others():
  pool = few_shot.Demonstrations(PAIRS)
  choices = {
    seed: [pool.choose(f"query {n}", shots=4, seed=seed) for n in range(9)] for seed in (0, 1)
  }
  again = few_shot.Demonstrations(PAIRS)
  assert [again.choose(f"query {n}", shots=4, seed=0) for n in range(9)] == choices[0]
  assert choices[0] != choices[1]


def test_one_shot_shows_the_first_of_four():
  pool = few_shot.Demonstrations(PAIRS)
  assert pool.choose("q", shots=1, seed=5) == pool.choose("q", shots=4, seed=5)[:1]


def test_every_pair_of_the_pool_is_shown_to_some_query():
  pool = few_shot.Demonstrations(PAIRS)
  shown = {pool.choose(f"query {n}", shots=1, seed=0)[0] for n in range(400)}
  assert shown == set(PAIRS)


def test_unlabelled_and_repeated_records_are_not_in_the_pool():
  pool = few_shot.Demonstrations([("a", "1"), ("a", "2"), ("b", ""), ("c", "3")])
  assert len(pool) == 2
  assert sorted(pool.choose("d", shots=2, seed=0)) == [("a", "1"), ("c", "3")]


def test_a_pool_that_is_too_small_is_refused():
  pool = few_shot.Demonstrations(PAIRS[:4])
  assert len(pool.choose("other", shots=4, seed=0)) == 4
  with pytest.raises(errors.DataError, match=r"4 demonstrations .* only 3"):
    pool.choose("question 0", shots=4, seed=0)


def test_a_prompt_ends_with_its_query():
  pool = few_shot.Demonstrations(PAIRS[:1])
  assert pool.prompt("q", shots=1, seed=0) == "question 0 answer 0 q"


def test_about_a_tenth_of_the_texts_is_held_out_and_always_the_same():
  held_out = [few_shot.is_held_out(f"text {number}") for number in range(5000)]
  assert 420 < sum(held_out) < 580
  assert held_out == [few_shot.is_held_out(f"text {number}") for number in range(5000)]
