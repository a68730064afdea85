"""The pairs of models that the comparisons with PEFT share."""

import pytest


@pytest.fixture(scope="session")
def peft_pairs(module_of_tests):
  """tests/parity/peft_pairs.py."""
  return module_of_tests("parity/peft_pairs")


@pytest.fixture(scope="session")
def pairs(peft_pairs, tmp_path_factory):
  """The models by kind."""
  return peft_pairs.Pairs(tmp_path_factory.mktemp("peft_pairs"))
