"""Fixtures shared by all tests: where real data may lie, and a quiet, cached, CPU-only JAX."""

import functools
import importlib.util
import os
import pathlib
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE / "promot_jax" / "xla_tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import pytest  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """Folder of real data sets and T5X checkpoints that are not part of the repository."""
  folder = pathlib.Path(os.environ.get("PROMOT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
  if not folder.is_dir():
    pytest.skip(f"real data not found at {folder}; set PROMOT_SHARED_DATA to its folder")
  return folder


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Callable[[str], pathlib.Path]:
  """family -> folder of a small tokenizer of that family; see tests/tiny_tokenizers.py."""
  pytest.importorskip("tokenizers")
  file = pathlib.Path(__file__).with_name("tiny_tokenizers.py")
  spec = importlib.util.spec_from_file_location("promot_tests_tiny_tokenizers", file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  root = tmp_path_factory.mktemp("tokenizers")
  return functools.cache(lambda family: module.make(family, root / family))
