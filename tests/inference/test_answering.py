"""Answers to texts of no task, with a stand-in for the decoding."""

import jax
import numpy as np
import pytest

from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding.strategies import Sample
from promot_jax.inference import answering
from promot_jax.micro.vocabulary import vocabulary
from promot_jax.networks import micro_model
from promot_jax.token_ids import TokenIds

FORM = answering.Form(
  vocabulary=vocabulary(),
  special=TokenIds.of(micro_model.config()),
  strategy=Sample(temperature=0.7),
  longest_answer=5,
  batch_size=2,
  seed=3,
)


@pytest.fixture
def keys(monkeypatch):
  """The keys that decoding is given; every answer is 'dog', its score the key's number."""
  seen: list[tuple] = []
  (word,) = vocabulary().encode("dog")

  def generate(model, batch, *, max_length, key, **settings):
    seen.append(tuple(jax.random.key_data(key).tolist()))
    tokens = np.zeros((len(batch["encoder_input_tokens"]), 1, max_length), np.int32)
    tokens[:, 0, 0] = word
    scores = np.full(tokens.shape[:2], len(seen), np.float32)
    return generate_lib.DecodeResult(tokens=tokens, scores=scores)

  monkeypatch.setattr(generate_lib, "generate", generate)
  return seen


def asked(first: int) -> list[tuple[str, float]]:
  inputs = answering.encode(FORM, ["the cat sees the dog .", "a", "the dog"])
  return answering.answer(FORM, None, inputs, place=lambda batch: batch, first=first)


def test_every_batch_draws_anew_and_a_repeated_command_draws_alike(keys):
  assert asked(0) == [("dog", 1.0), ("dog", 2.0), ("dog", 1.0)]  # the longest come first
  asked(0)
  once, again = keys[:2], keys[2:]
  assert once == again and len(set(once)) == 2
  asked(3)
  assert not set(keys[4:]) & set(once)
