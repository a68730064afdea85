"""A task of one file with a passage and a rejected answer, and a method that reads the passage, by the commands."""

import importlib
import json
import sys

import numpy as np
import pytest

import promot_jax.methods
import tasks
from promot_jax.cli import gin_config, recipe_values
from promot_jax.cli.main import main
from promot_jax.data import batches, file_features, own_files
from promot_jax.data.features import Feature
from promot_jax.errors import ConfigError, DataError
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import data
from promot_jax.experiments.reader import Reader
from promot_jax.micro import vocabulary, world
from promot_jax.token_ids import T5

TASK = '''
"""Which animal a passage names: a task that exists for this test."""

from promot_jax.data import templates
from promot_jax.data.features import Feature
from promot_jax.data.record_features import RecordFeature
from promot_jax.data.task import Task
from promot_jax.micro import world


def _draw(dice):
  first, second = dice.pick((("dog", "cat"), ("cat", "dog")))
  passages = [f"the {first} sees the {second}", "the bird sees the dog"][: 1 + dice.chance(0.5)]
  place = dice.pick(("city", "river", "house", "garden"))
  question = f"what sees in the {place} {dice.pick(range(90))}"
  return {"question": question, "passages": passages, "answers": [first, f"the {first}"], "worse": second}


def _template(record):
  return templates.question(record["question"], record["answers"])


def _passages(record):
  return record["passages"]


def _worse(record):
  return record["worse"]


def _references(record):
  return {"answers": record["answers"], "passages": len(record["features"]["passages"])}


def score(targets, predictions):
  found = [text in each["answers"] for each, text in zip(targets, predictions)]
  return {
    "right": 100 * sum(found) / len(found),
    "passages": sum(each["passages"] for each in targets) / len(targets),
    "answers": min(len(each["answers"]) for each in targets),
  }


TASK = Task(
  name="animals",
  fields=(("question",), ("passages",), ("answers",), ("worse",)),
  template=_template,
  metric="right",
  metric_fns=(score,),
  references=_references,
  features={
    "passages": RecordFeature(of=_passages, kind=Feature(rank=2), form="inputs"),
    "rejected": RecordFeature(of=_worse, form="targets"),
  },
  sources={"micro": world.source("animals", _draw, pretrained=False)},
)
'''
METHOD = '''
"""A prompt of two vectors: the mean of the embedded passages, moved by what is trained."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx

from promot_jax import paths
from promot_jax.methods import base
from promot_jax.methods.prompt import Prompt
from promot_jax.models import preparation

RECIPE_VALUES = ("PassagePrompt",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassagePrompt(base.Method):
  """It reads the feature `passages`."""

  parameters: ClassVar[str] = "passage_reader/.*"
  printed: ClassVar[str] = "Passage prompt"

  def attach(self, model, rngs):
    model = paths.copy(model)
    model.passage_reader = PassageReader(model.config.width)
    return model

  def detach(self, model):
    model = paths.copy(model)
    delattr(model, "passage_reader")
    return model


class PassageReader(preparation.Generator):
  reads = ("passages", "passages_mask")

  def __init__(self, width):
    self.shift = nnx.Param(jnp.zeros((2, width)))

  def fill(self, model, call):
    tokens, mask = call.feature("passages"), call.feature("passages_mask")[..., None]  # [B n L 1]
    embedded = jnp.where(mask, model.token_embedder.embedding[...][tokens], 0)
    mean = embedded.sum((1, 2)) / mask.sum((1, 2))  # [B D]
    model.reader.prompt = Prompt(mean[:, None] + self.shift[...])
'''
RECIPE = """
from __gin__ import dynamic_registration
from promot_jax.experiments import experiment
from promot_jax.methods import passage_prompt
from promot_jax.training import schedules
from promot_jax.training import stages
include 'models/micro.gin'
include 'tasks/rte.gin'
include 'runs/micro.gin'
include 'runs/light_stage.gin'

MIXTURE_OR_TASK_NAME = 'animals'
VALIDATION_METRIC = 'right'
LIGHT_STEPS = 1
LIGHT_EVAL_PERIOD = 1
BATCH_SIZE = 4
TRAIN_EXAMPLES = 8
VALIDATION_EXAMPLES = 4
experiment.EvaluationPlan:
  unseen = []
  limit = 6
light_stage/passages/stages.Stage:
  name = 'passages'
  learning_rate = @light_stage/passages/schedules.create_learning_rate_scheduler()
light_stage/passages/schedules.create_learning_rate_scheduler.base_learning_rate = 0.1
passages/experiment.Experiment:
  name = 'passages'
  method = @passage_prompt.PassagePrompt()
  stages = [@light_stage/passages/stages.Stage()]
EXPERIMENT = @passages/experiment.Experiment()
"""
SEES, BIRD = "the dog sees the cat", "the bird sees the dog"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The task, the method and the recipe in files outside of the package, and a trained run."""
  folder = tmp_path_factory.mktemp("features")
  for name, text in (("animals", TASK), ("passage_prompt", METHOD)):
    (folder / name).mkdir()
    (folder / name / f"{name}.py").write_text(text)
  (folder / "passages.gin").write_text(RECIPE)
  searched = list(tasks.__path__)
  tasks.__path__ = [*searched, str(folder / "animals")]
  promot_jax.methods.__path__.append(str(folder / "passage_prompt"))
  sizes, world.SPLIT_SIZES = world.SPLIT_SIZES, {"validation": 8, "test": 8, "train": 16}
  recipe_values.modules.cache_clear()
  importlib.invalidate_caches()
  code = main(["train", f"--gin_file={folder / 'passages.gin'}", *run(folder), "--quiet"])
  assert code == 0
  yield folder
  world.SPLIT_SIZES = sizes
  tasks.__path__ = searched
  promot_jax.methods.__path__.pop()
  recipe_values.modules.cache_clear()
  for module, parent in (("animals", tasks), ("passage_prompt", promot_jax.methods)):
    sys.modules.pop(f"{parent.__name__}.{module}", None)
    vars(parent).pop(module, None)


def run(folder):
  return [f"--model_dir={folder / 'run'}"]


def infer(folder, lines, *flags):
  source = folder / "questions.jsonl"
  source.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return main(["infer", *run(folder), f"--input={source}", "--output=-", "--quiet", *flags])


def test_a_training_batch_holds_what_the_task_declares(folder):
  experiment = gin_config.build(gin_config.read([str(folder / "passages.gin")], []))
  words = vocabulary.vocabulary()
  made = data.train_batches(experiment, "passages", 4, Reader(lambda line: None))
  batch = made(0)
  (examples,) = data.train_examples(experiment, "passages", Reader(lambda line: None))
  for row, index in enumerate(made.indices(0)):
    texts = [
      words.decode(tokens[mask].tolist())
      for tokens, mask in zip(batch["passages"][row], batch["passages_mask"][row])
      if mask.any()
    ]
    answer = examples.records[index]["targets"]
    other = "cat" if answer == "dog" else "dog"
    assert texts in ([sees := f"the {answer} sees the {other}"], [sees, BIRD])
    rejected = batch["rejected"][row][batch["rejected_mask"][row]]
    assert rejected[-1] == words.eos and words.decode(rejected.tolist()) == other


def test_metrics_see_every_answer_and_the_features(folder):
  store = ResultStore(folder / "run" / "evaluation")
  (checkpoint,) = store.checkpoints()
  (result,) = store.results(checkpoint)
  assert result.scores["answers"] == 2 and 1 < result.scores["passages"] < 2
  predictions = list(store.predictions(checkpoint, result))
  assert {len(each.targets["answers"]) for each in predictions} == {2}


def test_questions_bring_them_in_the_columns_of_a_record(folder, capsys):
  capsys.readouterr()
  question = {"inputs": "Q: what sees in the city A:"}
  passages = [[SEES], [SEES, BIRD], [BIRD]]
  assert infer(folder, [{**question, "passages": each} for each in passages], "--attach=on") == 0
  answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert len({answer["score"] for answer in answers}) == 3  # the passages were read
  assert infer(folder, [question]) == 0  # which a detached method does not do


@pytest.mark.parametrize(
  ("line", "words"),
  [
    ({}, "feature 'passages' cannot be made of the record (KeyError: 'passages'); it has: inputs"),
    ({"passages": "the dog"}, ""),
    ({"passages": 3}, "feature 'passages' of an example has 0 dimensions; it was declared with 2"),
    ({"passages": ["a", 3]}, "feature 'passages'"),
  ],
)
def test_a_question_without_them_is_named_by_its_line(folder, line, words, capsys):
  good = {"inputs": "Q: what A:", "passages": [SEES]}
  code = infer(folder, [good, {"inputs": "Q: what A:", **line}], "--attach=on")
  error = capsys.readouterr().err
  assert code == (65 if words else 0)
  assert not words or (f"{folder}/questions.jsonl:2: {words}" in error and "Traceback" not in error)


# --- the same of tables


def files(tmp_path, features, rows):
  (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return own_files.OwnFiles(
    train_file=str(tmp_path / "train.jsonl"),
    template="{question} answer:",
    target="{answer}",
    features=features,
    validation_share=0.5,
    name="features_of_files",
  )


FEATURES = {
  "passages": {"template": "{passages}", "rank": 2},
  "rejected": {"template": "the {worse}", "form": "targets"},
  "weight": {"template": "{weight}", "form": "float32"},
  "grid": {"template": "{grid}", "form": "int32", "rank": 2},
}
ROWS = [
  {
    "question": f"what sees the cat {number}",
    "answer": "dog",
    "worse": "cat",
    "passages": [SEES, "the bird"][: 1 + number % 2],
    "weight": number / 2,
    "grid": [[number, 7], [8]],
  }
  for number in range(6)
]


def test_a_table_brings_them_in_its_columns(tmp_path):
  from promot_jax.data import file_task
  from tasks import catalog, reading

  made = files(tmp_path, FEATURES, ROWS)
  catalog.add(file_task.task_of(made))
  found = reading.load_examples("features_of_files.micro", "train", {"inputs": 40, "targets": 8})
  assert found.kinds["weight"] == Feature(rank=0, dtype="float32")
  (batch, order), *_ = batches.EvalBatches(found, batch_size=len(found), special=T5)
  words = vocabulary.vocabulary()
  for row, index in enumerate(order):
    number = int(found.records[index]["inputs"].split()[-2])
    assert batch["weight"][row] == number / 2
    np.testing.assert_array_equal(batch["grid"][row], [[number, 7], [8, 0]])
    np.testing.assert_array_equal(batch["grid_mask"][row], [[True, True], [True, False]])
    assert batch["passages_mask"][row].any(axis=1).sum() == 1 + number % 2
    rejected = batch["rejected"][row][batch["rejected_mask"][row]]
    assert words.decode(rejected.tolist()) == "the cat" and rejected[-1] == words.eos


def test_a_row_whose_feature_cannot_be_used_is_named_by_its_line(tmp_path):
  for change, message in (
    ({"weight": "heavy"}, r"train.jsonl:6: column 'weight' is 'heavy', and FEATURES\['weight'\]"),
    ({"passages": None}, "train.jsonl:6: column 'passages' has no value"),
    ({"grid": [[0.5]]}, "train.jsonl:6: column 'grid' is .*does not fit int32"),
  ):
    made = files(tmp_path, FEATURES, [*ROWS[:5], {**ROWS[5], **change}])
    problems = [row.problem for row in made._read("train_file") if row.problem]
    with pytest.raises(DataError, match=message):
      raise DataError(*problems)
  with pytest.raises(
    DataError, match=r"questions:1 has no 'passages', which FEATURES\['passages'\]"
  ):
    files(tmp_path, FEATURES, ROWS).record_of({"weight": 1}, where="questions:1")


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (["{a}"], "FEATURES=.* must be"),
    ({"inputs": "{a}"}, "declares a feature 'inputs'; its name"),
    ({"a": {"form": "plain"}}, "must be a template"),
    ({"a": {"template": "{a}", "shape": 2}}, "must be a template"),
    ({"a": {"template": "{a}", "form": "text"}}, "has the form 'text'; there are"),
    ({"a": {"template": "{a}", "rank": 3}}, r"has rank 3; plain may have \(1, 2\)"),
    ({"a": {"template": "x{a}", "form": "int32"}}, "is no column alone"),
    ({"a": "text"}, "names no column"),
    ({"a": "{a"}, "has a '{' alone"),
  ],
)
def test_a_declaration_that_says_nothing_is_refused(given, message):
  with pytest.raises(ConfigError, match=message):
    file_features.parsed(given)


def test_tables_of_before_have_the_digest_of_before(tmp_path):
  plain = files(tmp_path, None, ROWS)
  assert plain.digest() == files(tmp_path, {}, ROWS).digest()
  assert plain.digest() != files(tmp_path, {"weight": "{weight}"}, ROWS).digest()
