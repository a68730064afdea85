"""What a command says when it ends early: a sentence; tracebacks are for bugs and for --verbose."""

import argparse

import pytest

from promot_jax import errors
from promot_jax.cli import failures
from promot_jax.cli.flags import Flags


@pytest.fixture
def flags(tmp_path):
  values = argparse.Namespace(model_dir=str(tmp_path))
  return Flags(command="train", values=values, gin_files=(), bindings=())


def ended(error, flags, capsys, *, verbose=False):
  try:
    raise error
  except type(error) as raised:
    code = failures.end(raised, flags, verbose=verbose)
  return code, capsys.readouterr().err


@pytest.mark.parametrize(
  "error",
  [
    errors.ConfigError("a wrong flag."),
    errors.DataError("a bad line."),
    errors.CannotWrite("a full disk."),
    errors.DamagedCheckpoint("a flipped bit."),
    errors.Diverged("NaN."),
    errors.ModelDirInUse("another run."),
    errors.Preempted("Stopped by SIGTERM at step 3 of 9."),
  ],
)
def test_a_failure_that_is_no_bug_leaves_no_traceback_and_no_file(error, flags, tmp_path, capsys):
  code, told = ended(error, flags, capsys)
  assert code == error.exit_code
  assert "Traceback" not in told and "traceback" not in told
  assert not list(tmp_path.iterdir())


def test_verbose_shows_the_traceback_and_keeps_it(flags, tmp_path, capsys):
  _, told = ended(errors.DataError("a bad line."), flags, capsys, verbose=True)
  assert "Traceback (most recent call last)" in told
  (log,) = (tmp_path / "logs").iterdir()
  assert "a bad line." in log.read_text() and str(log) in told


def test_a_stop_that_was_asked_for_is_no_error(flags, capsys):
  code, told = ended(errors.Preempted("Stopped by SIGINT at step 3 of 9."), flags, capsys)
  assert code == 75
  assert told.startswith("stopped by SIGINT at step 3 of 9.\n") and "ERROR" not in told


def test_a_bug_keeps_its_traceback_in_the_model_directory(flags, tmp_path, capsys):
  code, told = ended(RuntimeError("odd \x1b[2J"), flags, capsys)
  (log,) = (tmp_path / "logs").iterdir()
  assert code == 1 and "this is a bug" in told and str(log) in told
  assert "\x1b" not in told
