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


@pytest.fixture
def original_files(tmp_path):
  """Writes files by their path below a folder; returns the place that tasks read them from."""
  from tasks import catalog

  def write(files):
    for name, content in files.items():
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return catalog.place("files", str(tmp_path))

  return write
