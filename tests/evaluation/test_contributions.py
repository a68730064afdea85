"""Leave-one-out of differences in the mean, on numbers whose answer is plain."""

import pytest

from promot_jax.evaluation import contributions, uncertainty

TASKS = "abcdefgh"


@pytest.mark.parametrize(
  ("differences", "words"),
  [
    ([5.0] * 8, ""),  # every task says the same
    ([0.0] * 8, ""),
    ([-1.0] * 7 + [40.0], "the sign comes from one task, h"),
    ([1.0] * 7 + [-40.0], "the sign comes from one task, h"),
    ([0.0] * 7 + [8.0], "the sign comes from one task, h"),
    ([1.0] * 7 + [9.0], "more than half comes from one task, h"),
    ([1.0] * 7 + [7.0], ""),  # exactly half
    ([-6.0, *[0.5] * 7], "the sign comes from one task, a"),
  ],
)
def test_what_one_task_does_to_a_difference(differences, words):
  second = dict.fromkeys(TASKS, 30.0)
  first = {task: 30.0 + value for task, value in zip(TASKS, differences, strict=True)}
  found = contributions.remark(first, second)
  assert found.startswith(words) and bool(found) == bool(words)


def test_the_interval_of_a_mean_adds_distances_as_variances():
  # Two scores of 50 +- 3 and 50 +- 4: the sum has +- 5, the mean +- 2.5.
  found = uncertainty.of_mean([50.0, 50.0], [(47.0, 53.0), (46.0, 54.0)])
  assert found == pytest.approx((47.5, 52.5))
  # 100 of 100 can only be less: no upper reach.
  assert uncertainty.of_mean([100.0, 100.0], [(97.0, 100.0), (96.0, 100.0)]) == (97.5, 100.0)
  assert uncertainty.of_mean([50.0, 50.0], [(47.0, 53.0), None]) is None
