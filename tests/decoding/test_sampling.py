"""Greedy and random decoding against numpy probabilities."""

import dataclasses

import jax
import numpy as np
import pytest

from promot_jax import errors
from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding import sampling
from promot_jax.decoding.strategies import Beam, Greedy, Sample, TransformersBeam
from promot_jax.token_ids import TokenIds
from tiny_models import tiny

EOS, PAD = 1, 0
INPUTS = np.array([[5], [2], [9]], np.int32)
BATCH = {"encoder_input_tokens": INPUTS}


def generate(model, **options):
  result = generate_lib.generate(model, BATCH, **options)
  return np.asarray(result.tokens), np.asarray(result.scores)


def softmax(logits):
  exponents = np.exp(logits - logits.max())
  return exponents / exponents.sum()


def test_greedy_takes_the_most_probable_token_until_the_end(toy, toy_log_p):
  max_length, ended = 8, 0
  for seed in range(4):
    model = toy(11, seed=seed, eos_bonus=1.0)
    tokens, scores = generate(model, strategy=Greedy(), max_length=max_length)
    assert tokens.shape == (3, 1, max_length)
    for row, (number,) in enumerate(INPUTS):
      sequence, total = [], 0.0
      while len(sequence) < max_length and EOS not in sequence:
        log_p = toy_log_p(model, number, sequence)
        sequence.append(int(log_p.argmax()))
        total += log_p.max()
      ended += EOS in sequence
      assert tokens[row, 0].tolist() == sequence + [PAD] * (max_length - len(sequence))
      np.testing.assert_allclose(scores[row, 0], total, rtol=1e-5)
  assert 0 < ended < 12


def test_the_loop_ends_with_the_last_row(toy, steps):
  lengths = []
  for seed in range(6):
    tokens, _ = generate(
      toy(11, seed=seed, eos_bonus=2.0, counting=True), strategy=Greedy(), max_length=50
    )
    jax.effects_barrier()
    ends = [row.index(EOS) + 1 for row in tokens[:, 0].tolist() if EOS in row]
    if len(ends) == len(INPUTS):
      assert len(steps) == max(ends) - 1  # the first token needs no step
      lengths.append(max(ends))
    steps.clear()
  assert lengths and max(lengths) < 50


@pytest.mark.parametrize(
  "strategy",
  [
    Sample(),
    Sample(temperature=0.5),
    Sample(temperature=3.0, top_k=4),
    Sample(top_p=0.7),
    Sample(temperature=2.0, top_k=6, top_p=0.8),
  ],
)
def test_first_tokens_are_drawn_with_the_probabilities_of_numpy(toy, toy_log_p, strategy):
  vocabulary, draws = 9, 4000
  model = toy(vocabulary, seed=1, scale=1.0)
  many = Sample(
    temperature=strategy.temperature,
    top_k=strategy.top_k,
    top_p=strategy.top_p,
    samples=draws,
  )
  tokens, _ = generate(model, strategy=many, max_length=1, key=jax.random.key(0))
  for row, (number,) in enumerate(INPUTS):
    probabilities = numpy_probabilities(toy_log_p(model, number, []), strategy)
    counts = np.bincount(tokens[row, :, 0], minlength=vocabulary)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(probabilities))
    kept = probabilities > 0
    expected = draws * probabilities[kept]
    chi_square = ((counts[kept] - expected) ** 2 / expected).sum()
    freedom = kept.sum() - 1
    # mean + 5 standard deviations of the chi-square distribution
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def numpy_probabilities(logits, strategy):
  """Temperature, top-k, top-p in this order, by sorting."""
  probabilities = softmax(np.asarray(logits, np.float64) / strategy.temperature)
  order = np.argsort(-probabilities)
  if strategy.top_k:
    probabilities[order[strategy.top_k :]] = 0
    probabilities /= probabilities.sum()
  if strategy.top_p < 1:
    total = np.cumsum(probabilities[order])
    number = int(np.argmax(total >= strategy.top_p)) + 1
    probabilities[order[number:]] = 0
    probabilities /= probabilities.sum()
  return probabilities


