"""`tasks` means our package, whatever else has this name; real processes in real folders."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = "from promot_jax.experiments import experiment; import tasks; print(tasks.__file__)"
DATA = (
  "from promot_jax.data import elements; elements.bind_tasks(['tasks.rte']); import tasks;"
  " print(tasks.__file__)"
)
INSPECT = ["inspect", "data"]


def run(folder: pathlib.Path, *arguments: str, path: str = "", **environment: str):
  given = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder / "cache")}
  given["PYTHONPATH"] = os.pathsep.join([*([path] if path else []), str(REPOSITORY)])
  given.update(environment)
  return subprocess.run(
    [sys.executable, *arguments], cwd=folder, env=given, capture_output=True, text=True, timeout=300
  )


@pytest.fixture
def trap(tmp_path):
  """A folder whose modules have names of ours and of libraries, and leave a trace."""
  trace = tmp_path / "ran"
  code = f"open({str(trace)!r}, 'a').write(__name__ + ' ')\n"
  folder = tmp_path / "work"
  folder.mkdir()
  (folder / "tasks.py").write_text(code)
  yield folder
  assert not trace.exists(), trace.read_text()


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["-m", "promot_jax.cli.main", *INSPECT], "rte"),
    (["-c", LIBRARY], str(REPOSITORY / "tasks")),
    (["-c", DATA], str(REPOSITORY / "tasks")),
  ],
  ids=["module", "library", "data"],
)
@pytest.mark.parametrize("found_by", ["working folder", "PYTHONPATH"])
def test_a_tasks_file_is_never_run_in_place_of_ours(trap, tmp_path, arguments, words, found_by):
  if found_by == "PYTHONPATH":
    done = run(tmp_path, *arguments, path=str(trap))
  else:
    done = run(trap, *arguments)
  assert done.returncode == 0, done.stderr
  assert words in done.stdout


def test_a_tasks_folder_is_never_run_in_place_of_ours(trap, tmp_path):
  (trap / "tasks.py").rename(trap / "__init__.py")
  trap.rename(tmp_path / "tasks")
  done = run(tmp_path, "-m", "promot_jax.cli.main", *INSPECT)
  (tmp_path / "tasks").rename(trap)
  assert done.returncode == 0 and "rte" in done.stdout, done.stderr


def test_the_console_script_in_such_a_folder(trap):
  script = pathlib.Path(trap, "promot")  # as pip writes it
  script.write_text("import sys\nfrom promot_jax.cli.main import main\nsys.exit(main())\n")
  done = run(trap, str(script), *INSPECT)
  assert done.returncode == 0 and "rte" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["gin", "seqio", "optax", "absl", "attr"])
def test_a_file_named_like_a_library_is_not_run_by_the_command(trap, name):
  (trap / "tasks.py").rename(trap / f"{name}.py")
  start = ["-um", "promot_jax.cli.main"] if name == "gin" else ["-m", "promot_jax.cli.main"]
  done = run(trap, *start, "inspect", "config", "promot_rte_micro.gin")
  assert done.returncode == 0, done.stderr


def test_another_tasks_that_was_imported_before_is_named(tmp_path):
  (tmp_path / "tasks.py").write_text("")
  code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tasks; {LIBRARY}"
  done = run(tmp_path, "-c", code)
  assert "another module named 'tasks' was imported before" in done.stderr
  assert str(tmp_path / "tasks.py") in done.stderr


def test_an_installed_copy_finds_its_own_tasks(tmp_path):
  """A wheel's layout: promot_jax and tasks side by side, elsewhere."""
  site = tmp_path / "site"
  site.mkdir()
  for name in ("promot_jax", "tasks"):
    shutil.copytree(REPOSITORY / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
  done = run(tmp_path, "-c", LIBRARY, path=str(site))
  assert done.stdout.strip() == str(site / "tasks" / "__init__.py"), done.stderr


def test_a_users_own_module_in_the_working_folder_can_still_be_allowed(tmp_path):
  (tmp_path / "own_models.py").write_text("def config(width=3):\n  return width\n")
  (tmp_path / "own.gin").write_text(
    "from __gin__ import dynamic_registration\nimport own_models\nEXPERIMENT = @own_models.config()\n"
  )
  flags = ["--gin_file=own.gin", "--gin_allow_imports=own_models"]
  done = run(tmp_path, "-m", "promot_jax.cli.main", "inspect", "model", *flags)
  assert "EXPERIMENT is a int" in done.stderr  # it was made, and is none


@pytest.mark.parametrize(("flags", "stays"), [([], False), (["--gin_allow_imports=own"], True)])
def test_the_working_folder_is_searched_where_own_packages_are_asked_for(monkeypatch, flags, stays):
  """JAX runs what lies in a folder `jax_plugins` on the path, also at its end."""
  from promot_jax import cli

  monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "promot_jax.cli.train", *flags])
  monkeypatch.setattr(sys, "path", ["/some/folder", "/site"])
  cli._working_folder_last()
  assert sys.path == ["/site", *["/some/folder"] * stays]
