"""A stage that learns from what is kept of its teacher: asked once, found by example, gone on with."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

import tiny_experiments
from promot_jax.data import examples as example_lists
from promot_jax.errors import ConfigError, ModelDirInUse
from promot_jax.experiments import data, shapes, teaching
from promot_jax.experiments.experiment import EvaluationPlan
from promot_jax.models.readout import Readout
from promot_jax.planning import plan
from promot_jax.token_ids import T5
from promot_jax.training import choice
from promot_jax.training.distillation import Distillation
from promot_jax.training.events import Events
from promot_jax.training.stages import Stage
from promot_jax.training.teacher_cache import TeacherCache
from promot_jax.training.top_tokens import LOG_P, TOKENS
from tiny_experiments import BACKBONE, MODEL, SHORT, Lines, opened

SIZE = BACKBONE.vocab_size
START = tiny_experiments.experiment().network


class Table(nnx.Module):
  """Logits by the token before, and by the task."""

  token_ids = T5

  def __init__(self):
    keys = jax.random.split(jax.random.key(1))
    self.table = nnx.Param(jax.random.normal(keys[0], (SIZE, 3)))
    self.kernel = nnx.Param(jax.random.normal(keys[1], (3, SIZE)))

  def hidden(self, batch, *, key=None):
    return self.table[...][batch["decoder_input_tokens"]] + batch["prompt_ids"][:, None, None]

  @property
  def readout(self):
    return Readout(kernel=self.kernel[...])

  def log_p(self, before, task):
    table, kernel = (np.asarray(leaf[...], np.float64) for leaf in (self.table, self.kernel))
    logits = (table[before] + task) @ kernel
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


class Reader:
  """Examples of unequal tasks, without a seqio task."""

  def examples(self, experiment, task, split, lengths, limit):
    count = {"rte": 7, "wmt14_en_fr": 4}[task]
    random = np.random.default_rng([count, len(split)])
    inputs = [random.integers(4, 60, size).astype(np.int32) for size in range(3, 3 + count)]
    targets = [np.append(each[: 1 + len(each) % 3], 1).astype(np.int32) for each in inputs]
    records = [{"inputs": "x", "targets": "y", "answers": ["y"]}] * count
    made = example_lists.in_memory(task, inputs, targets, records)
    return dataclasses.replace(made, split=split)


def stage(folder, **changes) -> Stage:
  values = {"objective": Distillation(weight=0.5), "teacher": dataclasses.replace(START, seed=8)}
  values |= {"teacher_cache": str(folder), "metric": "loss", "microbatches": 2}
  return dataclasses.replace(MODEL, **{"trainable": ".*", **values, **changes})


def directory_of(made: Stage, teacher=None, sinks=(), place="unused"):
  """The experiment in a process of its own, whose teacher is `teacher`; None: must not be asked."""
  run = tiny_experiments.experiment(
    **SHORT,
    model_dir=f"{place}/model",
    task="rte_and_wmt14_en_fr",
    stages=[made],
    evaluation=EvaluationPlan(unseen=(), batch_size=8, buckets=1, limit=5),
  )
  found = dataclasses.replace(opened(run), events=Events(sinks))
  found.session.reader = Reader()

  def asked(experiment, name):
    assert teacher is not None, "the teacher is asked again"
    return teacher

  found.session.teacher = asked
  return found


def taught(directory):
  (made,) = directory.experiment.stages
  held_out = data.validation_tasks(directory.experiment, made.name, directory.session.reader)
  return teaching.of_stage(directory, made, held_out)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
  monkeypatch.setattr(
    teaching, "TeacherCache", functools.partial(TeacherCache, examples_per_shard=3)
  )


def test_every_example_finds_what_its_teacher_says(tmp_path):
  teacher, lines = Table(), Lines()
  # A bare name is beside the model directory.
  directory = directory_of(stage("says", teacher_cache_tokens=None), teacher, [lines], tmp_path)
  found = taught(directory)
  assert found.model is None
  said = "\n".join(lines.lines)
  assert "is asked about 3 of 3 parts of rte" in said and f"has {SIZE} of {SIZE} tokens of" in said
  batches = data.train_batches(directory.experiment, "model", 6, directory.session.reader)
  taught_batches = found.batches(batches)
  for step in range(3):
    batch = taught_batches(step)
    assert_taught(batch, teacher, batch["prompt_ids"])
  # Of the validation of the second task, whose last row only fills the batch.
  examples = Reader().examples(None, "wmt14_en_fr", "validation", None, None).select([2, 0])
  batch = {
    "decoder_input_tokens": np.zeros((3, 4), np.int32),
    "decoder_target_tokens": np.zeros((3, 4), np.int32),
    "decoder_loss_weights": np.zeros((3, 4), np.float32),
  }
  for row, targets in enumerate(examples.targets):
    batch["decoder_input_tokens"][row, 1 : len(targets)] = targets[:-1]
    batch["decoder_loss_weights"][row, : len(targets)] = 1
  assert_taught(found.validated(1, batch, np.array([2, 0, -1])), teacher, [1, 1, 1])
  # A second run of the same, and one with another weight, ask no more.
  again = dataclasses.replace(stage(tmp_path / "says"), objective=Distillation(weight=1.0))
  again = dataclasses.replace(again, teacher_cache_tokens=None)
  assert taught(directory_of(again)).training[1].of(3)[0].shape[1] == SIZE


def assert_taught(batch, teacher, tasks):
  for row, task in enumerate(tasks):
    length = int(batch["decoder_loss_weights"][row].sum())
    expected = teacher.log_p(batch["decoder_input_tokens"][row, :length], int(task))
    tokens, log_p = batch[TOKENS][row, :length], batch[LOG_P][row, :length, :-1]
    np.testing.assert_allclose(log_p, np.take_along_axis(expected, tokens, axis=-1), atol=2e-5)
    assert np.exp(batch[LOG_P][row, length:]).sum() == 0


def test_what_was_kept_before_a_kill_is_not_asked_again(tmp_path, monkeypatch):
  made = stage(tmp_path, teacher_cache_tokens=4, metric="accuracy")
  write, shards = TeacherCache.write, []

  def killed(cache, shard, *arrays):
    if len(shards) == 2:
      raise KeyboardInterrupt
    shards.append((cache.folder.name, shard))
    write(cache, shard, *arrays)

  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(TeacherCache, "write", killed)
    taught(directory_of(made, Table()))
  lines = Lines()
  taught(directory_of(made, Table(), [lines]))
  assert shards == [("rte-train", 0), ("rte-train", 1)]
  assert "asked about 1 of 3 parts of rte" in "\n".join(lines.lines)
  # A choice by a decoded metric never computes the loss of the validation.
  assert sorted(path.name for path in tmp_path.iterdir()) == ["rte-train", "wmt14_en_fr-train"]
  with pytest.raises(
    ConfigError, match=r"rte-train holds what another teacher said.*tokens 5, temp"
  ):
    taught(directory_of(dataclasses.replace(made, teacher_cache_tokens=5), Table()))
  (tmp_path / "rte-train" / "shard_00002").rename(tmp_path / "away")
  in_use = pytest.raises(ModelDirInUse, match=r"What a teacher says, in .*rte-train, is in use by")
  with teaching.Lease(tmp_path / "rte-train", file=".asking", what="It"), in_use:
    taught(directory_of(made, Table()))


def test_a_stage_says_what_it_keeps_and_refuses_what_cannot_be_kept(tmp_path):
  made = stage(tmp_path)
  assert choice.trained_with(made)["teacher's tokens"] == "64"
  assert "teacher's tokens" not in choice.trained_with(
    dataclasses.replace(made, teacher_cache=None)
  )
  none = dataclasses.replace(made, objective=Distillation(weight=0.0))
  directory = directory_of(none)
  del directory.session.teacher  # the session's own, which has none
  assert taught(directory).model is None and not list(tmp_path.iterdir())
  with pytest.raises(ConfigError, match="only Distillation learns from what was kept"):
    dataclasses.replace(MODEL, teacher_cache="kept")
  with pytest.raises(ConfigError, match="teacher_cache_tokens=0 must be"):
    stage(tmp_path, teacher_cache_tokens=0)
  run = directory_of(made).experiment
  said = "\n".join(plan.describe(run))
  assert f"asked once, and the 64 most probable tokens kept in {tmp_path}" in said
  asked = dataclasses.replace(made, teacher_cache=None)
  sizes = [
    shapes.stage_plans(dataclasses.replace(run, stages=[each]), {"data": 1, "model": 1})[0].bytes
    for each in (made, asked)
  ]
  assert sizes[0].total < sizes[1].total
