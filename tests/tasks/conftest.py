"""The T5 vocabulary for the tests of tasks, and the fakes of this folder."""

import pytest


@pytest.fixture(scope="session")
def fakes(module_of_tests):
  """tests/tasks/fakes.py."""
  return module_of_tests("tasks/fakes")


@pytest.fixture
def t5(shared_data, monkeypatch):
  """Points the T5 vocabulary to the real model file; returns the vocabulary."""
  from promot_jax.data import vocabularies

  monkeypatch.setenv("PROMOT_T5_VOCABULARY", str(shared_data / "vocab" / "t5_spiece.model"))
  return vocabularies.open_vocabulary("t5")
