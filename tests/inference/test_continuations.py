"""What tasks of lm-evaluation-harness ask a model, without that package and with a stand-in for the network."""

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.decoding import scoring
from promot_jax.decoding.strategies import Greedy, Sample
from promot_jax.inference import answering
from promot_jax.inference.continuations import Continuations, windows
from promot_jax.micro.vocabulary import vocabulary
from promot_jax.networks import micro_model
from promot_jax.token_ids import TokenIds

WORDS = vocabulary()
FORM = answering.Form(
  vocabulary=WORDS,
  special=TokenIds.of(micro_model.config()),
  longest_input=5,
  longest_answer=4,
  batch_size=2,
)


@pytest.fixture
def asked(monkeypatch):
  """A model that finds a target of so many tokens so improbable, and the batches that it was given."""
  batches = []

  def scores(model, batch):
    batches.append(batch)
    count = batch["decoder_loss_weights"].sum(axis=1)
    return scoring.Scores(log_p=-count, greedy=count == 1)

  monkeypatch.setattr(scoring, "scores", scores)
  return Continuations(form=FORM, model=None, place=lambda batch: batch), batches


def rows(batches):
  """(tokens of the input, tokens of the target) of each row that is no filling, as text."""
  return sorted(
    (WORDS.decode(source[mask]), WORDS.decode(target[weights > 0]))
    for batch in batches
    for source, mask, target, weights in zip(
      batch["encoder_input_tokens"],
      batch["encoder_input_mask"],
      batch["decoder_target_tokens"],
      batch["decoder_loss_weights"],
    )
    if weights.any()
  )


def test_a_continuation_is_scored_without_an_end_and_in_its_own_place(asked):
  continuations, batches = asked
  found = continuations.scored(
    [("the cat", " sees the dog"), ("the", " cat"), ("the ", "dog sees")]
  )
  assert found == [(-3.0, False), (-1.0, True), (-2.0, False)]
  assert rows(batches) == [("the", "cat"), ("the", "dog sees"), ("the cat", "sees the dog")]


def test_a_context_loses_its_beginning_and_a_continuation_nothing(asked):
  continuations, batches = asked
  continuations.scored([("the cat sees the dog and the cat", "sees")])
  # Four words and the end of the input.
  assert rows(batches) == [("dog and the cat", "sees")]
  with pytest.raises(errors.DataError, match=r"has 5 tokens, .* has room for 4"):
    continuations.scored([("the", "the cat sees the dog")])


def test_every_token_of_a_whole_text_is_predicted_once_and_no_other(asked):
  continuations, batches = asked
  texts = ["the cat sees the dog and the cat sees", "", "the dog"]
  assert continuations.of_whole_texts(texts) == [-9.0, 0.0, -2.0]
  # In windows of four tokens; the vocabulary has no token that begins texts, and its end is read as none.
  assert rows(batches) == [
    ("", "the cat sees the"),
    ("", "the dog"),
    ("dog and the cat", "sees"),
    ("the", "dog and the cat"),
  ]


@pytest.mark.parametrize("room", [1, 3, 4, 10, 20])
def test_windows_hold_each_token_once_with_the_most_context_that_there_is_room_for(room):
  found = list(windows(range(10), first=-1, room=room))
  assert [token for _, part in found for token in part] == list(range(10))
  everything = np.asarray([-1, *range(10)])
  for context, part in found:
    assert part[0] == context[-1] + 1
    assert list(everything[context[0] + 1 : context[-1] + 2]) == context
    assert len(context) == min(part[0] + 1, room + 1 - len(part))


@pytest.mark.parametrize(
  ("how", "expected"),
  [
    ({}, {"strategy": Greedy(), "stop": (), "longest_answer": 4}),
    ({"until": "dog", "max_gen_toks": 2}, {"stop": ("dog",), "longest_answer": 2}),
    ({"until": ["dog", "."], "temperature": 0, "do_sample": True}, {"strategy": Greedy()}),
    ({"temperature": 0.5, "do_sample": False}, {"strategy": Greedy()}),
    ({"temperature": 0.5}, {"strategy": Sample(temperature=0.5)}),
    ({"do_sample": True, "top_k": 3}, {"strategy": Sample(top_k=3)}),
  ],
)
def test_a_task_says_how_texts_go_on(asked, monkeypatch, how, expected):
  forms = []

  def answer(form, model, inputs, **settings):
    forms.append(form)
    return [("dog", 0.0)] * len(inputs)

  monkeypatch.setattr(answering, "answer", answer)
  assert asked[0].written([("the cat", how), ("the", {"until": "cat"})]) == ["dog", "dog"]
  assert {name: getattr(forms[0], name) for name in expected} == expected
  with pytest.raises(errors.ConfigError, match="num_beams=4"):
    asked[0].written([("the", {"num_beams": 4})])
