"""A stage is chosen by any metric of its tasks, or by its loss, and measures only what that needs."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

import tiny_experiments
from promot_jax.data import examples as example_lists
from promot_jax.decoding.strategies import Greedy
from promot_jax.errors import ConfigError
from promot_jax.evaluation import evaluator
from promot_jax.evaluation.records import TaskResult
from promot_jax.experiments import data, epochs, execute, shapes, validation
from promot_jax.experiments.experiment import EvaluationPlan, Experiment
from promot_jax.networks import backbones
from promot_jax.planning import plan
from promot_jax.training import choice, schedules, selection
from promot_jax.training.stages import Stage
from tiny_experiments import MODEL, SHORT

STAGE = dataclasses.replace(MODEL, trainable=".*", steps=6, microbatches=2)


def experiment(stage=STAGE, **changes) -> Experiment:
  evaluation = EvaluationPlan(unseen=(), strategy=Greedy(), batch_size=8, buckets=1, limit=5)
  values = {"stages": [stage], "evaluation": evaluation}
  return tiny_experiments.experiment(**{**SHORT, **values, **changes})


class Reader:
  """Examples of unequal tasks, without a seqio task."""

  def examples(self, experiment, task, split, lengths, limit):
    count = {"rte": 7, "wmt14_en_fr": 4}[task]
    random = np.random.default_rng([count, 3])
    inputs = [random.integers(4, 60, size).astype(np.int32) for size in range(3, 3 + count)]
    targets = [np.append(each[:2], 1).astype(np.int32) for each in inputs]
    records = [{"inputs": "x", "targets": "y", "answers": ["y"]}] * count
    return example_lists.in_memory(task, inputs, targets, records)


def measured(made: Experiment, stage: Stage) -> dict[str, float]:
  model = backbones.build(made.backbone, nnx.Rngs(0))
  tasks = data.validation_tasks(made, stage.name, Reader())
  return validation.measure(
    made, stage, tasks, model, place=lambda batch: batch, progress=lambda state: None
  )


def plain_loss(made: Experiment, task: str) -> tuple[float, int]:
  """(sum over target tokens of -log p, number of tokens): one example at a time, without padding."""
  model = backbones.build(made.backbone, nnx.Rngs(0))
  examples = Reader().examples(made, task, "", {}, None)
  total, count = 0.0, 0
  for inputs, targets in zip(examples.inputs, examples.targets):
    batch = {
      "encoder_input_tokens": inputs[None],
      "decoder_input_tokens": np.append(0, targets[:-1])[None].astype(np.int32),
      "decoder_target_tokens": targets[None],
      "prompt_ids": np.zeros(1, np.int32),
    }
    logits = np.asarray(model.logits(model.hidden(batch)), np.float64)[0]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total -= float(log_p[np.arange(len(targets)), targets].sum())
    count += len(targets)
  return total, count


def test_the_loss_of_a_mixture_is_the_mean_over_all_its_tokens_and_over_each_tasks(monkeypatch):
  def never(*_, **__):
    raise AssertionError("a stage that chooses by its loss decodes nothing")

  monkeypatch.setattr(evaluator, "evaluate", never)
  stage = dataclasses.replace(STAGE, metric="loss")
  made = experiment(stage, task="rte_and_wmt14_en_fr")
  found = measured(made, stage)
  sums = {task: plain_loss(made, task) for task in ("rte", "wmt14_en_fr")}
  for task, (total, count) in sums.items():
    assert found[f"{task}/loss"] == pytest.approx(total / count, rel=1e-4)
  totals, counts = zip(*sums.values())
  assert found["loss"] == pytest.approx(sum(totals) / sum(counts), rel=1e-4)
  assert set(found) == set(validation.known(made, stage)[1]) & {
    each for each in validation.known(made, stage)[1] if selection.is_forced(each)
  }


def test_decoded_metrics_come_alone_where_nothing_asks_for_the_loss():
  assert set(measured(experiment(), STAGE)) == {"accuracy"}


def test_everything_that_a_sum_asks_for_is_measured():
  stage = dataclasses.replace(
    STAGE, metric=selection.WeightedSum(weights={"accuracy": 1.0, "loss": -1.0})
  )
  found = measured(experiment(stage), stage)
  assert set(found) == {"accuracy", "loss", "token_accuracy"}
  assert choice.score(stage, found) == pytest.approx(found["accuracy"] - found["loss"])


def test_a_function_that_does_not_say_what_it_needs_gets_everything_that_is_known():
  stage = dataclasses.replace(STAGE, metric=lambda metrics: metrics["accuracy"])
  made = experiment(stage)
  assert set(measured(made, stage)) == set(validation.known(made, stage)[1])


def test_every_score_of_every_task_has_a_name():
  def result(task, metric, scores, deviations):
    return TaskResult(
      task=task,
      shots=0,
      method="none",
      split="validation",
      metric=metric,
      scores=scores,
      standard_errors=deviations,
      count=5,
    )

  rouge = {"rouge1": 30.0, "rouge2": 10.0, "rougeL": 20.0}
  results = [
    result("xsum", "rouge2", rouge, {"rouge2": 3.0}),
    result("rte", "accuracy", {"accuracy": 60.0}, {"accuracy": 4.0}),
  ]
  assert validation.decoded(results[:1]) == rouge
  assert validation.decoded(results) == {
    "xsum/rouge1": 30.0,
    "xsum/rouge2": 10.0,
    "xsum/rougeL": 20.0,
    "rte/accuracy": 60.0,
    "mean": 35.0,
  }
  assert validation.standard_errors(results)["mean_standard_error"] == 2.5  # sqrt(9 + 16) / 2


@pytest.mark.parametrize(
  ("task", "metric", "said"),
  [
    ("rte", "acuracy", r"gives no 'acuracy' but accuracy, loss, token_accuracy\. Did you mean"),
    ("xsum", "rouge3", r"but rouge1, rouge2, rougeL, loss, .* Did you mean 'rouge"),
    ("rte_and_wmt14_en_fr", "accuracy", r"but mean, rte/accuracy, wmt14_en_fr/bleu, loss, "),
  ],
)
def test_a_metric_that_validation_will_not_give_is_refused_before_anything_starts(
  task, metric, said
):
  made = experiment(dataclasses.replace(STAGE, metric=metric), task=task)
  with pytest.raises(ConfigError, match=said):
    shapes.check(made)


@pytest.mark.parametrize("metric", ["rouge1", "rougeL", "loss", "token_accuracy"])
def test_every_metric_of_the_task_may_choose(metric):
  shapes.check(experiment(dataclasses.replace(STAGE, metric=metric), task="xsum"))


def test_the_lowest_of_a_metric_of_the_task_is_not_the_best():
  with pytest.raises(ConfigError, match="mode='min' would take the worst 'accuracy'"):
    shapes.check(experiment(dataclasses.replace(STAGE, mode="min")))


def test_a_run_chooses_by_its_loss_and_stops_early(tmp_path, monkeypatch):
  monkeypatch.setattr(
    evaluator, "evaluate", _only_in_the_report(evaluator.evaluate, tmp_path / "evaluation")
  )
  stage = dataclasses.replace(
    STAGE, metric="loss", patience=1, steps=40, learning_rate=schedules.constant(0.5)
  )
  made = experiment(stage, model_dir=str(tmp_path))
  outcome = execute.execute(made)[0]
  assert "the minimum of validation loss" in outcome.why
  assert "stopped after step" in outcome.why
  metrics = [
    line
    for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()
    if "valid" in line
  ]
  assert metrics and all('"loss"' in line and '"token_accuracy"' in line for line in metrics)
  assert execute.execute(made)[0].why == outcome.why  # complete, although it has fewer steps


def _only_in_the_report(evaluate, folder):
  def guarded(*arguments, **options):
    assert options.get("kept") is not None, "a validation decodes"
    return evaluate(*arguments, **options)

  return guarded


def test_a_run_in_epochs_counts_its_examples_and_shows_its_steps(tmp_path):
  stage = dataclasses.replace(
    STAGE,
    steps=None,
    epochs=1.5,
    eval_period=None,
    eval_epochs=0.5,
    metric="loss",
    learning_rate=schedules.linear(0.01),
  )
  made = experiment(stage, model_dir=str(tmp_path))
  shown = "\n".join(plan.describe(made))
  assert "epochs=1.5 means steps=8, eval_epochs=0.5 means eval_period=3 with 30 examples" in shown
  outcome = execute.execute(made)[0]  # 30 examples, 6 a batch: 7.5 updates
  assert "of 8 is used" in outcome.why
  assert [entry.steps for entry in outcome.experiment.stages] == [8]
  assert execute.execute(made)[0].why == outcome.why
  longer = dataclasses.replace(made, stages=[dataclasses.replace(stage, epochs=2)])
  assert "of 10 is used" in execute.execute(longer)[0].why  # more epochs go on
  with pytest.raises(ConfigError, match="steps 10, and this run asks for 8"):
    execute.execute(made)


def test_nothing_is_read_for_a_complete_stage_in_epochs(monkeypatch):
  class Complete:
    def read_json(self, *_, **__):
      return {"examples": 12}

  stage = dataclasses.replace(STAGE, steps=None, epochs=2)
  found = epochs.counted(experiment(stage), 0, Complete(), None)
  assert found.stages[0].steps == 4


def test_the_plan_counts_every_task_of_a_mixture_as_far_as_it_is_used():
  made = experiment(task="rte_and_wmt14_en_fr", source="tfds", train_limit=3000)
  assert epochs.examples(made, STAGE) == 2490 + 3000
  strict = dataclasses.replace(made, task="rte", selection="strict", train_limit=None)
  assert epochs.examples(strict, STAGE) == 2241
