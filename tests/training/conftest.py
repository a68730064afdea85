"""The tiny run of tests/builders, for tests of the loop inside one process."""

import types
from collections.abc import Callable

import pytest

import tiny_loop
import tiny_run
from promot_jax.training.choice import StageResult


@pytest.fixture(scope="session")
def tiny() -> types.ModuleType:
  """tests/builders/tiny_run.py as a module."""
  return tiny_run


@pytest.fixture
def run(tmp_path) -> Callable[..., StageResult]:
  """`tiny_loop.train` in the test's own folder, 'run' unless another `folder` is named."""
  return lambda stage, *, folder="run", **given: tiny_loop.train(stage, tmp_path / folder, **given)
