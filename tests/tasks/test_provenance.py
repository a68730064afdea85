"""A data set is the published one by its name and its size."""

import types

import pytest

from tasks import provenance, sources


@pytest.fixture
def size(monkeypatch):
  def put(examples):
    source = types.SimpleNamespace(num_input_examples=lambda split: examples)
    monkeypatch.setattr(sources, "task_source", lambda task, place, shots: source)

  return put


def test_rte_with_277_examples_is_the_published_one(size):
  size(277)
  found = provenance.data_set("rte")
  assert found.published
  assert str(found) == "super_glue/rte:1.0.2 (277 validation examples)"


def test_own_examples_under_the_published_name_are_not(size):
  size(40)
  assert not provenance.data_set("rte").published


def test_another_data_set_is_not(size, monkeypatch):
  size(277)
  monkeypatch.setenv("PROMOT_TFDS_RTE", "my_set/plain:1.0.0")
  found = provenance.data_set("rte")
  assert (found.name, found.published) == ("my_set/plain:1.0.0", False)


def test_the_version_that_is_offered_today_is(size, monkeypatch):
  size(3003)
  monkeypatch.setenv("PROMOT_TFDS_WMT14_EN_FR", "wmt14_translate/fr-en:1.0.0")
  assert provenance.data_set("wmt14_en_fr").published
