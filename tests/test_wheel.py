"""A built wheel works outside of the checkout: recipes, tasks and the shipped weights are in it."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow  # builds, installs, and trains a few steps: about two minutes


def run(*command, cwd: pathlib.Path, **environment) -> str:
  """Output of a command that must succeed."""
  result = subprocess.run(
    [str(part) for part in command],
    cwd=cwd,
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("wheel")
  source = folder / "source"
  # A copy, because building leaves build/ and *.egg-info beside the sources.
  files = run("git", "ls-files", "-z", cwd=REPOSITORY).split("\0")
  for name in filter(None, files):
    target = source / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes((REPOSITORY / name).read_bytes())
  run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source, cwd=folder)
  (built,) = folder.glob("*.whl")
  return built


@pytest.fixture(scope="module")
def promot(wheel, tmp_path_factory) -> pathlib.Path:
  """The command of an environment that has the wheel, and our dependencies from this one."""
  home = tmp_path_factory.mktemp("environment")
  venv.create(home, with_pip=False)
  python = home / "bin" / "python"
  run(
    sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, cwd=home
  )
  (packages,) = home.glob("lib/python3*/site-packages")
  ours = sysconfig.get_paths()["purelib"]
  (packages / "dependencies.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
  return home / "bin" / "promot"


def test_every_recipe_and_task_is_in_the_wheel(wheel):
  with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
  recipes = {path.relative_to(REPOSITORY / "gin") for path in (REPOSITORY / "gin").rglob("*.gin")}
  tasks = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "tasks").rglob("*.py")}
  assert recipes and {f"promot_jax/recipes/{path.as_posix()}" for path in recipes} <= names
  assert tasks and {path.as_posix() for path in tasks} <= names


def test_it_trains_outside_of_the_checkout(promot, tmp_path):
  small = [
    "--gin.PROMPT_STEPS=2",
    "--gin.TRAIN_STEPS=2",
    "--gin.experiment.EvaluationPlan.limit=4",
  ]
  run(
    promot,
    "train",
    "--gin_file=promot_rte_micro.gin",
    "--model_dir=run",
    *small,
    cwd=tmp_path,
    JAX_PLATFORMS="cpu",
  )
  assert (tmp_path / "run" / "report.html").is_file()
  (tmp_path / "questions.jsonl").write_text('{"inputs": "Q: what is the sport of Hugo? A:"}\n')
  run(
    promot,
    "infer",
    "--model_dir=run",
    "--input=questions.jsonl",
    "--output=answers.jsonl",
    cwd=tmp_path,
    JAX_PLATFORMS="cpu",
  )
  assert '"prediction"' in (tmp_path / "answers.jsonl").read_text()
