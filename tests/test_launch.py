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


@pytest.mark.parametrize("where", ["queued", "xpk", "slurm"])
def test_targets_that_start_machines_are_refused_with_a_sentence(where):
  done = run("tpu_train.sh", "--gin_file=promot_rte_micro.gin", f"--where={where}")
  assert done.returncode == 2
  assert "comes with a later release" in done.stderr


@pytest.mark.parametrize(
  "arguments",
  [
    ["--gin_file=a.gin", "--where=mars"],
    [],
    ["--gin_file=a.gin", "--spot"],
    ["--gin_file=a.gin", "--where=tpu-vm"],
    ["--gin_file=a.gin", "--tpu=slice"],  # no --model_dir
    ["--gin_file=a.gin", "--model_dir=/m", "--tpu=slice", "--where=local"],
    ["--gin_file=a.gin", "--zone=z"],
    ["--gin_file=a.gin", "--tpu"],
  ],
)
def test_wrong_flags_end_with_code_2(arguments):
  assert run("tpu_train.sh", *arguments).returncode == 2


FAKE_GCLOUD = """#!/usr/bin/env bash
printf '%s\\n' "$@" >>"$GCLOUD_LOG"; echo -- >>"$GCLOUD_LOG"
for argument in "$@"; do
  if [[ $argument == --command=cd* ]]; then exit "${GCLOUD_CODE:-0}"; fi
done
"""


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
  """A gcloud that writes its arguments down; gives a function that reads its calls."""
  program = tmp_path / "bin" / "gcloud"
  program.parent.mkdir()
  program.write_text(FAKE_GCLOUD)
  program.chmod(0o755)
  log = tmp_path / "log"
  monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
  monkeypatch.setenv("GCLOUD_LOG", str(log))

  def calls() -> list[list[str]]:
    if not log.exists():
      return []
    return [call.split("\n")[:-1] for call in log.read_text().split("--\n")[:-1]]

  return calls


ON_A_SLICE = ["--gin_file=promot_rte.gin", "--model_dir=/mnt/rte", "--tpu=slice", "--zone=z"]


def test_a_slice_runs_the_script_on_all_its_hosts_with_the_arguments_as_given(gcloud):
  done = run("tpu_train.sh", *ON_A_SLICE, "--gin.TARGETS='a b'", "--remote_dir=code")
  assert done.returncode == 0, done.stderr
  (call,) = gcloud()
  assert call[:7] == ["compute", "tpus", "tpu-vm", "ssh", "slice", "--zone=z", "--worker=all"]
  (command,) = call[7:]
  # What the hosts' shells make of it.
  text = command.removeprefix("--command=").replace("launch/tpu_train.sh", "printf '%s\\n'")
  shown = subprocess.run(
    ["bash", "-c", text.replace("cd code", "true")], capture_output=True, text=True, check=True
  )
  assert shown.stdout.splitlines() == [
    "--where=local",
    "--gin_file=promot_rte.gin",
    "--model_dir=/mnt/rte",
    "--gin.TARGETS='a b'",
  ]


def test_the_exit_code_is_that_of_the_hosts(gcloud, monkeypatch):
  monkeypatch.setenv("GCLOUD_CODE", "75")
  assert run("tpu_train.sh", *ON_A_SLICE).returncode == 75


def test_a_dry_run_prints_the_commands_and_calls_nothing(gcloud):
  done = run("tpu_train.sh", *ON_A_SLICE, "--sync", "--dry_run")
  assert done.returncode == 0
  lines = done.stdout.splitlines()
  starts = ["git archive", *["gcloud compute tpus tpu-vm"] * 3]
  assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
  assert not gcloud()


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
