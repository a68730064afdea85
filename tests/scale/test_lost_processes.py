"""A process that never comes, dies or falls silent: in bounded time, our sentence last, exit 75."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SMALL = """
from __gin__ import dynamic_registration
from promot_jax.experiments import experiment
include 'prompt_tune_rte_micro.gin'
BATCH_SIZE = 4
PROMPT_LENGTH = 5
PROMPT_STEPS = 3000
PROMPT_EVAL_PERIOD = 20
TRAIN_EXAMPLES = 12
VALIDATION_EXAMPLES = 4
MESH_DATA = 2
experiment.EvaluationPlan.limit = 4
"""


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def start(folder: pathlib.Path, number: int, address: str, *flags: str) -> subprocess.Popen:
  recipe = folder / "small.gin"
  recipe.write_text(SMALL)
  environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
  environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
  return subprocess.Popen(
    [
      *[sys.executable, "-m", "promot_jax.cli.main", "train", f"--gin_file={recipe}"],
      *[f"--model_dir={folder / 'run'}", f"--coordinator_address={address}"],
      *["--process_count=2", f"--process_id={number}", *flags],
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=environment,
  )


def worker_of(process: subprocess.Popen) -> int:
  """The process that works for one that waits."""
  children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
  return int(children.read_text().split()[0])


def last_words(text: str) -> str:
  return " ".join(text.strip().splitlines()[-2:])


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_never_comes_is_waited_for_as_long_as_was_said(tmp_path, number):
  address = f"127.0.0.1:{free_port()}"
  process = start(tmp_path, number, address, "--peer_wait_seconds=2")
  text, _ = process.communicate(timeout=90)
  assert process.returncode == 75, text
  words = last_words(text)
  assert f"waited 2 s for process {1 - number} of 2 at {address}" in words
  assert "where nobody listens" in words or number == 0
  assert "--peer_wait_seconds" in words and f"(exit 75, process {number})" in words
  assert not (tmp_path / "run").exists()


def test_a_signal_is_passed_on_to_the_process_that_works(tmp_path):
  process = start(tmp_path, 1, f"127.0.0.1:{free_port()}", "--peer_wait_seconds=60")
  time.sleep(3)
  process.send_signal(signal.SIGTERM)
  text, _ = process.communicate(timeout=60)
  assert process.returncode == 75, text
  assert "SIGTERM" in text and "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_ends_the_other_in_bounded_time(tmp_path, lost, number):
  address = f"127.0.0.1:{free_port()}"
  processes = [start(tmp_path, each, address, "--heartbeat_seconds=10") for each in (0, 1)]
  speaker = processes[0]
  for line in speaker.stdout:
    if "saved step" in line:
      break
  worker = worker_of(processes[lost])
  os.kill(worker, number)
  began = time.monotonic()
  text, _ = processes[1 - lost].communicate(timeout=120)
  assert processes[1 - lost].returncode == 75, text
  assert "same command on all hosts again" in last_words(text), text
  assert time.monotonic() - began < 60
  if number == signal.SIGSTOP:
    os.kill(worker, signal.SIGKILL)
  text, _ = processes[lost].communicate(timeout=60)
  assert processes[lost].returncode == 137, text
  assert "was killed (SIGKILL)" in last_words(text)


@pytest.mark.slow
def test_the_working_process_saves_and_ends_when_the_waiting_one_is_killed(tmp_path):
  address = f"127.0.0.1:{free_port()}"
  processes = [start(tmp_path, each, address) for each in (0, 1)]
  for line in processes[0].stdout:
    if "saved step" in line:
      break
  worker = worker_of(processes[1])
  processes[1].kill()
  text, _ = processes[0].communicate(timeout=120)
  assert processes[0].returncode == 75, text
  assert "Stopped by a signal to another process" in text
  deadline = time.monotonic() + 30
  while pathlib.Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
    time.sleep(0.1)
  assert not pathlib.Path(f"/proc/{worker}").exists()