@pytest.mark.parametrize(
  "options, support",
  [
    ({"top_k": 1}, {3}),
    ({"top_k": 2}, {3, 0}),
    ({"top_k": 3}, {3, 0, 1, 4}),  # ties with the third stay
    ({"top_k": 99}, {0, 1, 2, 3, 4}),
    ({"top_p": 0.39}, {3}),
    ({"top_p": 0.41}, {3, 0}),
    ({"top_p": 0.69}, {3, 0}),
    ({"top_p": 0.71}, {3, 0, 1, 4}),
    ({"top_p": 0.999}, {0, 1, 2, 3, 4}),
    ({"top_p": 1e-9}, {3}),
    ({"top_k": 2, "top_p": 0.5}, {3}),  # 4/7 of what top-k left
    ({"top_k": 2, "top_p": 0.58}, {3, 0}),
  ],
)
def test_top_k_and_top_p_keep_exactly_their_sets(options, support):
  probabilities = np.array([0.3, 0.14, 0.02, 0.4, 0.14])
  logits = np.log(probabilities)[None].astype(np.float32)
  kept = np.asarray(sampling.truncated(logits, Sample(**options)))[0]
  assert set(np.flatnonzero(np.isfinite(kept))) == support
  np.testing.assert_array_equal(kept[np.isfinite(kept)], logits[0][np.isfinite(kept)])


def test_the_temperature_acts_before_the_cuts():
  logits = np.log(np.array([[0.6, 0.3, 0.1]], np.float32))
  # at temperature 0.5 the probabilities are .783 .196 .022
  kept = np.asarray(sampling.truncated(logits, Sample(temperature=0.5, top_p=0.7)))[0]
  assert np.isfinite(kept).tolist() == [True, False, False]


def test_samples_carry_the_models_own_log_p_and_come_best_first(toy, toy_log_p):
  model = toy(11, seed=4, eos_bonus=1.0)
  strategy = Sample(temperature=2.0, top_k=7, samples=5)
  tokens, scores = generate(model, strategy=strategy, max_length=6, key=jax.random.key(3))
  assert tokens.shape == (3, 5, 6)
  assert (np.diff(scores, axis=1) <= 0).all()
  for row, (number,) in enumerate(INPUTS):
    assert len({tuple(sequence) for sequence in tokens[row].tolist()}) > 1
    for sequence, score in zip(tokens[row].tolist(), scores[row]):
      length = sequence.index(EOS) + 1 if EOS in sequence else len(sequence)
      log_p = sum(toy_log_p(model, number, sequence[:i])[sequence[i]] for i in range(length))
      np.testing.assert_allclose(score, log_p, rtol=1e-4)
      assert set(sequence[length:]) <= {PAD}


def test_equal_keys_draw_equal_samples_and_other_keys_others(toy):
  model = toy(11, seed=4)

  def draw(seed):
    return generate(model, strategy=Sample(samples=3), max_length=9, key=jax.random.key(seed))[0]

  np.testing.assert_array_equal(draw(0), draw(0))
  assert not np.array_equal(draw(0), draw(1))


def test_a_top_k_of_one_is_greedy(toy):
  model = toy(11, seed=6)
  greedy = generate(model, strategy=Greedy(), max_length=9)
  sampled = generate(model, strategy=Sample(top_k=1), max_length=9, key=jax.random.key(0))
  np.testing.assert_array_equal(sampled[0], greedy[0])
  np.testing.assert_allclose(sampled[1], greedy[1])


OTHERS = TokenIds(pad=10, eos=7, decoder_start=0)


def test_end_and_padding_are_those_of_the_model(toy):
  model = toy(11, seed=0)
  expected = generate(model, strategy=Greedy(), max_length=30, eos=7, pad=10)
  model.token_ids = OTHERS
  for actual, wanted in zip(generate(model, strategy=Greedy(), max_length=30), expected):
    np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize(
  "strategy", [Greedy(), Sample(samples=2), Beam(width=3), TransformersBeam(width=3)]
)
def test_forced_tokens_begin_every_output_and_end_the_longest(toy, strategy):
  model = toy(11, seed=0)
  model.token_ids = dataclasses.replace(OTHERS, forced_first=4, forced_last=7)
  tokens, scores = generate(model, strategy=strategy, max_length=5, key=jax.random.key(0))
  assert (tokens[:, :, 0] == 4).all()
  longest = (tokens != 10).all(axis=-1)
  assert longest.any()
  assert (tokens[longest][:, -1] == 7).all()
  assert np.isfinite(scores).all()


def test_forced_tokens_count_nothing(toy, toy_log_p):
  model = toy(11, seed=0)
  model.token_ids = dataclasses.replace(OTHERS, forced_first=4, forced_last=7)
  tokens, scores = generate(model, strategy=Greedy(), max_length=3)
  for number, row, score in zip(BATCH["encoder_input_tokens"][:, 0], tokens[:, 0], scores[:, 0]):
    np.testing.assert_allclose(score, toy_log_p(model, number, row[:1])[row[1]], rtol=1e-5)


