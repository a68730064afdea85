"""A probe of an experiment: features are computed once, and generation's score stands beside its own."""

import dataclasses
import functools

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.checkpoints.store import Store
from promot_jax.data.examples import Examples, LengthReport
from promot_jax.evaluation.records import TaskResult
from promot_jax.experiments import classes
from promot_jax.probing import scores
from promot_jax.probing.probe import Probe
from promot_jax.training import loop
from tiny_models import tiny

YES, NO = 5, 9  # tokens that decide the answer


def examples(split, count, *, answers=("True", "False"), seed=0):
  draw = np.random.default_rng(seed)
  labels = draw.integers(0, len(answers), count)
  inputs = []
  for label in labels:
    words = draw.integers(10, 19, draw.integers(2, 5))
    inputs.append(np.asarray([*words, (YES, NO)[label % 2], 1], np.int32))
  return Examples(
    name="toy",
    split=split,
    features={
      "inputs": inputs,
      "targets": [np.asarray([3, 1], np.int32)] * count,
      "prompt_ids": np.zeros(count, np.int32),
    },
    records=[{"inputs": "words", "targets": answers[label]} for label in labels],
    lengths=LengthReport(examples=count, inputs_limit=None, targets_limit=None),
  )


def store(folder, lines):
  return scores.FeatureStore(
    folder=folder,
    identity="seed 0",
    batch_size=8,
    place=lambda batch: batch,
    fetch=np.asarray,
    report=lines.append,
  )


GENERATION = TaskResult(
  task="toy",
  shots=0,
  method="none",
  metric="exact_match",
  scores={"exact_match": 12.5},
  standard_errors={"exact_match": 3.0},
  count=24,
  split="test",
)


def model():
  return tiny("t5", decoder_layers=1)


@pytest.fixture
def splits():
  return scores.Splits(
    train=examples("train", 60, seed=1),
    select=examples("validation", 16, seed=2),
    report=examples("test", 24, seed=3),
  )


def test_the_probe_reads_the_answer_off_the_features_and_keeps_generations_score(tmp_path, splits):
  lines = []
  result, predictions = scores.measure(
    Probe(steps=100, learning_rate=0.1),
    model,
    splits,
    store(tmp_path, lines),
    classes=["False", "True"],
    train=functools.partial(loop.train_stage, store=Store(tmp_path / "stage"), seed=0),
    rows=lambda count: count + 2,
    generation=GENERATION,
    seed=0,
  )
  assert result.metric == "accuracy" and result.scores["accuracy"] > 90
  assert result.scores["generation_exact_match"] == 12.5
  assert result.standard_errors["generation_exact_match"] == 3.0
  hits = [
    100.0 * (p.prediction == r["targets"]) for p, r in zip(predictions, splits.report.records)
  ]
  assert result.scores["accuracy"] == pytest.approx(np.mean(hits))
  assert len(lines) == 3


def test_features_are_computed_once_and_another_pooling_needs_no_model(tmp_path, splits):
  lines = []
  made = store(tmp_path, lines)
  kept = made.features(model, splits.train, None)

  def never():
    raise AssertionError("the features are on disk")

  again = made.features(never, splits.train, None)
  for pooling, values in kept.items():
    np.testing.assert_array_equal(again[pooling], values)
  (path,) = tmp_path.iterdir()
  path.write_bytes(path.read_bytes()[:-20])  # cut off: computed again
  np.testing.assert_array_equal(made.features(model, splits.train, None)["mean"], kept["mean"])
  others = dataclasses.replace(made, identity="seed 1")
  with pytest.raises(AssertionError):
    others.features(never, splits.train, None)
  assert len(lines) == 2


def test_a_task_of_too_many_answers_is_no_classification():
  many = examples("train", 400, answers=[str(number) for number in range(150)])
  with pytest.raises(errors.ConfigError, match="different answers in 400 training examples"):
    classes.different(many)
