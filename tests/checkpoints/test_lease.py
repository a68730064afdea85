"""One run at a time holds a model directory."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from promot_jax import errors
from promot_jax.checkpoints.lease import FILE, Lease

HOLDER = """
import sys, time
from promot_jax.checkpoints.lease import Lease
lease = Lease(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def start_holder(directory: pathlib.Path) -> subprocess.Popen:
  repository = pathlib.Path(__file__).resolve().parents[2]
  process = subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(directory)],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": str(repository)},
  )
  assert process.stdout.readline() == "held\n"
  return process


def test_a_directory_held_by_another_process_is_refused_and_taken_over_after_its_death(tmp_path):
  process = start_holder(tmp_path)
  try:
    with pytest.raises(errors.ModelDirInUse, match=f"process {process.pid} on host"):
      Lease(tmp_path)
  finally:
    process.send_signal(signal.SIGKILL)
    process.wait()
  lines = []
  with Lease(tmp_path, report=lines.append):
    assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
  assert len(lines) == 1
  assert f"taken over: process {process.pid} on host" in lines[0]


def test_a_directory_given_back_is_taken_without_a_word(tmp_path):
  Lease(tmp_path / "new").release()
  lines = []
  lease = Lease(tmp_path / "new", report=lines.append)
  assert lines == []
  lease.release()
  lease.release()


def test_two_leases_of_one_process_exclude_each_other(tmp_path):
  with Lease(tmp_path), pytest.raises(errors.ModelDirInUse, match=f"process {os.getpid()} "):
    Lease(tmp_path)


@pytest.mark.parametrize(
  "content",
  [
    "[1, 2",
    "[" * 4000,
    *(
      f'{{"pid": 1, "since": {since}}}'
      for since in ('"today"', "[]", "{}", "NaN", "1e999", "1e300")
    ),
    f'{{"pid": 1, "since": 1{"0" * 400}}}',
  ],
)
def test_an_unreadable_lease_file_is_no_obstacle(tmp_path, content):
  (tmp_path / FILE).write_text(content)
  with Lease(tmp_path):
    # Where it is held, the sentence does without what cannot be told.
    (tmp_path / FILE).write_text(content)
    with pytest.raises(errors.ModelDirInUse, match="is in use by "):
      Lease(tmp_path)


def test_a_directory_below_a_file_cannot_be_leased(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.CannotWrite, match="cannot be used"):
    Lease(tmp_path / "file" / "run")
