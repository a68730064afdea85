"""Which form the examples of an evaluation have, where its outputs end, and how answers are ranked."""

import dataclasses
import functools
import json
import types

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from promot_jax.data import joining
from promot_jax.data.examples import Examples, LengthReport
from promot_jax.data.vocabularies import open_vocabulary
from promot_jax.decoding import generate as generate_lib
from promot_jax.errors import ConfigError
from promot_jax.evaluation import evaluator
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import data, free_texts, writing
from promot_jax.experiments.experiment import EvaluationPlan, Experiment, MeshShape
from promot_jax.experiments.reader import text_vocabulary
from promot_jax.inference import answering
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models.decoder_lm import DecoderLM
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.networks import micro_model
from promot_jax.networks.network import Network
from promot_jax.token_ids import TokenIds
from promot_jax.training.stages import Stage

pytest.importorskip("tokenizers")

LENGTHS = {"inputs": 160, "targets": 8}


class Reader:
  """Stands in for the data: says by which vocabulary's name they would have been read."""

  def examples(self, experiment, task, split, lengths, limit):
    del split, lengths, limit
    return types.SimpleNamespace(vocabulary=experiment.vocabulary, task=task)


def experiment(folder, network=None, **changes) -> Experiment:
  vocabulary = open_vocabulary(f"hf:{folder}")
  backbone = DecoderLMConfig(
    vocab_size=vocabulary.size,
    width=8,
    layers=1,
    heads=2,
    head_width=4,
    mlp_width=12,
    max_positions=200,
    eos=vocabulary.eos,
  )
  values = {
    "name": "own",
    "model_dir": "unused",
    "network": network
    or Network(backbone=backbone, checkpoint="random", vocabulary=f"hf:{folder}"),
    "source": "micro",
    "task": "rte",
    "evaluation": EvaluationPlan(unseen=("cb", "web_questions"), unseen_method=("off", "on")),
    "mesh": MeshShape(data=1, model=1),
  }
  return Experiment(**{**values, **changes})


def forms(tasks) -> list[tuple[str, str, str]]:
  return [
    (task.label, task.method, "plain" if task.examples.vocabulary.endswith("%20") else "tuned")
    for task in tasks
  ]


STAGE = Stage(
  name="prompt",
  trainable=(".*prompt.*",),
  steps=1,
  batch_size=2,
  optimizer=functools.partial(optax.sgd),
  learning_rate=optax.constant_schedule(0.1),
)


def test_tuned_tasks_keep_their_form_and_all_others_are_plain_text(tokenizer_folder):
  own = experiment(tokenizer_folder("gpt2"), method=SoftPrompt(length=3), stages=(STAGE,))
  assert forms(data.report_tasks(own, Reader())) == [
    ("rte", "attached", "tuned"),
    ("cb", "detached", "plain"),
    ("web_questions", "detached", "plain"),
    ("cb", "attached", "plain"),
    ("web_questions", "attached", "plain"),
  ]
  assert forms(data.validation_tasks(own, "prompt", Reader())) == [("rte", "attached", "tuned")]


def test_a_plan_may_write_unseen_tasks_as_the_tuned_one(tokenizer_folder):
  plan = EvaluationPlan(
    unseen=("cb",), unseen_method=("off", "on"), shots=(0,), unseen_written="tuned"
  )
  trained = experiment(
    tokenizer_folder("gpt2"), method=SoftPrompt(length=3), stages=(STAGE,), evaluation=plan
  )
  assert forms(data.report_tasks(trained, Reader())) == [
    ("rte", "attached", "tuned"),
    ("cb", "detached", "plain"),
    ("cb", "attached", "tuned"),
  ]
  # What was tuned as a whole reads them so as well, and the pretrained model never.
  full = dataclasses.replace(
    trained, method=None, stages=[dataclasses.replace(STAGE, trainable=".*")]
  )
  assert set(forms(data.report_tasks(full, Reader()))) == {
    ("rte", "none", "tuned"),
    ("cb", "none", "tuned"),
  }
  # Also where methods are only kept on: what has none is measured all the same.
  on = dataclasses.replace(full, evaluation=dataclasses.replace(plan, unseen_method=("on",)))
  assert forms(data.report_tasks(on, Reader())) == forms(data.report_tasks(full, Reader()))
  start = dataclasses.replace(full, stages=())
  assert {form for *_, form in forms(data.report_tasks(start, Reader()))} == {"plain"}


def test_the_pretrained_model_reads_plain_text_only(tokenizer_folder):
  own = experiment(tokenizer_folder("llama"))
  found = data.report_tasks(own, Reader())
  assert {form for _, _, form in forms(found)} == {"plain"} and len(found) == 3


def test_only_plain_text_ends_with_its_line_and_the_result_can_say_so(tokenizer_folder):
  own = experiment(tokenizer_folder("llama"), method=SoftPrompt(length=3), stages=(STAGE,))
  tuned, unseen, *_ = data.report_tasks(own, Reader())
  assert (tuple(tuned.stop), tuple(unseen.stop)) == ((), ("\n",))
  assert unseen.writing == {
    "family": "llama",
    "input": "bos x",
    "target": "y eos",
    "before the answer": " ",
    "between examples": "\n\n",
    "one text": True,
  }
  assert (tuned.writing["input"], tuned.writing["before the answer"]) == ("bos x separator", "\n")


def test_an_encoder_decoder_has_one_form(tokenizer_folder):
  micro = experiment(
    tokenizer_folder("gpt2"), network=Network(backbone=micro_model.config(), checkpoint="random")
  )
  assert writing.written(micro, tuned=False) == micro
  words = text_vocabulary(micro)
  assert writing.stop(words, tuned=False) == ()
  described = writing.described(words)
  assert (described["input"], described["target"]) == ("x eos", "y eos")
  assert not described["one text"]


