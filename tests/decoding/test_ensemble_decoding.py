"""What an ensemble writes: a plain search over two tables of logits, combined by numpy, writes the same."""

import jax
import numpy as np
import pytest

from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Beam, Greedy, Sample
from promot_jax.models.ensemble import Ensemble


@pytest.fixture(scope="module")
def search(module_of_tests):
  """The plain beam search, and the toys' inputs."""
  return module_of_tests("decoding/test_beam_search")


@pytest.fixture(scope="module")
def together(module_of_tests):
  """log p of members' logits together, by numpy."""
  return module_of_tests("models/test_ensemble").by_numpy


@pytest.mark.parametrize("eos_bonus", [-1.0, 2.0])
def test_beams_of_toys_are_those_of_a_search_over_two_tables(
  search, together, toy, toy_log_p, eos_bonus
):
  for seed in range(3):
    parts = [toy(11, seed=seed, eos_bonus=eos_bonus), toy(11, seed=9, eos_bonus=eos_bonus)]
    model = Ensemble(parts, weights=[0.4, 0.6], space="probability")
    tokens, scores = search.decode(model, max_length=6, width=4, alpha=0.6)
    for row, (number,) in enumerate(search.INPUTS):

      def log_p(earlier, number=number, parts=parts):
        stored = [toy_log_p(each, number, earlier) for each in parts]
        return together(stored, [0.4, 0.6], "probability")

      expected = search.search_lists(log_p, width=4, alpha=0.6, max_length=6)
      for place, (score, sequence) in enumerate(expected):
        assert tokens[row, place].tolist() == [*sequence, *[0] * (6 - len(sequence))]
        np.testing.assert_allclose(scores[row, place], score, rtol=1e-4)


def test_greedy_and_sampled_tokens_are_of_the_combined_distribution(together, toy, toy_log_p):
  parts = [toy(11, seed=1), toy(11, seed=2)]
  model = Ensemble(parts, weights=[0.5, 0.5], space="probability")
  batch = {"encoder_input_tokens": np.full((1, 1), 5, np.int32)}

  def log_p(tokens):
    return together([toy_log_p(each, 5, tokens) for each in parts], [0.5, 0.5], "probability")

  chosen: list[int] = []
  while len(chosen) < 6 and chosen[-1:] != [1]:
    chosen.append(int(log_p(chosen).argmax()))
  greedy = generate(model, batch, strategy=Greedy(), max_length=6)
  assert np.asarray(greedy.tokens)[0, 0, : len(chosen)].tolist() == chosen
  drawn = generate(model, batch, strategy=Sample(samples=4000), max_length=1, key=jax.random.key(0))
  shares = np.bincount(np.asarray(drawn.tokens)[0, :, 0], minlength=11) / 4000
  np.testing.assert_allclose(shares, np.exp(log_p([])), atol=0.04)  # 5 standard errors


def test_other_weights_run_in_the_same_program(toy):
  parts = [toy(13, seed=1), toy(13, seed=2)]
  batch = {"encoder_input_tokens": np.full((2, 1), 3, np.int32)}

  def decoded(weights):
    model = Ensemble(parts, weights=weights, space="probability")
    return np.asarray(generate(model, batch, strategy=Beam(width=2), max_length=4).tokens)

  first, second = (
    np.asarray(generate(part, batch, strategy=Beam(width=2), max_length=4).tokens) for part in parts
  )
  np.testing.assert_array_equal(decoded([1.0, 0.0]), first)
  programs = generate_lib.compiled._cache_size()
  np.testing.assert_array_equal(decoded([0.0, 1.0]), second)
  assert generate_lib.compiled._cache_size() == programs