def test_other_ids_may_mean_end_and_padding(toy):
  model = toy(11, seed=0)
  tokens, _ = generate(model, strategy=Greedy(), max_length=30, eos=7, pad=10)
  for row in tokens[:, 0].tolist():
    if 7 in row:
      assert set(row[row.index(7) + 1 :]) <= {10}
  assert (tokens == 7).any()


def test_targets_in_the_batch_change_nothing_and_compile_nothing(toy):
  model = toy(11, seed=0)
  expected, _ = generate(model, strategy=Greedy(), max_length=5)
  programs = generate_lib.compiled._cache_size()
  batch = BATCH | {"decoder_target_tokens": np.ones((3, 2), np.int32)}
  result = generate_lib.generate(model, batch, strategy=Greedy(), max_length=5)
  np.testing.assert_array_equal(result.tokens, expected)
  assert generate_lib.compiled._cache_size() == programs


def test_samples_of_a_t5_read_the_memory_of_their_own_example():
  model = tiny("t5")
  tokens = np.random.default_rng(0).integers(2, 40, size=(3, 4)).astype(np.int32)
  batch = {"encoder_input_tokens": tokens}
  greedy = generate_lib.generate(model, batch, strategy=Greedy(), max_length=5)
  # top-k of one: all samples of an example are its greedy output
  sampled = generate_lib.generate(
    model, batch, strategy=Sample(top_k=1, samples=2), max_length=5, key=jax.random.key(0)
  )
  np.testing.assert_array_equal(sampled.tokens, np.repeat(np.asarray(greedy.tokens), 2, axis=1))


@pytest.mark.parametrize(
  "make",
  [
    lambda: Sample(temperature=0.0),
    lambda: Sample(top_k=-1),
    lambda: Sample(top_p=0.0),
    lambda: Sample(top_p=1.5),
    lambda: Sample(samples=0),
    lambda: Beam(width=0),
    lambda: Beam(alpha=float("nan")),
  ],
)
def test_impossible_strategies_are_config_errors(make):
  with pytest.raises(errors.ConfigError):
    make()


def test_sampling_without_a_key_and_generating_nothing_are_config_errors(toy):
  model = toy(11)
  with pytest.raises(errors.ConfigError, match="key"):
    generate(model, strategy=Sample(), max_length=3)
  with pytest.raises(errors.ConfigError, match="max_length is 0"):
    generate(model, strategy=Greedy(), max_length=0)


@pytest.mark.parametrize("strategy", [Greedy(), Sample(samples=2, temperature=0.8)])
def test_a_row_ends_behind_a_token_at_which_nobody_reads_on(toy, toy_log_p, steps, strategy):
  max_length, stopped = 30, 0
  for seed in range(3):
    options = {"strategy": strategy, "max_length": max_length, "key": jax.random.key(seed)}
    model = toy(5, seed=seed, eos_bonus=-9.0, counting=True)
    whole, _ = generate(model, **options)
    jax.effects_barrier()
    steps.clear()
    tokens, scores = generate(model, **options, stop=(3, 7))
    jax.effects_barrier()
    longest = 0
    for row, (number,) in enumerate(INPUTS):
      outputs = {tuple(each[: each.index(3) + 1]) for each in whole[row].tolist() if 3 in each}
      for output, score in zip(tokens[row].tolist(), scores[row]):
        if 3 not in output:
          continue
        kept = output[: output.index(3) + 1]
        assert tuple(kept) in outputs  # what is read is what it was
        assert set(output[len(kept) :]) <= {EOS}
        log_p = [toy_log_p(model, number, kept[:n])[token] for n, token in enumerate(kept)]
        np.testing.assert_allclose(score, sum(log_p), rtol=1e-4)
        longest, stopped = max(longest, len(kept)), stopped + 1
    if all(3 in each for each in tokens.reshape(-1, max_length).tolist()):
      assert len(steps) == longest - 1
    steps.clear()
  assert stopped > 3


def test_beams_do_not_end_there_since_what_is_behind_chooses(toy):
  model = toy(5, eos_bonus=-1.0)
  options = {"strategy": Beam(width=2), "max_length": 8}
  np.testing.assert_array_equal(
    generate(model, **options)[0], generate(model, **options, stop=(3,))[0]
  )
