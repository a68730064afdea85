"""A data set's score is the median over its templates."""

import pytest

from promot_jax.evaluation import averages, medians, uncertainty
from promot_jax.evaluation.records import TaskResult


def result(
  task: str, score: float, *, shots: int = 0, method: str = "none", metric: str = "accuracy"
):
  return TaskResult(
    task=task,
    shots=shots,
    method=method,
    metric=metric,
    scores={metric: score},
    count=8,
    split="test",
  )


TEMPLATES = {"d": ["d_a", "d_b", "d_c"], "e": ["e_a", "e_b"]}


def test_it_is_that_of_every_template_at_the_same_shots_and_state_of_the_method():
  results = [
    result("d_a", 10),
    result("d_b", 90),
    result("d_c", 30),
    result("e_a", 1),
    result("e_b", 2),
  ]
  results += [result("d_a", 50, shots=1), result("d_b", 50, shots=1), result("x", 7)]
  found = {(each.task, each.shots): each for each in medians.over_templates(results, TEMPLATES)}
  assert set(found) == {("d", 0), ("e", 0)}  # at one shot a template is missing
  assert found["d", 0].score == 30 and found["d", 0].median_of == 3
  assert found["e", 0].score == pytest.approx(1.5)
  # An interval over the same examples asked in several ways would be none.
  assert uncertainty.of_result(found["d", 0]) is None


def test_the_mean_over_data_sets_is_one_of_medians():
  results = [result(f"d_{n}", s) for n, s in zip("abc", (10, 90, 30))]
  results += [result("e_a", 40), result("e_b", 80)]
  every = [*results, *medians.over_templates(results, TEMPLATES)]
  assert averages.average(every, shots=0, unseen=["d", "e"]).value == 45


def test_templates_of_several_metrics_have_a_median_under_its_own_name():
  results = [result("e_a", 40), result("e_b", 80, metric="rouge2")]
  (found,) = medians.over_templates(results, TEMPLATES)
  assert (found.metric, found.score) == ("score", 60)
