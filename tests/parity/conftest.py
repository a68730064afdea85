"""The pairs of models that the comparisons with PEFT share."""

import importlib.util
import pathlib
import sys

import pytest


@pytest.fixture(scope="session")
def peft_pairs():
  """tests/parity/peft_pairs.py, which importlib mode does not put on the path."""
  name = "promot_tests_peft_pairs"
  if name not in sys.modules:
    file = pathlib.Path(__file__).with_name("peft_pairs.py")
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
  return sys.modules[name]


@pytest.fixture(scope="session")
def pairs(peft_pairs, tmp_path_factory):
  """The models by kind."""
  return peft_pairs.Pairs(tmp_path_factory.mktemp("peft_pairs"))
