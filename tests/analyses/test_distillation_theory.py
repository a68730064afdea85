"""The propositions hold where they are said to, and not where a condition of theirs is missing."""

import dataclasses

import numpy as np
import pytest

from promot_jax.analyses import distillation_theory
from promot_jax.analyses.distillation_theory import DistillationTheory
from promot_jax.errors import ConfigError

SMALL = DistillationTheory(
  inputs=4, seen=3, unseen=3, examples=200, steps=700, starts=[0.0, 0.1], seed=3
)


@pytest.fixture(scope="module")
def found():
  return SMALL([])


def rows(found, proposition: str) -> dict[tuple, distillation_theory.Row]:
  own = [row for row in found.rows if row.proposition == proposition]
  return {(row.start, row.rank): row for row in own}


def test_classes_without_examples_stay_one_from_zero_and_from_nowhere_else(found):
  own = rows(found, "unseen classes")
  zero, other = own["0", None], own["0.1", None]
  assert zero.spread < 1e-12
  assert zero.probability <= zero.bound + 1e-12 and zero.bound == pytest.approx(1 / 3)
  assert zero.accuracy <= zero.bound and zero.among_unseen == pytest.approx(zero.bound)
  assert other.spread > 0.1 and other.among_unseen > 0.9


def test_an_example_of_one_of_them_breaks_it():
  draw = np.random.default_rng(0)
  inputs, seen = draw.normal(size=(50, 4)), draw.integers(0, 3, size=50)
  spreads = []
  for labels in (seen, np.where(np.arange(50) == 7, 4, seen)):
    theta = distillation_theory.descend(np.zeros((4, 6)), inputs, np.eye(6)[labels], steps=30)
    spreads.append(np.ptp(theta[:, 3:], axis=1).max())
  assert spreads[0] < 1e-12 and spreads[1] > 1e-3


def test_full_rank_alone_gives_the_teacher_back_on_any_input(found):
  own = rows(found, "distillation")
  free, matched = own["zero", 4], own["teacher's mean", 4]
  assert max(free.anywhere, matched.anywhere) < 1e-10
  # The condition on normalizers is not needed: they match in one of the two only.
  assert matched.normalizer_gap < 1e-4 and free.normalizer_gap > 0.1


def test_without_the_rank_it_is_given_back_on_its_inputs_only(found):
  for (_, rank), row in rows(found, "distillation").items():
    assert row.on_inputs < 1e-10
    assert rank == 4 or row.anywhere > 1e-2, rank


def test_the_gradient_is_that_of_the_mean_cross_entropy():
  draw = np.random.default_rng(1)
  theta, inputs = draw.normal(size=(3, 5)), draw.normal(size=(7, 3))
  wanted = draw.dirichlet(np.ones(5), size=7)

  def loss(theta):
    powers = np.exp(inputs @ theta)
    return -(wanted * np.log(powers / powers.sum(axis=1, keepdims=True))).sum() / 7

  expected = np.zeros_like(theta)
  for place in np.ndindex(theta.shape):
    move = np.zeros_like(theta)
    move[place] = 1e-6
    expected[place] = (loss(theta + move) - loss(theta - move)) / 2e-6
  found = distillation_theory.gradient(theta, inputs, wanted)
  np.testing.assert_allclose(found, expected, atol=1e-9)


def test_it_takes_no_runs_and_no_bad_values():
  with pytest.raises(ConfigError, match="name no runs"):
    SMALL(["run"])
  with pytest.raises(ConfigError, match=r"unseen=1 must be a whole number from 2"):
    dataclasses.replace(SMALL, unseen=1)
  with pytest.raises(ConfigError, match=r"starts=\[-1\] must be numbers"):
    dataclasses.replace(SMALL, starts=[-1])
