"""No score depends on which examples share a batch, and a result says how they were put together."""

import numpy as np
import pytest

from promot_jax.data.examples import Examples
from promot_jax.data.length_report import LengthReport
from promot_jax.decoding.strategies import Beam, Sample
from promot_jax.evaluation import evaluator, results
from promot_jax.evaluation import rows as rows_lib
from promot_jax.evaluation.evaluator import Batching, EvalTask, Kept, Setting, Subject
from promot_jax.metrics import accuracy, rouge
from tiny_models import tiny

LENGTHS = (3, 11, 5, 5, 9, 4, 12, 3, 7)


def task(model, label, seed, **options):
  draw = np.random.default_rng(seed).integers
  inputs = [draw(3, model.config.vocab_size, n).astype(np.int32) for n in LENGTHS]
  targets = [draw(3, model.config.vocab_size, 3).astype(np.int32) for _ in LENGTHS]
  examples = Examples(
    name=label,
    split="",
    features={
      "inputs": inputs,
      "targets": targets,
      "prompt_ids": np.zeros(len(inputs), np.int32),
    },
    records=[{} for _ in inputs],
    lengths=LengthReport(examples=len(inputs), inputs_limit=None, targets_limit=None),
  )
  return EvalTask(label=label, shots=1, examples=examples, **options)


def measured(model, folder, rows, multiple=None, progress=None):
  """(results, predictions of all of them) with so many rows in a batch."""
  tasks = [
    task(model, "written", 1, metric_fns=[rouge.rouge]),
    task(
      model,
      "ranked",
      2,
      metric_fns=[accuracy.accuracy],
      options={"a": [7, 1], "b": [9, 4, 1], "c": [5, 1]},
    ),
  ]
  store = results.ResultStore(folder / str(rows))
  found = evaluator.evaluate(
    Subject(make=lambda: model, decode=lambda ids: " ".join(map(str, ids))),
    tasks,
    setting=Setting(special=model.token_ids, strategy=Beam(width=2), max_target_length=4),
    batching=Batching(batch_size=rows, buckets=(12,), multiple=multiple),
    kept=Kept(store=store),
    progress=progress,
  )
  return found, [each for result in found for each in store.predictions("model", result)]


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_batches_of_1_7_and_64_give_the_same_scores(kind, tmp_path):
  model = tiny(kind)
  found, answers = measured(model, tmp_path, 1)
  assert len({answer.raw for answer in answers}) > 3  # else they would be the same of any batch
  for rows in (7, 64):
    others, again = measured(model, tmp_path, rows)
    assert [result.scores for result in others] == [result.scores for result in found]
    assert [result.intervals for result in others] == [result.intervals for result in found]
    assert [answer.raw for answer in again] == [answer.raw for answer in answers]
    np.testing.assert_allclose(
      [answer.log_probability for answer in again],
      [answer.log_probability for answer in answers],
      rtol=1e-4,
    )
    assert [result.fingerprint for result in others] == [result.fingerprint for result in found]
    for result in others:
      assert result.notes["batches"] == {
        "rows": rows,
        "padded inputs": [12],
        "tasks": ["written 1-shot none", "ranked 1-shot none"],
      }


def test_batches_have_no_more_rows_than_their_pool_needs(tmp_path):
  model = tiny("t5")
  told = []
  whole, _ = measured(model, tmp_path / "whole", 64, progress=told.append)
  wasteful = told[-1].tokens
  found, _ = measured(model, tmp_path / "found", 64, multiple=2, progress=told.append)
  # 9 rows are written in a batch of 10, 27 options are ranked in one of 28; before each had 64.
  own = told[-1].tokens
  assert own.needed == wasteful.needed and own.computed < wasteful.computed / 2
  assert [result.scores for result in found] == [result.scores for result in whole]


@pytest.mark.parametrize(
  ("rows", "multiple", "expected"), [(64, 1, 9), (64, 4, 12), (8, 1, 5), (8, 8, 8), (64, None, 64)]
)
def test_the_rows_of_a_pool_are_shared_evenly_by_its_batches(rows, multiple, expected):
  model = tiny("t5")
  tasks = [task(model, "written", 1, metric_fns=[rouge.rouge])]
  batching = Batching(batch_size=rows, buckets=(12,), multiple=multiple)
  setting = Setting(special=model.token_ids, strategy=Beam(width=2), max_target_length=4)
  assert list(rows_lib.batch_sizes(tasks, setting, batching).values()) == [expected]
  drawn = Setting(special=model.token_ids, strategy=Sample(), max_target_length=4)
  assert list(rows_lib.batch_sizes(tasks, drawn, batching).values()) == [rows]
