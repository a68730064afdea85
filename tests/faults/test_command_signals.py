"""Signals to real commands, from their first line on: never lost, and the exit code is always ours."""

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
SMALL = """
from __gin__ import dynamic_registration
from promot_jax.experiments import experiment
include 'prompt_tune_rte_micro.gin'
BATCH_SIZE = 4
PROMPT_LENGTH = 5
PROMPT_STEPS = {steps}
PROMPT_EVAL_PERIOD = {steps}
TRAIN_EXAMPLES = 12
VALIDATION_EXAMPLES = 4
experiment.EvaluationPlan:
  unseen = ['cb', 'wic']
  limit = 96
  batch_size = 4
  buckets = 1
"""


class Command:
  """A started `promot` command."""

  def __init__(self, *arguments: str) -> None:
    self.process = subprocess.Popen(
      [sys.executable, "-m", "promot_jax.cli.main", *arguments],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    deadline = time.monotonic() + 30
    while not self._catches() and time.monotonic() < deadline:  # Python itself is still starting
      time.sleep(0.002)

  def _catches(self) -> bool:
    if self.process.poll() is not None:
      return True
    status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
    caught = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)

  def send(self, number: int) -> None:
    self.process.send_signal(number)

  def until(self, pattern: str) -> None:
    for line in self.process.stderr:
      if re.search(pattern, line):
        return
    raise AssertionError(f"no line {pattern!r}")

  def end(self, timeout: float = 120) -> tuple[int, str]:
    out, err = self.process.communicate(timeout=timeout)
    return self.process.returncode, out + err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
  """A model directory of a few steps."""
  folder = tmp_path_factory.mktemp("trained")
  code, text = train(folder, steps=2).end(timeout=600)
  assert code == 0, text
  return folder / "run"


def train(folder: pathlib.Path, *, steps: int = 3000) -> Command:
  recipe = folder / "small.gin"
  recipe.write_text(SMALL.format(steps=steps))
  return Command("train", f"--gin_file={recipe}", f"--model_dir={folder / 'run'}")


def started(command: str, trained: pathlib.Path, folder: pathlib.Path) -> Command:
  if command == "train":
    return train(folder)
  if command == "eval":
    return Command("eval", f"--model_dir={trained}", f"--output={folder / 'scores'}")
  questions = folder / "questions.jsonl"
  questions.write_text('{"inputs": "Q: who? A:"}\n' * 2000)
  flags = [f"--input={questions}", f"--output={folder / 'answers.jsonl'}"]
  return Command("infer", f"--model_dir={trained}", *flags)


def assert_stopped_by_us(command: Command, number: int) -> str:
  code, text = command.end()
  assert code in (75, 0), text  # 0: it had ended before
  assert "Traceback" not in text and "KeyboardInterrupt" not in text, text
  if code:
    assert signal.Signals(number).name in text and "same command" in text, text
  return text


@pytest.mark.parametrize("delay", [0.0, 0.7])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_starting_command_ends_it_at_once(tmp_path, number, delay):
  command = train(tmp_path)
  time.sleep(delay)
  start = time.monotonic()
  command.send(number)
  code, text = command.end(timeout=60)
  assert code == 75, text
  assert f"{number.name}: stopped; there was nothing to save. Repeat the same command" in text
  assert "Traceback" not in text
  assert time.monotonic() - start < 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "eval", "infer"])
def test_thirty_signals_at_random_moments_are_never_lost(trained, tmp_path, kind):
  moments = random.Random(kind)
  for attempt in range(30):
    folder = tmp_path / str(attempt)
    folder.mkdir()
    number = moments.choice([signal.SIGTERM, signal.SIGINT])
    command = started(kind, trained, folder)
    time.sleep(moments.uniform(0.0, 6.0))
    command.send(number)
    assert_stopped_by_us(command, number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_only_shows_ends_as_the_shell_expects(number):
  command = Command("inspect", "model", "--gin_file=promot_rte_micro.gin")
  command.send(number)
  code, text = command.end()
  assert code == 128 + number, text
  assert f"{number.name}: stopped; there was nothing to save (exit {code})" in text
  assert "Traceback" not in text


@pytest.mark.slow
def test_answers_that_were_begun_are_saved_and_a_repeated_command_goes_on(trained, tmp_path):
  command = started("infer", trained, tmp_path)
  command.until(r"\d+/2000 ")
  command.send(signal.SIGINT)
  code, text = command.end()
  assert code == 75, text
  assert "finishing the batch, then saving" in text
  lines = (tmp_path / "answers.jsonl").read_text().splitlines()
  assert 0 < len(lines) < 2000 and all(json.loads(line) for line in lines)
  again = started("infer", trained, tmp_path)
  code, text = again.end(timeout=300)
  assert code == 0 and f"done before {len(lines)} " in text, text
  assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2000


@pytest.mark.slow
def test_a_conversion_that_is_stopped_leaves_nothing(trained, tmp_path):
  ended = set()
  for delay in (0.0, 1.0, 2.0, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0):
    target = tmp_path / "converted"
    command = Command("convert", str(trained), str(target), "--to=hf")
    time.sleep(delay)
    command.send(signal.SIGTERM)
    code, text = command.end()
    ended.add(code)
    assert code in (0, 128 + signal.SIGTERM), text
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left in ([], ["converted"]), left
    if left:
      assert (target / "config.json").is_file()
      break
  assert 128 + signal.SIGTERM in ended
