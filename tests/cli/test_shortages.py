"""Failures that are no bugs: what the system, Python or XLA refuses becomes a sentence and its code."""

import errno
import os
import pathlib
import resource
import signal
import subprocess
import sys

import pytest

from promot_jax import errors
from promot_jax.cli import failures
from promot_jax.cli.main import main

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
RECIPE = "--gin_file=promot_rte_micro.gin"


def system(number: int, name: str | None = "/x/answers.jsonl") -> OSError:
  return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
  ("error", "kind", "words"),
  [
    (system(errno.ENOSPC), errors.CannotWrite, r"'/x/answers.jsonl' .*No space left.* free\. Make"),
    (system(errno.EDQUOT), errors.CannotWrite, "quota"),
    (system(errno.EROFS), errors.CannotWrite, "Read-only"),
    (system(errno.EACCES), errors.CannotWrite, "Permission denied"),
    (system(errno.EFBIG), errors.CannotWrite, "File too large"),
    (system(errno.EIO), errors.CannotWrite, "Input/output error"),
    (system(errno.ENOSPC, None), errors.CannotWrite, "No space left"),
    (system(errno.ENOTDIR), errors.ConfigError, "Not a directory. Name another path"),
    (system(errno.EISDIR), errors.ConfigError, "Is a directory"),
    (system(errno.ENAMETOOLONG), errors.ConfigError, "File name too long"),
    (system(errno.EMFILE), errors.OutOfResources, "Too many open files; .*ulimit -n"),
    (
      ImportError("libx.so: cannot open shared object file: Too many open files"),
      errors.OutOfResources,
      "Too many open files; .*ulimit -n",
    ),
    (system(errno.ENOMEM), errors.OutOfResources, "memory"),
    (MemoryError(), errors.OutOfResources, r"no memory left .*Lower BATCH_SIZE"),
    (RuntimeError("can't start new thread"), errors.OutOfResources, "thread"),
    (
      RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes"),
      errors.OutOfResources,
      "device is out of memory .*99 bytes.*microbatches",
    ),
    (
      ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"),
      errors.CannotWrite,
      "No space left",
    ),
    (ValueError("embedded null byte"), errors.ConfigError, "null byte"),
  ],
)
def test_what_was_refused_is_told_by_its_kind(error, kind, words):
  found = failures.explained(error)
  assert type(found) is kind
  with pytest.raises(kind, match=words):
    raise found
  wrapped = RuntimeError("a library failed")
  wrapped.__cause__ = error
  assert type(failures.explained(wrapped)) is kind


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), OSError("without a number")])
def test_other_errors_stay_bugs(error):
  assert failures.explained(error) is None


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--seed=4294967296"], "seed=4294967296 must be a whole number from 0 to 4294967295"),
    (["--seed=99999999999999999999999"], "from 0 to 4294967295"),
    (["--seed=-1"], "seed=-1"),
    (
      ["--gin.TRAIN_STEPS=3000000000"],
      "steps=3000000000 must be a whole number from 0 to 2147483647",
    ),
    (["--gin.BATCH_SIZE=10000000000"], "batch_size=10000000000"),
    (["--gin.TRAIN_EXAMPLES=10000000000"], "train_limit=10000000000"),
    (["--process_count=99999999999", "--process_id=0"], "whole number from 1 to"),
    (["--process_id=-3"], "whole number from 0 to"),
    (["--heartbeat_seconds=0"], "whole number from 1 to"),
    (["--peer_wait_seconds=1e3"], "whole number from 1 to"),
    (
      ["--coordinator_address=h:99999", "--process_count=2", "--process_id=1"],
      "a port is a number from 1 to 65535",
    ),
    (["--coordinator_address=h:0", "--process_count=2", "--process_id=0"], "from 1 to 65535"),
    (["--coordinator_address=:80", "--process_count=2", "--process_id=1"], "write HOST:PORT"),
  ],
)
def test_numbers_out_of_range_are_wrong_flags(tmp_path, capsys, flags, words):
  folder = tmp_path / "run"
  assert main(["train", RECIPE, f"--model_dir={folder}", "--dry_run", *flags]) == 2
  error = capsys.readouterr().err
  assert words in error and "bug" not in error
  assert not folder.exists()


@pytest.fixture
def evaluated(tmp_path, module_of_tests):
  by_hand = module_of_tests("evaluation/test_report").evaluate_by_hand
  return by_hand(tmp_path / "run", "fine_tuning")


def command(*arguments: str, limit: tuple[int, int] | None = None, **options):
  def limited() -> None:
    if limit is not None:
      signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
      resource.setrlimit(limit[0], (limit[1], limit[1]))

  return subprocess.Popen(
    [sys.executable, "-m", "promot_jax.cli.main", *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    preexec_fn=limited,
    env={**os.environ, "PYTHONPATH": str(REPOSITORY), **options},
  )


def test_a_reader_that_leaves_is_no_failure(evaluated, tmp_path):
  process = command("report", str(evaluated), f"--output={tmp_path / 'out'}")
  process.stdout.close()  # as `| head` does
  error = process.stderr.read()
  assert process.wait() == 0
  assert "Broken" not in error and "ERROR" not in error and "Exception" not in error


def test_a_file_size_limit_ends_with_code_73_and_no_half_file(evaluated, tmp_path):
  limit = (resource.RLIMIT_FSIZE, 1000)
  process = command("report", str(evaluated), f"--output={tmp_path / 'out'}", limit=limit)
  _, error = process.communicate(timeout=120)
  assert process.returncode == 73, error
  assert "File too large" in error and "bug" not in error
  left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
  assert not any(name.startswith(".") for name in left)


def test_too_little_memory_ends_with_code_71(evaluated, tmp_path):
  size = 10**12  # bytes that no process gets
  code = (
    "import sys\nfrom promot_jax.cli import main, report\n"
    f"report.run = lambda flags: bytearray({size}) and 0\n"
    "sys.exit(main.main())"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, "report", str(evaluated)],
    capture_output=True,
    text=True,
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)),
  )
  assert done.returncode == 71, done.stderr
  assert "There is no memory left" in done.stderr and "bug" not in done.stderr


def test_a_command_that_may_open_no_more_files_says_so_without_opening_one(tmp_path):
  script = f"""
import os, sys
from promot_jax.cli import main, report
def run(flags):
  while True:
    os.open({str(tmp_path)!r}, os.O_RDONLY)
report.run = run
sys.exit(main.main())
"""
  done = subprocess.run(
    [sys.executable, "-c", script, "report", str(tmp_path)],
    capture_output=True,
    text=True,
    cwd=REPOSITORY,
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
  )
  assert done.returncode == 71, done.stderr
  assert done.stderr.startswith("ERROR  The process was refused: Too many open files;")
  assert "ulimit -n" in done.stderr and "Traceback" not in done.stderr
