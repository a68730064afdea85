"""Beam search against a search over plain lists, against all sequences, and against T5X."""

import itertools

import jax
import numpy as np
import pytest

from promot_jax import partitioning, paths
from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding.strategies import Beam, Greedy
from promot_jax.models.scanning import stack_layers
from tiny_models import tiny

EOS, PAD = 1, 0
INPUTS = np.array([[5], [2], [9]], np.int32)


def decode(model, inputs=INPUTS, *, max_length, **beam):
  result = generate_lib.generate(
    model, {"encoder_input_tokens": inputs}, strategy=Beam(**beam), max_length=max_length
  )
  return np.asarray(result.tokens), np.asarray(result.scores)


def penalty(alpha, length):
  return ((5 + length) / 6) ** alpha


def search_lists(log_p, *, width, alpha, max_length):
  """The same rules on lists of (log p, tokens); returns [(score, tokens)], best first."""
  live, finished = [(0.0, ())], []
  for length in range(1, max_length + 1):
    options = [
      (score + step, (*tokens, token))
      for score, tokens in live
      for token, step in enumerate(log_p(tokens))
    ]
    options = sorted(options, key=lambda option: -option[0])[: 2 * width]
    ended = [(score / penalty(alpha, length), t) for score, t in options if t[-1] == EOS]
    finished = sorted(finished + ended, key=lambda option: -option[0])[:width]
    live = [option for option in options if option[1][-1] != EOS][:width]
    reachable = live[0][0] / penalty(alpha, max_length + 1)
    if len(finished) == width and finished[-1][0] > reachable:
      break
  return finished or live


@pytest.mark.parametrize("eos_bonus", [-1.0, 0.0, 2.0])
@pytest.mark.parametrize("width, alpha", [(1, 0.6), (2, 0.0), (4, 0.6), (5, 1.5)])
def test_beams_equal_a_search_over_lists(toy, toy_log_p, width, alpha, eos_bonus):
  vocabulary, max_length = 11, 6
  for seed in range(3):
    model = toy(vocabulary, seed=seed, eos_bonus=eos_bonus)
    tokens, scores = decode(model, max_length=max_length, width=width, alpha=alpha)
    for row, (number,) in enumerate(INPUTS):
      expected = search_lists(
        lambda earlier, model=model, number=number: toy_log_p(model, number, earlier),
        width=width,
        alpha=alpha,
        max_length=max_length,
      )
      for place, (score, sequence) in enumerate(expected):
        padded = [*sequence, *[PAD] * (max_length - len(sequence))]
        assert tokens[row, place].tolist() == padded
        np.testing.assert_allclose(scores[row, place], score, rtol=1e-4)
      assert (scores[row, len(expected) :] < -1e6).all()
      assert (tokens[row, len(expected) :] == PAD).all()


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_that_holds_everything_finds_the_best_of_all_sequences(toy, toy_log_p, alpha):
  vocabulary, max_length = 4, 4
  model = toy(vocabulary, seed=7)
  tokens, scores = decode(model, max_length=max_length, width=vocabulary**3, alpha=alpha)
  for row, (number,) in enumerate(INPUTS):
    best = max(
      (
        sum(
          toy_log_p(model, number, sequence[:place])[sequence[place]]
          for place in range(len(sequence))
        )
        / penalty(alpha, len(sequence)),
        sequence,
      )
      for length in range(1, max_length + 1)
      for body in itertools.product([0, 2, 3], repeat=length - 1)
      for sequence in [(*body, EOS)]
    )
    np.testing.assert_allclose(scores[row, 0], best[0], rtol=1e-5)
    assert tokens[row, 0].tolist() == [*best[1], *[PAD] * (max_length - len(best[1]))]


@pytest.mark.parametrize("vocabulary, width", [(2, 4), (3, 3), (2, 1)])
def test_more_beams_than_continuations_leave_places_empty(toy, toy_log_p, vocabulary, width):
  model = toy(vocabulary, seed=2)
  tokens, scores = decode(model, max_length=3, width=width, alpha=0.6)
  real = scores > -1e5
  assert real[:, 0].all()
  assert (tokens[~real] == PAD).all()
  for row in range(len(INPUTS)):
    found = [tuple(sequence) for sequence in tokens[row][real[row]].tolist()]
    assert len(set(found)) == len(found)


