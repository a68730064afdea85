"""Means of ratios over Table 1 of Hewitt et al., 2021, against its text and against numpy."""

import decimal

import numpy as np
import pytest

from promot_jax.evaluation import aggregates, published
from promot_jax.evaluation.aggregates import Scores, Setting


def printed(figure):
  return figure.value


def half_a_unit(figure) -> float:
  """Of the last printed digit: what rounding may have taken or added."""
  return 0.5 * 10.0 ** decimal.Decimal(figure.text).as_tuple().exponent


def test_the_printed_table_gives_the_percentages_of_the_text():
  settings = aggregates.settings_of(printed)
  assert len(settings) == 6  # three data sets, two light methods
  found = {each.quoted: each.of(settings) for each in aggregates.AGGREGATES}
  for quoted in ("84", "81", "+37", "+39", "+19"):
    assert round(found[quoted]) == int(quoted), quoted
  # 24.6 of printed digits: the text's 24 is within what rounding the scores may have moved.
  assert found["+24"] == pytest.approx(24.596, abs=1e-3)

  def lower(figure):
    weaker = figure.method in ("fine_tuning", "prefix", "adapter")
    return figure.value + half_a_unit(figure) * (1 if weaker else -1)

  (outside,) = [each for each in aggregates.AGGREGATES if each.quoted == "+24"]
  assert outside.of(aggregates.settings_of(lower)) < 24.5


def test_each_mean_is_numpys_of_the_ratios():
  rng = np.random.default_rng(0)
  i, o = rng.uniform(5, 60, (2, 4, 4))  # [setting, (full, light, ensemble, cocktail)]
  settings = [
    Setting(
      **{
        name: Scores(inside=i[row, column], outside=o[row, column])
        for column, name in enumerate(("full", "light", "ensemble", "cocktail"))
      }
    )
    for row in range(4)
  ]
  expected = [
    (o[:, 0] / o[:, 1]).mean(),
    (i[:, 1] / i[:, 0]).mean(),
    (i[:, 2] / i[:, :2].min(1)).mean() - 1,
    (o[:, 2] / o[:, :2].min(1)).mean() - 1,
    (i[:, 3] / i[:, :2].min(1)).mean() - 1,
    (o[:, 3] / o[:, :2].min(1)).mean() - 1,
  ]
  found = [each.of(settings) for each in aggregates.AGGREGATES]
  np.testing.assert_allclose(found, 100 * np.asarray(expected), rtol=1e-12)


def test_a_setting_needs_all_of_its_scores():
  def without_a_cocktail(figure):
    missing = (figure.trained_on, figure.method) == ("xsum_id", "cocktail_adapter")
    return None if missing else figure.value

  assert len(aggregates.settings_of(without_a_cocktail)) == 5
  table = aggregates.table(without_a_cocktail)
  assert "over 5 of the paper's 6 pairs" in table.notes[0]
  assert table.notes[1] == (
    "The paper's two orders: full tuning ahead in distribution in 5 of 5, the light method ahead out of"
    " distribution in 5 of 5; in the printed table full tuning ahead in distribution in 6 of 6, the light method"
    " ahead out of distribution in 6 of 6."
  )
  assert [cell.text() for cell in table.rows[3].cells[1:]] == ["+24.6", "+24"]
  assert aggregates.table(lambda figure: None) is None
  assert {figure.paper for figure in published.figures()} >= {aggregates.PAPER}
