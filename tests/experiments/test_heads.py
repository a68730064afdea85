"""Experiments that are answered by a prediction head: with LoRA, with a whole encoder alone."""

import dataclasses

import numpy as np
import optax
import pytest

import tiny_experiments
from promot_jax.data import examples as example_lists
from promot_jax.errors import ConfigError
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import (
  checkpoint,
  checkpoint_names,
  classes,
  data,
  execute,
  free_texts,
  measurement,
  shapes,
)
from promot_jax.experiments.reader import Reader
from promot_jax.experiments.restored import Restored
from promot_jax.inference import answering
from promot_jax.methods.combined import Combined
from promot_jax.methods.head import PredictionHead
from promot_jax.methods.lora import LoRA
from promot_jax.micro.vocabulary import vocabulary
from promot_jax.models.bert_config import BertConfig
from promot_jax.networks.network import Network
from promot_jax.training import schedules
from promot_jax.training.classification import Classification
from promot_jax.training.objectives import Supervised
from promot_jax.training.stages import Stage
from tiny_experiments import REPORT, SHORT, opened

ENCODER = Network(
  backbone=BertConfig(
    vocab_size=vocabulary().size, width=12, heads=2, mlp_width=20, layers=1, max_positions=70
  ),
  checkpoint="random",
)
STAGE = Stage(
  name="head",
  trainable="method",
  steps=4,
  eval_period=2,
  batch_size=6,
  optimizer=optax.adam,
  learning_rate=schedules.constant(0.05),
  objective=Classification(),
)
WITH_LORA = Combined(methods=[LoRA(rank=2), PredictionHead()])


def experiment(**changes):
  values = {**SHORT, "evaluation": REPORT, "method": WITH_LORA, "stages": [STAGE], **changes}
  return tiny_experiments.experiment("head", **values)


def alone(**changes):
  plan = dataclasses.replace(REPORT, unseen=())
  stage = dataclasses.replace(STAGE, trainable=".*")
  values = {"network": ENCODER, "method": PredictionHead(pooling="first"), "stages": [stage]}
  return experiment(**{"evaluation": plan, **values, **changes})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
  """A tuned encoder alone: what its run left, and its directory."""
  folder = tmp_path_factory.mktemp("encoder")
  (outcome,) = execute.execute(alone(model_dir=str(folder)))
  return outcome, opened(outcome.experiment)


def test_an_encoder_alone_is_tuned_chosen_and_measured_by_its_head(encoder):
  outcome, directory = encoder
  (result,) = outcome.results
  settings = result.settings
  assert (result.task, result.method, settings["answers"]) == ("rte", "attached", "classified")
  assert list(settings["classes"]["answers"]) == ["True", "False"]
  assert "accuracy" in outcome.why and 0 <= result.score <= 100
  said = {each.prediction for each in directory.results().predictions(outcome.selected, result)}
  assert said <= {"True", "False"}


def test_its_answers_to_questions_have_the_probability_of_each_class(encoder):
  outcome, directory = encoder
  chosen = checkpoint_names.named(directory, "chosen")
  reader = directory.session.reader
  told = classes.of_checkpoint(outcome.experiment, chosen, reader)
  assert told.answers == ("True", "False")
  before = checkpoint.pretrained(outcome.experiment)
  assert classes.of_checkpoint(outcome.experiment, before, reader) is None
  form = free_texts.form(outcome.experiment, tuned=True)
  inputs = answering.encode(form, ["the dog", "the dog is red", "a"])
  model = Restored(directory).model(chosen)
  found = answering.of_classes(form, model, inputs, told.answers, place=directory.place)
  hidden, _ = model.encode({"encoder_input_tokens": inputs[1][None]})
  logits = np.asarray(model.head.readout.logits(hidden[:, 0]))[0]
  expected = np.exp(logits) / np.exp(logits).sum()
  np.testing.assert_allclose([found[1]["True"], found[1]["False"]], expected, rtol=1e-4)
  assert [sum(each.values()) for each in found] == pytest.approx([1.0] * 3, abs=1e-5)


def test_an_encoder_alone_that_shall_write_says_that_it_cannot(encoder, tmp_path):
  outcome, directory = encoder
  before = checkpoint.pretrained(outcome.experiment)
  tasks = data.report_tasks(outcome.experiment, directory.session.reader, checkpoint=before)
  models, store = Restored(directory), ResultStore(tmp_path)
  with pytest.raises(ConfigError, match="Bert is an encoder alone and writes no text"):
    measurement.measure(directory, before, tasks, models=models, store=store)


def test_a_head_beside_lora_answers_the_tuned_task_and_is_off_on_others():
  plan = dataclasses.replace(REPORT, unseen=("cb",), limit=3)
  tasks = data.report_tasks(experiment(evaluation=plan), Reader(lambda line: None))
  found = [(task.label, task.method, task.way) for task in tasks]
  assert found == [("rte", "attached", "classified"), ("cb", "detached", "generated")]


def test_a_head_answers_a_task_whose_choices_would_be_ranked_without_one(monkeypatch):
  find = data.catalog.find
  chosen = {"rte": dataclasses.replace(find("rte"), ranked=True)}
  monkeypatch.setattr(data.catalog, "find", lambda name: chosen.get(name) or find(name))
  reader = Reader(lambda line: None)
  assert [task.way for task in data.report_tasks(experiment(), reader)][:1] == ["classified"]


@pytest.mark.parametrize(
  ("made", "said"),
  [
    (lambda: experiment(method=LoRA(rank=2)), "stage 'head' reads classes off .* method has none"),
    (
      lambda: experiment(method=PredictionHead(classes=3)),
      "tells 2 answers apart .* classes=3; set HEAD_CLASSES=2",
    ),
    (lambda: alone(evaluation=REPORT), "an encoder alone .* set UNSEEN_TASKS=\\[\\]"),
    (
      lambda: alone(stages=[dataclasses.replace(STAGE, objective=Supervised())]),
      "minimizes Supervised, and MODEL, a BertConfig, is an encoder alone",
    ),
  ],
  ids=["no head", "another number of classes", "unseen tasks", "an objective of written answers"],
)
def test_what_a_head_cannot_do_is_refused_before_anything_is_read(made, said):
  with pytest.raises(ConfigError, match=said):
    shapes.check(made())


def test_classes_without_labels_are_the_different_answers_of_the_training_examples():
  answers = ["<extra_id_0> wet <extra_id_1>", "dry", "wet", "old"]
  made = example_lists.in_memory(
    "weather",
    [np.asarray([5, 1], np.int32)] * 4,
    [np.asarray([6, 1], np.int32)] * 4,
    [{"inputs": "", "targets": answer, "answers": [answer]} for answer in answers],
  )
  assert classes.different(made) == ["dry", "old", "wet"]
  told = classes.Classes(answers=("wet", "dry"), head="")
  numbered = classes.numbered(made, told)
  assert [int(each) for each in numbered.features["class_ids"]] == [0, 1, 0, -1]
  assert classes.numbered(made, None) is made
