"""Fixtures shared by all tests: where real data may lie, and a quiet, cached, CPU-only JAX."""

import collections
import functools
import importlib.util
import os
import pathlib
import sys
import types
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE / "promot_jax" / "xla_tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import pytest  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
LONG = (
  "scale/test_two_processes.py",
  "cli/test_own_tokenizer.py",
  "cli/test_analyze.py",
  "cli/test_config_record.py",
  "faults/test_faults.py",
  "test_nnx_contract.py",
)
"""Files with few tests that take long."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
  """Where several processes share the tests (launch/test.sh), the long files come first, and then those
  with many tests: one that is begun last keeps a process busy while the others have nothing left."""
  if hasattr(config, "workerinput"):
    sort_by_length(items)


def sort_by_length(items: list[pytest.Item]) -> None:
  """In place; tests of a file stay together and in their order."""
  long = {REPOSITORY / "tests" / name for name in LONG}
  tests = collections.Counter(item.path for item in items)
  items.sort(key=lambda item: (item.path not in long, -tests[item.path]))


@pytest.fixture(scope="module", autouse=True)
def forget_compiled():
  """Drops what a file's tests compiled.

  Each executable holds several memory maps, of which Linux allows a process 65,530; the process that
  runs every test ended in a segmentation fault before its last file.
  """
  yield
  import jax

  jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def forget_tasks():
  """Drops the tasks that a file's tests made findable: users' tables, which later files know nothing of."""
  yield
  if catalog := sys.modules.get("tasks.catalog"):
    catalog._added.clear()
    catalog._added_mixtures.clear()


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """Folder of real data sets and T5X checkpoints that are not part of the repository."""
  folder = pathlib.Path(os.environ.get("PROMOT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
  if not folder.is_dir():
    pytest.skip(f"real data not found at {folder}; set PROMOT_SHARED_DATA to its folder")
  return folder


@pytest.fixture(scope="session")
def module_of_tests() -> Callable[[str], types.ModuleType]:
  """'tasks/fakes' -> tests/tasks/fakes.py, loaded once; importlib mode does not put it on the path."""

  @functools.cache
  def load(path: str) -> types.ModuleType:
    name = "promot_tests_" + path.replace("/", "_")
    file = REPOSITORY / "tests" / f"{path}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module

  return load


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Callable[[str], pathlib.Path]:
  """family -> folder of a small tokenizer of that family; see tests/builders/tiny_tokenizers.py."""
  pytest.importorskip("tokenizers")
  import tiny_tokenizers

  root = tmp_path_factory.mktemp("tokenizers")
  return functools.cache(lambda family: tiny_tokenizers.make(family, root / family))


@pytest.fixture(scope="session", params=["prompt_t5_1_1_tiny", "t5_1_1_tiny", "t5_1_1_tiny_bf16"])
def written_by_t5x(request, shared_data):
  """(a model with the weights of a T5X checkpoint, what T5X computed with them by name)."""
  import numpy as np
  from flax import nnx

  import tiny_models
  from promot_jax.checkpoints import restore, t5x
  from promot_jax.methods.prompt import SoftPrompt
  from promot_jax.models import T5

  folder = shared_data / "t5x_checkpoint" / request.param
  config = tiny_models.config("t5", **tiny_models.T5X_SIZES[request.param])
  model = nnx.eval_shape(lambda: T5(config, nnx.Rngs(0)))
  leaves = t5x.open_t5x(folder / "legacy")
  if request.param.startswith("prompt"):
    model = nnx.eval_shape(lambda: SoftPrompt(length=5).attach(model, nnx.Rngs(0)))
  with np.load(folder / "expected_io.npz") as file:
    return restore.restore_into(model, leaves), {name: file[name] for name in file.files}