def test_without_any_end_the_living_beams_come_back_with_their_log_p(toy, toy_log_p):
  model = toy(11, eos_bonus=-50.0)
  tokens, scores = decode(model, max_length=5, width=3, alpha=0.6)
  for row, (number,) in enumerate(INPUTS):
    for place in range(3):
      sequence = tokens[row, place].tolist()
      log_p = sum(toy_log_p(model, number, sequence[:i])[sequence[i]] for i in range(5))
      np.testing.assert_allclose(scores[row, place], log_p, rtol=1e-4)
  assert (np.diff(scores, axis=1) <= 0).all()


def test_an_example_is_decoded_alike_alone_and_in_a_batch(toy):
  model = toy(11, seed=3)
  tokens, scores = decode(model, max_length=6, width=4)
  for row in range(len(INPUTS)):
    alone = decode(model, INPUTS[row : row + 1], max_length=6, width=4)
    np.testing.assert_array_equal(alone[0][0], tokens[row])
    np.testing.assert_allclose(alone[1][0], scores[row], rtol=1e-6)


def test_the_search_stops_when_no_living_beam_can_win(toy, steps):
  sharp = toy(11, eos_bonus=20.0, counting=True)  # all ends are far better than all else
  decode(sharp, max_length=40, width=2)[0].tolist()
  jax.effects_barrier()
  assert 0 < len(steps) <= 3
  steps.clear()
  endless = toy(11, eos_bonus=-50.0, counting=True)
  decode(endless, max_length=40, width=2)[0].tolist()
  jax.effects_barrier()
  assert len(steps) == 39


@pytest.mark.parametrize("scanned", [False, True])
def test_beam_search_of_t5x_checkpoints_equals_t5x(written_by_t5x, scanned):
  model, expected = written_by_t5x
  result = generate_lib.generate(
    stack_layers(model) if scanned else model,
    {"encoder_input_tokens": expected["batch/encoder_input_tokens"]},
    strategy=Beam(width=4, alpha=0.6),
    max_length=expected["beam4/seqs"].shape[-1],
  )
  # T5X returns the worst first
  tokens, scores = expected["beam4/seqs"][:, ::-1], expected["beam4/scores"][:, ::-1]
  np.testing.assert_array_equal(result.tokens, tokens)
  real = scores > -1e6
  np.testing.assert_allclose(np.asarray(result.scores)[real], scores[real], rtol=2e-5)
  assert (np.asarray(result.scores)[~real] < -1e6).all()


@pytest.mark.parametrize("scanned", [False, True])
def test_greedy_decoding_of_t5x_checkpoints_equals_t5x(written_by_t5x, scanned):
  model, expected = written_by_t5x
  result = generate_lib.generate(
    stack_layers(model) if scanned else model,
    {"encoder_input_tokens": expected["batch/encoder_input_tokens"]},
    strategy=Greedy(),
    max_length=expected["greedy/seqs"].shape[-1],
  )
  np.testing.assert_array_equal(np.asarray(result.tokens)[:, 0], expected["greedy/seqs"])


def test_a_beam_of_one_without_penalty_and_greedy_agree(toy):
  model = toy(11, seed=5, eos_bonus=3.0)
  batch = {"encoder_input_tokens": INPUTS}
  beam = generate_lib.generate(model, batch, strategy=Beam(width=1, alpha=0.0), max_length=30)
  greedy = generate_lib.generate(model, batch, strategy=Greedy(), max_length=30)
  # greedy stops at the first end; the beam may go on past a worse one, but never returns worse
  assert (np.asarray(beam.scores) >= np.asarray(greedy.scores) - 1e-5).all()


def test_batches_and_checkpoints_of_one_shape_share_one_program(toy):
  models = [toy(13, seed=seed) for seed in range(3)]
  decode(models[0], max_length=7, width=2)
  programs = generate_lib.compiled._cache_size()
  for model in [*models, paths.copy(models[0])]:
    decode(model, INPUTS + 1, max_length=7, width=2)
  assert generate_lib.compiled._cache_size() == programs
  decode(models[0], max_length=7, width=3)
  assert generate_lib.compiled._cache_size() == programs + 1


def test_decoding_over_a_mesh_equals_decoding_on_one_device():
  strategy = Beam(width=2)
  model = tiny("t5")
  tokens = np.random.default_rng(0).integers(2, 40, size=(4, 5)).astype(np.int32)
  batch = {"encoder_input_tokens": tokens}
  expected = generate_lib.generate(model, batch, strategy=strategy, max_length=6)
  mesh = partitioning.make_mesh(data=2, model=2)
  result = generate_lib.generate(
    partitioning.place(model, mesh),
    partitioning.global_batch(batch, mesh),
    strategy=strategy,
    max_length=6,
  )
  np.testing.assert_array_equal(result.tokens, expected.tokens)
  np.testing.assert_allclose(result.scores, expected.scores, rtol=1e-5)
