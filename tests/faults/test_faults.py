"""Real processes, really killed: nothing committed is lost, and the result keeps its bits."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "tests" / "builders" / "tiny_run.py"


class Run:
  """A started tiny run, its output line by line."""

  def __init__(self, directory: pathlib.Path, *flags: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    self.process = subprocess.Popen(
      [sys.executable, str(SCRIPT), str(directory), *flags],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      env=environment,
    )
    self.lines: list[str] = []

  def until(self, start: str) -> None:
    """Reads to the next line that starts so."""
    for line in self.process.stdout:
      self.lines.append(line.rstrip("\n"))
      if line.startswith(start):
        return
    raise AssertionError(f"no line {start!r} in:\n" + "\n".join(self.lines))

  def send(self, number: int) -> None:
    self.process.send_signal(number)

  def end(self, timeout: float = 120) -> int:
    """Reads the rest and gives the exit code."""
    rest, _ = self.process.communicate(timeout=timeout)
    self.lines += rest.splitlines()
    return self.process.returncode

  @property
  def sha(self) -> str:
    return self.lines[-1].removeprefix("SHA ")

  def batches(self) -> list[int]:
    return [int(line.split()[1]) for line in self.lines if line.startswith("BATCH ")]

  def has(self, text: str) -> bool:
    return any(text in line for line in self.lines)


def finished(directory: pathlib.Path, *flags: str) -> Run:
  run = Run(directory, *flags)
  assert run.end() == 0, "\n".join(run.lines)
  return run


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
  """Digest of all parameters after a run that nothing interrupts."""
  sha = finished(tmp_path_factory.mktemp("reference") / "run").sha
  assert re.fullmatch(r"[0-9a-f]{64}", sha)
  return sha


def kill_until_done(directory: pathlib.Path, seed: int, kills: int, *flags: str) -> Run:
  """Kills the run at random moments after its first batch, then lets it finish."""
  moments = random.Random(seed)
  for _ in range(kills):
    run = Run(directory, *flags)
    try:
      run.until("BATCH ")
    except AssertionError:
      break  # it finished
    time.sleep(moments.uniform(0.0, 0.8))
    run.send(signal.SIGKILL)
    assert run.end() in (-signal.SIGKILL, 0)
  return finished(directory, *flags)


def test_kill_9_at_random_moments_changes_no_bit(tmp_path, reference):
  run = kill_until_done(tmp_path, 1, 2)
  assert run.sha == reference
  assert run.has("taken over")  # the lease of the killed run


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_kills_at_random_moments_change_no_bit(tmp_path, reference, seed):
  run = kill_until_done(tmp_path, seed, 10, "--step_seconds", "0.01")
  assert run.sha == reference
  steps = [
    (record["stage"], record["kind"], record["step"])
    for record in map(json.loads, (tmp_path / "metrics.jsonl").open())
  ]
  assert len(steps) == len(set(steps))


@pytest.mark.slow
def test_kills_during_background_saves_change_no_bit(tmp_path):
  flags = ("--hidden", "100000", "--background_bytes", "0", "--steps", "20")
  wanted = finished(tmp_path / "reference", *flags).sha
  run = kill_until_done(tmp_path / "run", 5, 8, *flags)
  assert run.sha == wanted


def test_sigterm_finishes_the_step_and_loses_none(tmp_path, reference):
  run = Run(tmp_path, "--step_seconds", "0.05")
  run.until("BATCH 13")
  run.send(signal.SIGTERM)
  start = time.monotonic()
  assert run.end() == 75
  assert time.monotonic() - start < 15
  assert run.has("SIGTERM: finishing the step, then saving")
  assert run.lines[-1].startswith("Preempted: Stopped by SIGTERM at step ")
  stopped = int(run.lines[-1].split("at step ")[1].split()[0])
  assert run.has(f"saved step {stopped} ")
  again = finished(tmp_path)
  assert again.has(f"resumed from step {stopped} of 40")
  assert again.batches()[0] == stopped
  assert again.sha == reference
  assert not again.has("taken over")  # the lease was given back


def test_sigterm_before_the_first_step_ends_at_once(tmp_path):
  run = Run(tmp_path, "--step_seconds", "60")
  run.until("stage 'prompt': starting")
  time.sleep(0.3)
  run.send(signal.SIGTERM)
  start = time.monotonic()
  assert run.end() == 75
  assert time.monotonic() - start < 5
  assert run.has("SIGTERM: stopped; there was nothing to save")


def test_sigterm_during_validation_ends_at_once_and_repeats_only_the_validation(
  tmp_path, reference
):
  run = Run(tmp_path, "--validation_seconds", "60")
  run.until("VALIDATING")
  run.send(signal.SIGTERM)
  start = time.monotonic()
  assert run.end() == 75
  assert time.monotonic() - start < 5
  again = finished(tmp_path)
  assert again.has("prompt validation at step 10: error ")
  assert again.batches()[0] == 10
  assert again.sha == reference


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once_and_tears_nothing(tmp_path, reference):
  run = Run(tmp_path, "--step_seconds", "3")
  run.until("BATCH 3")
  run.send(signal.SIGINT)
  run.until("SIGINT: finishing the step")
  run.send(signal.SIGINT)
  start = time.monotonic()
  assert run.end() == 128 + signal.SIGINT
  assert time.monotonic() - start < 5
  assert run.has("second signal (SIGINT): stopping at once")
  assert finished(tmp_path).sha == reference


def test_the_second_run_in_a_directory_is_refused_and_the_first_unhurt(tmp_path, reference):
  first = Run(tmp_path, "--step_seconds", "0.1")
  first.until("BATCH 3")
  second = Run(tmp_path)
  assert second.end() == 77
  assert second.has(f"in use by process {first.process.pid} on host")
  assert not second.batches()
  assert first.end() == 0
  assert first.sha == reference


def stop_at(directory: pathlib.Path, batch: int) -> None:
  run = Run(directory, "--step_seconds", "0.02")
  run.until(f"BATCH {batch}")
  run.send(signal.SIGKILL)
  run.end()


def largest_file(directory: pathlib.Path) -> pathlib.Path:
  files = [path for path in (directory / "arrays").rglob("*") if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def steps_in(directory: pathlib.Path) -> list[int]:
  names = [re.fullmatch(r"checkpoint_(\d+)", path.name) for path in directory.iterdir()]
  return sorted(int(name[1]) for name in names if name)


def damage(directory: pathlib.Path) -> None:
  path = largest_file(directory)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def test_a_flipped_bit_is_detected_and_the_older_step_used(tmp_path, reference):
  stop_at(tmp_path, 28)
  steps = steps_in(tmp_path / "prompt")
  damage(tmp_path / "prompt" / f"checkpoint_{steps[-1]}")
  run = finished(tmp_path)
  assert run.has(f"checkpoint_{steps[-1]} is damaged")
  assert run.has(f"using step {steps[-2]} instead")
  assert run.has(f"resumed from step {steps[-2]} of 40")
  assert run.sha == reference


def test_all_checkpoints_damaged_ends_with_code_74_and_never_starts_anew(tmp_path):
  stop_at(tmp_path, 18)
  steps = steps_in(tmp_path / "prompt")
  for step in steps:
    damage(tmp_path / "prompt" / f"checkpoint_{step}")
  for _ in range(2):
    run = Run(tmp_path)
    assert run.end() == 74
    assert run.has("No sound checkpoint is left")
    assert not run.batches()
  assert steps_in(tmp_path / "prompt") == steps


def test_a_crash_between_stages_never_trains_the_prompt_again(tmp_path, reference):
  run = Run(tmp_path, "--die_between_stages")
  assert run.end() == 1
  again = finished(tmp_path)
  assert again.lines[0].startswith("stage 'prompt' was complete: step 10 of 40 is used")
  assert again.batches() == list(range(40))  # of the second stage
  assert again.sha == reference


def test_a_nan_ends_with_code_76_again_and_again(tmp_path):
  for attempt in range(2):
    run = Run(tmp_path, "--poison", "12")
    assert run.end() == 76
    assert run.lines[-1].startswith(
      "Diverged: loss and grad_norm became NaN or infinite at step 13"
    )
    assert run.has("resumed from step 12") == (attempt == 1)
  assert (tmp_path / "prompt" / "diverged_step_13.npz").is_file()


def test_a_path_below_a_file_ends_with_code_73_before_any_data(tmp_path):
  (tmp_path / "file").write_text("")
  run = Run(tmp_path / "file" / "run")
  assert run.end() == 73
  assert not run.batches()


@pytest.mark.slow
def test_a_full_disk_ends_with_code_73_and_goes_on_when_there_is_space(tmp_path):
  flags = ("--hidden", "20000", "--steps", "20")
  disk = tmp_path / "disk"
  disk.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("mounting a small file system needs root")
  try:
    run = Run(disk, *flags)
    assert run.end() == 73, "\n".join(run.lines)
    last = re.search(r"Last good step: (\d+)", run.lines[-1])
    assert last, run.lines[-1]
    assert "No space left on device" in run.lines[-1]
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    again = finished(disk, *flags)
    assert again.has(f"resumed from step {last[1]} of 20")
    assert again.sha == finished(tmp_path / "reference", *flags).sha
  finally:
    subprocess.run(["umount", str(disk)], check=True)
