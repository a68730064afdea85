"""What chooses a checkpoint: metrics by name, functions of them, functions of all validations."""

import dataclasses

import optax
import pytest

from promot_jax import errors
from promot_jax.training import choice, selection
from promot_jax.training.stages import Stage

STAGE = Stage(
  name="model",
  trainable=".*",
  steps=40,
  batch_size=2,
  eval_period=10,
  optimizer=optax.sgd,
  learning_rate=optax.constant_schedule(0.1),
)


def history(values, name="accuracy", **more):
  return [
    {
      "step": 10 * (number + 1),
      "score": value,
      "metrics": {name: value, **{key: series[number] for key, series in more.items()}},
    }
    for number, value in enumerate(values)
  ]


@pytest.mark.parametrize(
  ("metric", "best"),
  [
    ("accuracy", "max"),
    ("loss", "min"),
    ("rte/loss", "min"),
    ("token_accuracy", "max"),
    (selection.WeightedSum(weights={"loss": -1.0}), "max"),
  ],
)
def test_the_best_value_follows_the_metric(metric, best):
  assert dataclasses.replace(STAGE, metric=metric).optimum == best


@pytest.mark.parametrize(
  ("metric", "mode"), [("loss", "max"), ("rte/loss", "max"), ("token_accuracy", "min")]
)
def test_a_mode_that_takes_the_worst_checkpoint_is_refused(metric, mode):
  with pytest.raises(errors.ConfigError, match=f"mode='{mode}' would take the worst '{metric}'"):
    dataclasses.replace(STAGE, metric=metric, mode=mode)


def test_the_lowest_loss_is_chosen_without_a_mode():
  stage = dataclasses.replace(STAGE, metric="loss")
  step, why = choice.choose_step(stage, history([2.0, 1.5, 1.75, 1.5], "loss"))
  assert step == 20
  assert "step 20 of 40 is used, the minimum of validation loss, 1.5, over 4 validations" in why


def test_a_weighted_sum_of_metrics_chooses():
  stage = dataclasses.replace(
    STAGE, metric=selection.WeightedSum(weights={"rouge1": 0.25, "rouge2": 0.75})
  )
  assert choice.score(stage, {"rouge1": 40.0, "rouge2": 20.0, "rougeL": 1.0}) == 25.0
  with pytest.raises(errors.ConfigError, match=r"gives no 'rouge2' but rouge1, rougeL\. Did you"):
    choice.score(stage, {"rouge1": 40.0, "rougeL": 1.0})
  assert choice.described(stage) == "the maximum of 0.25 x rouge1 + 0.75 x rouge2"


def test_a_function_of_ones_own_chooses_and_says_what_it_misses():
  stage = dataclasses.replace(STAGE, metric=lambda metrics: metrics["a"] - metrics["b"])
  assert stage.asks is None  # nobody knows, so everything is measured
  assert choice.score(stage, {"a": 3.0, "b": 1.0}) == 2.0
  with pytest.raises(errors.ConfigError, match="asks for 'b', and its validation gives no 'b'"):
    choice.score(stage, {"a": 3.0})


def test_the_earliest_step_within_one_standard_error_of_the_best_is_chosen():
  values = [70.0, 77.0, 76.0, 80.0]  # the best is 80 +- 3.5: 77 is the earliest of at least 76.5
  given = history(values, accuracy_standard_error=[9.0, 4.0, 4.0, 3.5])
  stage = dataclasses.replace(STAGE, select=selection.WithinOneStandardError(metric="accuracy"))
  step, why = choice.choose_step(stage, given)
  assert step == 20
  assert why == (
    "step 20 of 40 is used, the earliest within one standard error of the best accuracy, over 4"
    " validations"
  )
  assert stage.asks == ("accuracy", "accuracy_standard_error")
  falling = selection.WithinOneStandardError(metric="error", mode="min")
  assert falling(history([9.0, 4.0, 3.0], "error", error_standard_error=[0.1, 0.1, 1.0])) == 20


def test_all_checkpoints_are_kept_where_a_function_chooses_the_step():
  assert STAGE.keep.last == 3
  assert dataclasses.replace(STAGE, select=lambda validations: 10).keep.last is None
  with pytest.raises(errors.ConfigError, match="chose step 15, and validated were 10, 20"):
    choice.choose_step(dataclasses.replace(STAGE, select=lambda all_: 15), history([1.0, 2.0]))


@pytest.mark.parametrize("metric", ["loss", "rte/token_accuracy", 3])
def test_one_standard_error_needs_a_decoded_metric(metric):
  with pytest.raises(errors.ConfigError, match="must name a decoded metric"):
    selection.WithinOneStandardError(metric=metric)


@pytest.mark.parametrize("weights", [{}, {"a": "1"}, {"a": float("nan")}, ["a"]])
def test_weights_are_numbers(weights):
  with pytest.raises(errors.ConfigError, match=r"WeightedSum\.weights"):
    selection.WeightedSum(weights=weights)


@pytest.mark.parametrize(
  ("scores", "patience", "min_delta", "last"),
  [
    ([1, 2, 3, 4], 1, 0.0, None),
    ([3, 2, 1, 4], 2, 0.0, 30),
    ([3, 2, 4, 1], 2, 0.0, None),  # the third is better, and counting begins anew
    ([3, 3], 1, 0.0, 20),  # as good is not better
    ([1.0, 1.4, 1.8], 2, 0.5, None),  # 1.8 is more than 0.5 better than 1.0
    ([1.0, 1.2, 1.4], 2, 0.5, 30),
    ([3, 2], 2, 0.0, None),
  ],
)
def test_patience_counts_validations_without_a_better_one(scores, patience, min_delta, last):
  stage = dataclasses.replace(STAGE, patience=patience, min_delta=min_delta, steps=100)
  stops = [
    entry["step"]
    for number, entry in enumerate(history(scores))
    if choice.stopped(stage, history(scores)[: number + 1], entry["step"])
  ]
  assert stops[:1] == ([] if last is None else [last])
  assert choice.stopped(dataclasses.replace(stage, steps=last or 40), history(scores), 40) == ""


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"patience": 0}, "patience=0 must be None or a whole number of at least 1"),
    ({"patience": 2, "eval_period": None}, "it counts validations"),
    ({"min_delta": -1.0}, r"min_delta=-1\.0 must be a number of at least 0"),
    ({"mode": "best"}, "'max', 'min', or None"),
    ({"select": "first"}, "'best', 'last', or a function"),
    ({"metric": 3}, "a metric's name, or a function"),
  ],
)
def test_what_cannot_choose_is_refused(changes, said):
  with pytest.raises(errors.ConfigError, match=said):
    dataclasses.replace(STAGE, **changes)
