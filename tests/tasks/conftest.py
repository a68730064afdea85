"""The T5 vocabulary for the tests of tasks, and the fakes of this folder."""

import importlib.util
import pathlib
import sys

import pytest


@pytest.fixture(scope="session")
def fakes():
  """tests/tasks/fakes.py, which importlib mode does not put on the path."""
  name = "promot_tests_fakes"
  if name not in sys.modules:
    file = pathlib.Path(__file__).with_name("fakes.py")
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
  return sys.modules[name]


@pytest.fixture
def t5(shared_data, monkeypatch):
  """Points the T5 vocabulary to the real model file; returns the vocabulary."""
  from promot_jax.data import vocabularies

  monkeypatch.setenv("PROMOT_T5_VOCABULARY", str(shared_data / "vocab" / "t5_spiece.model"))
  return vocabularies.open_vocabulary("t5")
