"""Distances between prompts against numpy, and what a file or a run is labelled."""

import numpy as np
import pytest

from promot_jax.analyses.prompt_distances import Prompt, PromptDistances, distances
from promot_jax.errors import ConfigError, DataError


def prompts():
  draw = np.random.default_rng(0).normal
  places = (("rte", "a"), ("rte", "a"), ("rte", "b"), ("cb", "a"), ("cb", "c"))
  return [
    Prompt(data_set=data_set, template=template, name=str(number), values=draw(size=(3, 4)))
    for number, (data_set, template) in enumerate(places)
  ]


def apart(one, other):
  one, other = one.values.ravel(), other.values.ravel()
  return 1 - (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())


def test_pairs_are_told_apart_by_template_and_data_set():
  every = prompts()
  rows = {row.relation: row for row in distances(every)}
  expected = {
    "same template": [(0, 1)],
    "same data set": [(0, 2), (1, 2), (3, 4)],
    "different data sets": [(i, j) for i in (0, 1, 2) for j in (3, 4)],
  }
  for relation, pairs in expected.items():
    own = [apart(every[i], every[j]) for i, j in pairs]
    row = rows[relation]
    assert row.pairs == len(pairs)
    assert row.mean == pytest.approx(np.mean(own))
    assert (row.smallest, row.largest) == pytest.approx((min(own), max(own)))


def test_a_relation_that_no_pair_has_is_no_row_and_a_copy_has_no_distance():
  first = prompts()[0]
  (row,) = distances([first, first])
  assert (row.relation, row.pairs) == ("same template", 1)
  assert row.mean == pytest.approx(0, abs=1e-12)


def test_prompts_that_cannot_be_compared_are_refused():
  first, second, *_ = prompts()
  with pytest.raises(DataError, match="1 prompt has no distance"):
    distances([first])
  longer = Prompt(data_set="rte", template="a", name="longer", values=np.ones((5, 4)))
  with pytest.raises(ConfigError, match="0 has 12 values and longer 20"):
    distances([first, longer])
  nothing = Prompt(data_set="rte", template="a", name="nothing", values=np.zeros((3, 4)))
  with pytest.raises(ConfigError, match="nothing is zero"):
    distances([second, nothing])


def test_files_of_prompts_are_labelled_by_the_setting_or_by_their_names(tmp_path):
  paths = [tmp_path / f"{name}.npy" for name in ("one", "two", "bank")]
  for path, shape in zip(paths, [(3, 4), (3, 4), (2, 3, 4)]):
    np.save(path, np.random.default_rng(len(str(path))).normal(size=shape).astype(np.float32))
  found = PromptDistances()(paths)
  assert [(row.relation, row.pairs) for row in found.rows] == [("different data sets", 6)]
  labels = {str(paths[0]): "rte/a", str(paths[1]): "rte/a", str(paths[2]): ["rte/b", "cb"]}
  found = PromptDistances(labels=labels)(paths)
  assert [row.pairs for row in found.rows] == [1, 2, 3]
  with pytest.raises(ConfigError, match="has 2 rows; give one each"):
    PromptDistances(labels={str(paths[2]): ["rte"]})(paths)
  with pytest.raises(ConfigError, match="none of the named files"):
    PromptDistances(labels={"three.npy": "rte"})(paths)
  with pytest.raises(ConfigError, match="no prompt is named"):
    PromptDistances()([])
