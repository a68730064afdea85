"""The command line keeps compiled programs between processes, where only the user can reach them."""

import argparse
import os
import stat

import pytest

from promot_jax.cli.main import set_environment


@pytest.fixture
def home(tmp_path, monkeypatch):
  """An empty home, and an environment that says nothing about a cache."""
  monkeypatch.setenv("HOME", str(tmp_path))
  for name in (
    "XDG_CACHE_HOME",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
  ):
    monkeypatch.setenv(name, "")  # recorded, so that it is as before after the test
    monkeypatch.delenv(name)
  return tmp_path


def test_the_cache_is_on_and_private_to_the_user_by_default(home):
  set_environment(argparse.Namespace())
  folder = home / ".cache" / "promot_jax" / "xla"
  assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(folder)
  assert stat.S_IMODE(folder.stat().st_mode) == 0o700
  # JAX would by default keep only what took a second; small models compile faster.
  assert float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) < 1


def test_a_cache_that_the_user_chose_or_switched_off_stays_so(home, monkeypatch):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
  set_environment(argparse.Namespace())
  assert os.environ["JAX_COMPILATION_CACHE_DIR"] == ""
  assert not (home / ".cache").exists()
  chosen = home / "chosen"
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(chosen))
  set_environment(argparse.Namespace())
  assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(chosen) and chosen.is_dir()
