"""The tiny run of tests/faults, for tests of the loop inside one process."""

import types

import pytest


@pytest.fixture(scope="session")
def tiny(module_of_tests) -> types.ModuleType:
  """tests/faults/tiny_run.py as a module."""
  return module_of_tests("faults/tiny_run")
