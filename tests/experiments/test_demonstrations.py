"""What a teacher reads before the input: texts as those of few-shot tasks, and what cannot be shown."""

import dataclasses

import numpy as np
import pytest

import tiny_experiments
from promot_jax.data import examples as example_lists
from promot_jax.errors import ConfigError, DataError
from promot_jax.experiments import data, demonstrations, lengths, origin, shapes
from promot_jax.experiments.reader import Reader
from promot_jax.micro.vocabulary import vocabulary
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.planning import plan
from promot_jax.training import choice
from promot_jax.training.on_policy import OnPolicyDistillation
from promot_jax.training.own_teacher import OwnTeacher
from promot_jax.training.teacher_input import Demonstrated
from tiny_experiments import MODEL, SHORT

WORDS = [word for word in vocabulary().words[40:] if word.isalpha()]
TEXTS = [" ".join(WORDS[3 * number : 3 * number + 3 + number]) for number in range(4)]
ANSWERS = WORDS[60:64]


def examples(answers=ANSWERS):
  records = [
    {"inputs": text, "targets": f"<extra_id_0> {word} <extra_id_1>", "answers": [word] * bool(word)}
    for text, word in zip(TEXTS, answers, strict=True)
  ]
  tokens = [np.asarray([*vocabulary().encode(text), 1], np.int32) for text in TEXTS]
  return example_lists.in_memory("rte", tokens, tokens, records)


def beside(shown, answers=ANSWERS, told=None):
  given = examples(answers)
  return demonstrations.beside(
    given,
    shown,
    pool=given,
    vocabulary=vocabulary(),
    pad=0,
    report=(told if told is not None else []).append,
  )


def test_an_input_stands_behind_itself_with_its_raw_answer_or_behind_others():
  told: list[str] = []
  found = beside(Demonstrated(), told=told)
  for text, word, tokens in zip(TEXTS, ANSWERS, found.features["demonstrated_inputs"], strict=True):
    assert vocabulary().decode(tokens) == f"{text} {word} {text}" and tokens[-1] == 1
  assert told == [
    "teacher   rte all reads its input behind the example with its answer: up to 14 tokens"
  ]
  for number, tokens in enumerate(
    beside(Demonstrated(shown="others", shots=2)).features["demonstrated_inputs"]
  ):
    text = vocabulary().decode(tokens)
    pairs = [f"{one} {word}" for one, word in zip(TEXTS, ANSWERS, strict=True)]
    others = [pair for place, pair in enumerate(pairs) if place != number]
    assert text.endswith(f" {TEXTS[number]}") and sum(pair in text for pair in others) == 2
    assert pairs[number] not in text
  # Batches have it padded to one length, with its mask, and it is part of what is trained on.
  assert found.kinds["demonstrated_inputs"].rank == 1 and found.extents["demonstrated_inputs"] == (
    14,
  )
  assert found.content != examples().content


def test_a_long_input_loses_the_start_of_its_demonstration_and_never_all_of_it():
  told: list[str] = []
  found = beside(Demonstrated(length=12), told=told).features["demonstrated_inputs"]
  assert list(map(len, found)) == [8, 10, 12, 12]
  assert told[0].endswith("up to 14 tokens; 1 of 4 lose their start beyond 12")
  assert vocabulary().decode(found[3]).endswith(f"{ANSWERS[3]} {TEXTS[3]}")
  with pytest.raises(DataError, match=r"1 of 4 inputs have up to 7 tokens and leave no room .*=7;"):
    beside(Demonstrated(length=7))


def test_what_has_no_answer_or_no_others_cannot_be_shown():
  with pytest.raises(DataError, match=r"1 of 4 examples have no answer .* first is record 2;"):
    beside(Demonstrated(), [*ANSWERS[:2], "", ANSWERS[3]])
  with pytest.raises(DataError, match="offers only 3 labelled examples besides the query"):
    beside(Demonstrated(shown="others", shots=4))


TAUGHT = dataclasses.replace(
  MODEL,
  trainable=".*",
  objective=OnPolicyDistillation(),
  teacher=OwnTeacher(),
  teacher_inputs=Demonstrated(length=130),
)


def experiment(stage=TAUGHT, **changes):
  return tiny_experiments.experiment(**{**SHORT, "stages": [stage], "method": None, **changes})


class Known(Reader):
  """Reads nothing."""

  def examples(self, experiment, task, split, lengths, limit):
    return dataclasses.replace(examples(), split=split)


def test_batches_have_what_the_teacher_reads_and_validation_only_where_it_computes_the_loss():
  reader = Known(lambda line: None)
  batch = data.train_batches(experiment(), "model", 2, reader)(0)
  assert batch["demonstrated_inputs"].shape == (2, 14) == batch["demonstrated_inputs_mask"].shape
  (task,) = data.validation_tasks(experiment(), "model", reader)
  assert not task.examples.kinds
  by_loss = experiment(dataclasses.replace(TAUGHT, metric="loss"))
  (task,) = data.validation_tasks(by_loss, "model", reader)
  assert set(task.examples.kinds) == {"demonstrated_inputs"}


def test_a_run_goes_on_with_the_teacher_of_its_own_that_it_began_with():
  def made_from(stage):
    return origin.of_stage(
      experiment(stage), stage, start="", validation=[], reader=Known(lambda line: None)
    )

  begun = made_from(TAUGHT).to_json()
  assert choice.compare(made_from(TAUGHT), begun, where="here") == []
  faster = dataclasses.replace(TAUGHT, teacher=OwnTeacher(rate=0.5))
  with pytest.raises(
    ConfigError, match=r"teacher changed: the moving average of itself at rate 0\.5"
  ):
    choice.compare(made_from(faster), begun, where="here")
  assert choice.trained_with(faster)["teacher"] == "OwnTeacher(rate=0.5)"


def test_a_plan_tells_the_teacher_and_counts_its_average():
  (own,) = shapes.stage_plans(experiment(), {"data": 1, "model": 1})
  still = dataclasses.replace(TAUGHT, teacher=OwnTeacher(rate=1))
  (none,) = shapes.stage_plans(experiment(still), {"data": 1, "model": 1})
  assert own.bytes.total - none.bytes.total == 4 * own.trainable and own.optimizer == none.optimizer
  lines = "\n".join(plan.describe(experiment()))
  assert (
    "learns from the moving average of itself at rate 0.01, which reads its input behind" in lines
  )


def test_inputs_with_demonstrations_fit_the_positions_that_a_model_has():
  config = DecoderLMConfig(
    vocab_size=624,
    width=8,
    layers=1,
    heads=2,
    head_width=4,
    mlp_width=8,
    max_positions=100,
    eos=1,
    pad=0,
  )
  network = dataclasses.replace(experiment().network, backbone=config)
  with pytest.raises(ConfigError, match="of any length, and MODEL has learned 100 positions"):
    demonstrations.require_length(Demonstrated(), 100, stage="model")
  made = experiment(network=network)
  with pytest.raises(ConfigError, match=r"Demonstrated\.length of stage 'model' .*'inputs': 130"):
    lengths.check(made, shapes.abstract_model(made))
