"""The tiny run of tests/faults, for tests of the loop inside one process."""

import importlib.util
import pathlib
import types

import pytest


@pytest.fixture(scope="session")
def tiny() -> types.ModuleType:
  """tests/faults/tiny_run.py as a module."""
  path = pathlib.Path(__file__).resolve().parents[1] / "faults" / "tiny_run.py"
  spec = importlib.util.spec_from_file_location("tiny_run", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
