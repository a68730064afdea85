"""The tiny run of tests/builders, for tests of the loop inside one process."""

import types

import pytest

import tiny_run


@pytest.fixture(scope="session")
def tiny() -> types.ModuleType:
  """tests/builders/tiny_run.py as a module."""
  return tiny_run
