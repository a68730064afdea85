"""A prediction head as a way of answering: the most probable class, kept apart from other ways."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

import tiny_models
from promot_jax import errors
from promot_jax.data import examples as example_lists
from promot_jax.evaluation import evaluator, ways
from promot_jax.evaluation import task as task_lib
from promot_jax.evaluation.evaluator import Batching, EvalTask, Kept, Setting, Subject
from promot_jax.evaluation.results import ResultStore
from promot_jax.methods.head import PredictionHead
from promot_jax.metrics import accuracy
from promot_jax.token_ids import T5

ANSWERS = ("yes", "no", "maybe")
INPUTS = [np.asarray([first, *range(2, 2 + first % 3), 1], np.int32) for first in range(5, 11)]
TASK = EvalTask(
  label="cb",
  shots=1,
  examples=example_lists.in_memory(
    "cb",
    INPUTS,
    [np.asarray([3, 1], np.int32)] * len(INPUTS),
    [{"inputs": "", "targets": "no", "answers": ["no"]}] * len(INPUTS),
  ),
  metric_fns=[accuracy.accuracy],
  classes=task_lib.Classes(answers=ANSWERS, head="first"),
)
SETTING = Setting(special=T5, max_target_length=3)


@pytest.fixture(scope="module")
def model():
  made = PredictionHead(classes=3, pooling="first", std=2.0).attach(
    tiny_models.tiny("t5"), nnx.Rngs(4)
  )
  made.head.bias[...] = np.asarray([0.0, 0.5, -0.5], np.float32)
  return made


def test_the_most_probable_class_is_the_answer_and_nothing_is_written(model, tmp_path):
  store = ResultStore(tmp_path)
  subject = Subject(make=lambda: model, decode=lambda ids: "text")
  options = {"setting": SETTING, "batching": Batching(batch_size=4, buckets=(8,))}
  (result,) = evaluator.evaluate(subject, [TASK], **options, kept=Kept(store=store))
  kernel, bias = np.asarray(model.head.kernel[...]), np.asarray(model.head.bias[...])
  expected = []
  for tokens in INPUTS:
    hidden, _ = model.encode({"encoder_input_tokens": tokens[None]})
    logits = np.asarray(hidden)[0, 0] @ kernel + bias
    expected.append((ANSWERS[logits.argmax()], logits.max() - np.log(np.exp(logits).sum())))
  found = list(store.predictions("model", result))
  assert [each.prediction for each in found] == [name for name, _ in expected]
  assert len({name for name, _ in expected}) > 1
  scores = [each.log_probability for each in found]
  np.testing.assert_allclose(scores, [score for _, score in expected], atol=1e-4)
  right = sum(name == "no" for name, _ in expected)
  assert result.score == pytest.approx(100 * right / len(INPUTS))
  assert [each.name for each in tmp_path.glob("*/*.json")] == ["cb.all.1shot.none.classified.json"]
  again = Subject(make=lambda: pytest.fail("runs again"), decode=lambda ids: "text")
  assert (
    evaluator.evaluate(again, [TASK], **options, kept=Kept(store=store))[0].scores == result.scores
  )


@pytest.mark.parametrize("other", [{"head": "mean"}, {"answers": ("no", "yes", "maybe")}])
def test_another_head_or_other_answers_are_another_way_of_measuring(other):
  changed = dataclasses.replace(TASK, classes=dataclasses.replace(TASK.classes, **other))
  written = dataclasses.replace(TASK, classes=None)
  plans = [task_lib.plan(each, SETTING) for each in (TASK, changed, written)]
  assert len({plan.fingerprint for plan in plans}) == 3
  assert len({ways.of(plan.settings) for plan in plans}) == 3


def test_answers_come_about_in_one_way():
  with pytest.raises(errors.ConfigError, match="options and classes"):
    dataclasses.replace(TASK, options={"a": [5, 1], "b": [6, 1]})
