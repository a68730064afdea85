"""The scripts of launch/: what they refuse, and that they are sound shell."""

import os
import pathlib
import runpy
import shlex
import shutil
import subprocess
import sys
import types

import pytest

from promot_jax.cli import flags

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def run(
  script: str, *arguments: str, repository: pathlib.Path = REPOSITORY, **environment: str
) -> subprocess.CompletedProcess:
  # Nothing may be installed by these tests: by default the interpreter does nothing.
  variables = {**os.environ, "PROMOT_PYTHON": "false", **environment}
  return subprocess.run(
    ["bash", str(repository / "launch" / script), *arguments],
    capture_output=True,
    text=True,
    timeout=120,
    stdin=subprocess.DEVNULL,
    env=variables,
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
    ["--gin_file=a.gin", "--tpu="],  # an unset variable: not a run on this machine
    ["--gin_file=a.gin", "--model_dir="],
    ["--gin_file="],
    ["--gin_file=a.gin", "--model_dir=/m", "--tpu=slice", "--zone="],
    ["--gin_file=a.gin", "--yes"],
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


def not_installing(monkeypatch, tmp_path):
  """An interpreter that reads flags and would be seen to make an environment, which is not there."""
  python = tmp_path / "python"
  python.write_text(
    f'#!/bin/sh\nif [ "$1" = -m ]; then echo made >{tmp_path}/made; exit 9; fi\n'
    f'exec {sys.executable} "$@"\n'
  )
  python.chmod(0o755)
  monkeypatch.setenv("PROMOT_VENV_ROOT", str(tmp_path / "venvs"))
  monkeypatch.delenv("VIRTUAL_ENV", raising=False)
  return {"PROMOT_PYTHON": str(python)}


@pytest.mark.parametrize("script", ["tpu_train.sh", "quickstart.sh"])
def test_a_misspelt_flag_ends_before_anything_is_installed(script, monkeypatch, tmp_path, gcloud):
  python = not_installing(monkeypatch, tmp_path)
  given = ["--gin_file=promot_rte_micro.gin"] if script == "tpu_train.sh" else []
  for more in ([], ["--tpu=slice", "--model_dir=/m"]) if given else ([],):
    done = run(script, *given, *more, "--sede=3", **python)
    assert done.returncode == 2
    assert "'--sede' is no flag" in done.stderr and "--seed" in done.stderr
  assert not (tmp_path / "made").exists() and not (tmp_path / "venvs").exists() and not gcloud()
  # and a right one comes to the installation, so that the test can fail
  assert run(script, *given, "--seed=3", **python).returncode == 9
  assert (tmp_path / "made").exists()


def test_a_local_dry_run_installs_nothing_and_says_what_would(monkeypatch, tmp_path):
  python = not_installing(monkeypatch, tmp_path)
  done = run(
    "tpu_train.sh", "--gin_file=promot_rte_micro.gin", "--model_dir=~/a b", "--dry_run", **python
  )
  assert done.returncode == 0 and not (tmp_path / "made").exists()
  assert "nothing was installed" in done.stdout and "ensure_python" in done.stdout
  home = os.environ["HOME"]
  assert f"--model_dir={home}/a\\ b" in done.stdout  # the home of this machine
  assert "--dry_run" not in done.stdout.splitlines()[-1]  # what is run without it


def test_a_misspelt_gin_file_is_told_as_a_misspelt_flag():
  done = run("tpu_train.sh", "--gin_fil=promot_rte_micro.gin", PROMOT_PYTHON=sys.executable)
  assert done.returncode == 2 and "Did you mean '--gin_file'?" in done.stderr
  done = run("tpu_train.sh", PROMOT_PYTHON=sys.executable)
  assert done.returncode == 2 and "no --gin_file given" in done.stderr


@pytest.mark.parametrize("folder", ["~", "~/my code"])
def test_the_home_of_a_slice_is_left_to_its_own_shell(gcloud, folder, tmp_path):
  done = run(
    "tpu_train.sh",
    "--gin_file=promot_rte.gin",
    "--model_dir=~/rte",
    "--tpu=slice",
    f"--remote_dir={folder}",
  )
  assert done.returncode == 0, done.stderr
  command = gcloud()[0][-1].removeprefix("--command=")
  (tmp_path / "my code").mkdir()
  shown = subprocess.run(
    ["bash", "-c", command.replace("launch/tpu_train.sh", "pwd; printf '%s\\n'")],
    capture_output=True,
    text=True,
    check=True,
    env={**os.environ, "HOME": str(tmp_path)},
  )
  place, *arguments = shown.stdout.splitlines()
  assert place == str(tmp_path / folder.removeprefix("~").removeprefix("/"))
  assert "--model_dir=~/rte" in arguments  # which the script expands there


@pytest.fixture
def checkout(tmp_path):
  """A small repository with the scripts and one commit."""
  place = tmp_path / "checkout"
  shutil.copytree(REPOSITORY / "launch", place / "launch")
  for command in (
    ["init", "-q"],
    ["add", "-A"],
    ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
  ):
    subprocess.run(["git", "-C", str(place), *command], check=True)
  return place


def test_sync_says_what_is_not_committed_and_goes_on_only_if_told(gcloud, checkout):
  arguments = [*ON_A_SLICE, "--sync"]
  assert run("tpu_train.sh", *arguments, repository=checkout).stderr == ""
  before = len(gcloud())
  assert before == 3
  (checkout / "launch" / "test.sh").write_text("changed")
  (checkout / "new.py").write_text("new")
  done = run("tpu_train.sh", *arguments, repository=checkout)
  assert done.returncode == 2 and len(gcloud()) == before
  assert "2 changed or new files" in done.stderr and "launch/test.sh" in done.stderr
  done = run("tpu_train.sh", *arguments, "--yes", repository=checkout)
  assert done.returncode == 0 and "2 changed or new files" in done.stderr
  assert len(gcloud()) == 2 * before


def test_the_commands_of_all_tables_are_printed_and_each_is_sound():
  done = run("tables.sh", "--dry_run", "--seed=3", "--model_dir=runs/a b")
  assert done.returncode == 0, done.stderr
  *trained, report = map(shlex.split, done.stdout.splitlines())
  assert report == ["promot", "report", "runs/a b", "--output=runs/a b/report"]
  folders = set()
  for command in trained:
    values = flags.parse(command[1:]).values
    assert (values.seed, command[1]) == (3, "train")
    folders.add(values.model_dir)
  assert len(folders) == len(trained) > 30
  # What docs/recipes.md says of each table: a command of ours, or that another one is the same.
  commands = [
    " ".join(command).replace("_micro.gin", ".gin --gin_file=micro.gin") for command in trained
  ]
  for table in runpy.run_path(str(REPOSITORY / "docs/write_recipes.py"))["TABLES"]:
    named = [f"--gin_file={name}" for name in table.files.split()]
    started = [text for text in commands if " ".join([*named, "--gin_file=micro.gin"]) in text]
    same = table.small.startswith("the same model as")
    assert not named or bool(started) != same, table


def test_some_tables_are_asked_for_by_name():
  done = run("tables.sh", "--dry_run", "ablations", "e2e")
  assert [line.split()[2] for line in done.stdout.splitlines()] == [
    "--gin_file=comparison_prefix_e2e_micro.gin",
    "--gin_file=comparison_prefix_ablations_e2e_micro.gin",
    "runs/tables",
  ]
  for wrong, said in (
    ("e2", "'e2' is no table; there are: rte "),
    ("--sede=3", "'--sede=3' is no flag"),
  ):
    done = run("tables.sh", "--dry_run", wrong)
    assert done.returncode == 2 and said in done.stderr


FAKE_PROMOT = """#!/bin/sh
echo "$2" "$3" >>"$PROMOT_LOG"
case $3 in *comparison_rte_micro*) exit "${RTE_CODE:-0}" ;; esac
"""


@pytest.mark.parametrize(("code", "ended", "calls"), [(0, 0, 3), (65, 1, 3), (75, 75, 1)])
def test_a_table_that_fails_leaves_the_others_and_one_that_was_stopped_stops_all(
  tmp_path, code, ended, calls
):
  python = tmp_path / "venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  python.write_text(FAKE_PROMOT)
  python.chmod(0o755)
  settings = {"VIRTUAL_ENV": str(tmp_path / "venv"), "PROMOT_LOG": str(tmp_path / "log")}
  done = run(
    "tables.sh", "snli", "rte", **settings, RTE_CODE=str(code), PROMOT_PYTHON=sys.executable
  )
  assert done.returncode == ended, done.stderr
  lines = [line for line in (tmp_path / "log").read_text().splitlines() if "promot_jax" in line]
  assert len(lines) == calls
  assert ("rte (exit 65)" in done.stderr) == (code == 65)


@pytest.mark.parametrize("script", ["quickstart.sh", "tables.sh", "test.sh", "tpu_train.sh"])
def test_help_shows_the_usage(script):
  done = run(script, "--help")
  assert done.returncode == 0
  assert f"launch/{script}" in done.stdout
  header = (REPOSITORY / "launch" / script).read_text().split("\nset -", 1)[0].splitlines()[1:]
  assert [line.removeprefix("#").removeprefix(" ") for line in header] == done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing():
  scripts = [*(REPOSITORY / "launch").glob("*.sh"), REPOSITORY / ".ci" / "run"]
  done = subprocess.run(
    ["shellcheck", "-x", *map(str, scripts)], capture_output=True, text=True, cwd=REPOSITORY
  )
  assert done.returncode == 0, done.stdout


def test_files_that_take_long_are_begun_first_and_their_tests_stay_in_order(pytestconfig):
  plugins = pytestconfig.pluginmanager.get_plugins()
  (order,) = [plugin for plugin in plugins if hasattr(plugin, "sort_by_length")]
  folder = REPOSITORY / "tests"
  assert [name for name in order.LONG if not (folder / name).is_file()] == []
  names = ["a.py", "b.py", "b.py", order.LONG[0], "c.py", "c.py", "c.py", order.LONG[1]]
  items = [types.SimpleNamespace(path=folder / name, number=n) for n, name in enumerate(names)]
  order.sort_by_length(items)
  assert [item.number for item in items] == [3, 7, 4, 5, 6, 1, 2, 0]
