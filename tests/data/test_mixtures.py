"""Rates of tasks, and the endless stream drawn at those rates."""

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.data import mixtures
from promot_jax.data.batches import Interleaving


def test_rates_are_equal_proportional_or_between():
  sizes = [100, 300, 1600]
  np.testing.assert_allclose(mixtures.equal(sizes), [1 / 3] * 3)
  np.testing.assert_allclose(mixtures.proportional(sizes), [0.05, 0.15, 0.8])
  np.testing.assert_allclose(mixtures.proportional(sizes, maximum=400), [0.125, 0.375, 0.5])
  np.testing.assert_allclose(mixtures.temperature(sizes, temperature=1), [0.05, 0.15, 0.8])
  np.testing.assert_allclose(mixtures.temperature([1, 9], temperature=2), [0.25, 0.75])
  np.testing.assert_allclose(mixtures.weighted([1, 1, 2])(sizes), [0.25, 0.25, 0.5])


def test_wrong_weights_and_temperatures_are_refused():
  with pytest.raises(errors.ConfigError, match="3 positive numbers"):
    mixtures.weighted([1, 2])([5, 5, 5])
  with pytest.raises(errors.ConfigError, match="must be positive"):
    mixtures.temperature([1, 2], temperature=0)


def test_data_sets_with_templates_are_capped_as_t0s_are():
  # Sanh et al. (2022), section 5: above 500,000 examples, 500,000 / number of templates.
  sets, sizes = ["a", "a", "b", "c", "c", "c", "c"], [900_000] * 2 + [1000] + [500_000] * 4
  counted = np.array([250_000] * 2 + [1000] + [500_000] * 4)
  rates = mixtures.OverTemplates().of_data_sets(sets, [0] * 7, sizes)
  np.testing.assert_allclose(rates, counted / counted.sum())
  shared = np.array([125_000] * 2 + [1000] + [125_000] * 4)
  rates = mixtures.OverTemplates(templates_multiply=False).of_data_sets(sets, [0] * 7, sizes)
  np.testing.assert_allclose(rates, shared / shared.sum())


def test_the_size_of_a_data_set_counts_where_only_its_first_examples_are_read():
  rates = mixtures.OverTemplates(maximum=600)
  known, read = [1000, 1000, 300], [400, 400, 300]
  np.testing.assert_allclose(rates.of_data_sets(["a", "a", "b"], known, read), [1 / 3] * 3)
  np.testing.assert_allclose(rates([100, 300]), [0.25, 0.75])  # a template each
  with pytest.raises(errors.ConfigError, match="at least 1 example"):
    mixtures.OverTemplates(maximum=0)


@pytest.mark.parametrize("rates", [[0.5, 0.5], [0.05, 0.15, 0.8], [0.001, 0.999], [1.0]])
def test_tasks_are_drawn_at_their_rates_and_evenly(rates):
  interleaving = Interleaving(np.array(rates))
  drawn, _ = interleaving.draw(np.arange(40 * len(interleaving.block)))
  shares = np.bincount(drawn) / len(drawn)
  np.testing.assert_allclose(shares, rates, rtol=0.13)
  half = np.bincount(drawn[: len(drawn) // 2], minlength=len(rates)) / (len(drawn) // 2)
  np.testing.assert_allclose(half, shares, rtol=0.05)


def test_the_draws_of_each_task_are_counted_without_gaps():
  interleaving = Interleaving(np.array([0.3, 0.7]))
  tasks, draws = interleaving.draw(np.arange(500))
  for task in (0, 1):
    assert draws[tasks == task].tolist() == list(range((tasks == task).sum()))


def test_a_position_can_be_looked_up_alone():
  interleaving = Interleaving(np.array([0.3, 0.7]))
  tasks, draws = interleaving.draw(np.arange(500))
  task, draw = interleaving.draw(np.array([321]))
  assert (task[0], draw[0]) == (tasks[321], draws[321])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_weights_and_temperatures_that_cannot_be_are_refused(value):
  with pytest.raises(errors.ConfigError, match="positive numbers"):
    mixtures.weighted([1.0, value])([3, 4])
  if value != float("inf"):  # infinity draws all tasks equally often
    with pytest.raises(errors.ConfigError, match="must be positive"):
      mixtures.temperature([3, 4], temperature=value)
