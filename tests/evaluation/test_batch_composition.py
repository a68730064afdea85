"""No score depends on which examples share a batch, and a result says how they were put together."""

import numpy as np
import pytest

from promot_jax.data.examples import Examples
from promot_jax.data.length_report import LengthReport
from promot_jax.decoding.strategies import Beam
from promot_jax.evaluation import evaluator, results
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


def measured(model, folder, rows):
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
    batching=Batching(batch_size=rows, buckets=(12,)),
    kept=Kept(store=store),
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
