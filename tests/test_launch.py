"""The scripts of launch/: what they refuse, and that they are sound shell."""

import os
import pathlib
import shutil
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    ["bash", str(REPOSITORY / "launch" / script), *arguments],
    capture_output=True,
    text=True,
    timeout=120,
    stdin=subprocess.DEVNULL,
    env={**os.environ, "PROMOT_PYTHON": "false"},  # nothing may be installed by these tests
  )


@pytest.mark.parametrize("where", ["tpu-vm", "queued", "xpk", "slurm"])
def test_cloud_targets_are_refused_with_a_sentence(where):
  done = run("tpu_train.sh", "--gin_file=promot_rte_micro.gin", f"--where={where}")
  assert done.returncode == 2
  assert "comes with a later release" in done.stderr


@pytest.mark.parametrize(
  "arguments", [["--gin_file=a.gin", "--where=mars"], [], ["--gin_file=a.gin", "--spot"]]
)
def test_wrong_flags_end_with_code_2(arguments):
  assert run("tpu_train.sh", *arguments).returncode == 2


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh", "tpu_train.sh"])
def test_help_shows_the_usage(script):
  done = run(script, "--help")
  assert done.returncode == 0
  assert f"launch/{script}" in done.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing():
  scripts = [*(REPOSITORY / "launch").glob("*.sh"), REPOSITORY / ".ci" / "run"]
  done = subprocess.run(
    ["shellcheck", "-x", *map(str, scripts)], capture_output=True, text=True, cwd=REPOSITORY
  )
  assert done.returncode == 0, done.stdout