@pytest.fixture
def evaluated(tokenizer_folder):
  """(experiment, model, vocabulary, a CB-like task as plain text)."""
  own = experiment(tokenizer_folder("gpt2"))
  words = open_vocabulary(writing.written(own, tuned=False).vocabulary)
  texts = ["the lamp is old question: is it? answer:", "a lamp answer:", "who sells it? answer:"]
  pairs = [joining.texts_to_tokens(words, text, "True") for text in texts]
  examples = Examples(
    name="cb",
    split="validation",
    features={
      "inputs": [np.asarray(before, np.int32) for before, _ in pairs],
      "targets": [np.asarray([*after, words.eos], np.int32) for _, after in pairs],
      "prompt_ids": np.zeros(len(texts), np.int32),
    },
    records=[{"inputs": text, "targets": "True", "answers": ["True"]} for text in texts],
    lengths=LengthReport(examples=len(texts), inputs_limit=None, targets_limit=None),
  )
  read = types.SimpleNamespace(examples=lambda *_: examples)
  task = data.eval_task(
    own, "cb", "validation", read, tuned=False, method="none", bank_row=0, lengths=LENGTHS, limit=3
  )
  return own, DecoderLM(own.backbone, nnx.Rngs(3)), words, task


def test_ranked_answers_are_those_of_the_most_probable_continuation(evaluated, tmp_path):
  own, model, words, task = evaluated
  ranked = writing.ranked(task, words)
  store = ResultStore(tmp_path)
  generated, chosen = evaluator.evaluate(
    evaluator.Subject(make=lambda: model, decode=words.decode),
    [task, ranked],
    setting=evaluator.Setting(special=TokenIds.of(own.backbone), max_target_length=4),
    batching=evaluator.Batching(batch_size=2, buckets=1),
    kept=evaluator.Kept(store=store),
  )
  assert (generated.settings["answers"], chosen.settings["answers"]) == ("generated", "ranked")
  assert generated.fingerprint != chosen.fingerprint
  predictions = list(store.predictions("model", chosen))
  assert len(predictions) == 3 and len(list(store.predictions("model", generated))) == 3
  for prediction, record in zip(predictions, task.examples.records, strict=True):
    sums = {}
    for label in ("True", "False", "Neither"):  # the whole text at once, in plain numpy
      before = len(words.encode(record["inputs"]))
      whole = np.asarray(words.encode(f"{record['inputs']} {label}"), np.int32)[None]
      batch = {"encoder_input_tokens": whole[:, :1], "decoder_target_tokens": whole[:, 1:]}
      logits = np.asarray(model.logits(model.hidden(batch)), np.float64)[0]
      log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
      sums[label] = sum(log_p[i - 1, whole[0, i]] for i in range(before, whole.shape[1]))
    assert prediction.prediction == max(sums, key=sums.get)
    assert prediction.log_probability == pytest.approx(max(sums.values()), abs=1e-4)


def test_tasks_without_labels_cannot_be_ranked(evaluated):
  _, _, words, task = evaluated
  with pytest.raises(ConfigError, match=r"answers of 'xsum' cannot be ranked.*cb, .*openbookqa"):
    writing.ranked(dataclasses.replace(task, label="xsum"), words)


def test_an_output_is_cut_at_its_line_before_it_is_scored(evaluated, monkeypatch, tmp_path):
  own, model, words, task = evaluated
  ids = [*words.encode(" True\n\nthe lamp is old question: False"), words.eos]

  def generate(model, batch, *, max_length, **options):
    rows = len(batch["encoder_input_tokens"])
    tokens = np.full((rows, 1, max_length), words.pad, np.int32)
    tokens[:, 0, : len(ids)] = ids
    scores = jax.numpy.zeros((rows, 1))
    return generate_lib.DecodeResult(tokens=jax.numpy.asarray(tokens), scores=scores)

  monkeypatch.setattr(generate_lib, "generate", generate)
  share = data.format_metric(own)
  store = ResultStore(tmp_path)
  (result,) = evaluator.evaluate(
    evaluator.Subject(make=lambda: model, decode=words.decode),
    [dataclasses.replace(task, max_target_length=64)],
    setting=evaluator.Setting(special=TokenIds.of(own.backbone), format_metric=share),
    batching=evaluator.Batching(buckets=1),
    kept=evaluator.Kept(store=store),
  )
  assert result.score == 100.0 and result.scores["format_share"] == 100.0
  assert result.settings["stop"] == ["\n"] and result.settings["writing"]["one text"]
  stored = json.loads(next(tmp_path.rglob("*.json")).read_text())
  assert stored["settings"]["stop"] == ["\n"]
  assert next(iter(store.predictions("model", result))).raw.startswith(" True\n\nthe lamp")


def test_texts_of_no_task_are_read_as_the_model_was_taught(tokenizer_folder):
  own = experiment(tokenizer_folder("gpt2"))
  plain, tuned = (free_texts.form(own, tuned=state) for state in (False, True))
  words = text_vocabulary(own)
  text = "Q: who sells the lamp? A:"
  (tokens,) = answering.encode(plain, [text + " "])
  assert tokens.tolist() == words.encode(text)
  assert answering.encode(tuned, [text])[0].tolist() == words.encode(text + "\n")
  short = dataclasses.replace(plain, longest_input=2)
  assert answering.cut(short, tokens).tolist() == tokens[-2:].tolist()
  assert plain.ends_with_line and not tuned.ends_with_line
