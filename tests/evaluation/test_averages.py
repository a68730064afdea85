"""Norm. Avg against hand computation."""

import dataclasses
import math

import pytest

from promot_jax.evaluation import averages
from promot_jax.evaluation.records import TaskResult


def suite(scores, *, shots=1, method="detached", error=None):
  return [
    TaskResult(
      task=task,
      shots=shots,
      method=method,
      metric=metric,
      scores={"other": 99.0, metric: score},
      standard_errors={} if error is None else {metric: error},
      count=10 + number,
    )
    for number, ((task, metric), score) in enumerate(
      zip(averages.UNSEEN_TASKS.items(), scores, strict=True)
    )
  ]


def test_the_average_is_the_plain_mean_of_eight_scores():
  # Table 3, fine-tuning, 1-shot: printed 15.43.
  scores = [73.21, 50.00, 0.15, 0.05, 0.0, 0.0, 0.0, 0.0]
  result = averages.average(suite(scores, error=2.0), shots=1)
  assert result.value == pytest.approx(15.42625)
  assert result.standard_error == pytest.approx(2.0 / math.sqrt(8))
  assert (result.tasks, result.examples, result.missing) == (8, sum(range(10, 18)), ())


def test_other_shots_and_the_method_left_on_are_not_mixed_in():
  results = suite([10.0] * 8) + suite([50.0] * 8, shots=4) + suite([80.0] * 8, method="attached")
  assert averages.average(results, shots=1).value == 10
  assert averages.average(results, shots=4).value == 50
  assert averages.average(results, shots=1, attached=True).value == 80


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_splits_the_test_split_reports(order):
  one, other = (
    [dataclasses.replace(result, split=split) for result in suite([score] * 8)]
    for split, score in (("test", 10.0), ("validation", 50.0))
  )
  assert averages.average([*one, *other][::order], shots=1).value == 10


def test_there_is_no_average_while_a_task_is_missing():
  result = averages.average(suite([10.0] * 8)[:-1], shots=1)
  assert result.value is None
  assert result.missing == ("wiki_lingua",)


def test_there_is_no_standard_error_if_a_task_has_none():
  assert averages.average(suite([10.0] * 8), shots=1).standard_error is None
