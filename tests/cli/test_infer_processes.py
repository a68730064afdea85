"""Real processes of `promot infer` that want one output, with a stand-in for the model's answers."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
LINES = 300
pytestmark = pytest.mark.slow  # three starts of the command
SLOW_ANSWERS = """
import pathlib, sys, time
from promot_jax.cli.main import main
from promot_jax.inference import answering

def answer(form, model, inputs, *, place, given, first):
  time.sleep(0.2)
  return [(str(len(ids)), -1.0) for ids in inputs]

answering.answer = answer
started = pathlib.Path(sys.argv.pop(1))
started.touch()
while len(list(started.parent.glob("started-*"))) < int(sys.argv[1]):
  time.sleep(0.01)
sys.argv.pop(1)
sys.exit(main())
"""


def start(folder: pathlib.Path, number: int, *, wait_for: int) -> subprocess.Popen:
  """`promot infer` on 300 lines; it begins once as many as are to be waited for are there."""
  script = folder / "slow_answers.py"
  script.write_text(SLOW_ANSWERS)
  environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
  environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "xla")
  return subprocess.Popen(
    [
      *[sys.executable, str(script), str(folder / f"started-{number}"), str(wait_for)],
      *["infer", "--gin_file=promot_rte_micro.gin", f"--model_dir={folder / 'none'}"],
      *["--checkpoint=pretrained", f"--input={folder / 'questions.jsonl'}"],
      *[f"--output={folder / 'answers.jsonl'}", "--gin.experiment.EvaluationPlan.batch_size=1"],
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=environment,
  )


@pytest.fixture
def folder(tmp_path):
  lines = (json.dumps({"inputs": f"question {number}"}) for number in range(LINES))
  (tmp_path / "questions.jsonl").write_text("\n".join(lines) + "\n")
  return tmp_path


def answered(folder: pathlib.Path) -> list[str]:
  content = (folder / "answers.jsonl").read_text()
  assert content.endswith("\n")
  return [json.loads(line)["inputs"] for line in content.split("\n")[:-1]]


ALL = [f"question {number}" for number in range(LINES)]


def test_of_two_at_once_one_answers_and_the_other_is_refused(folder):
  processes = [start(folder, number, wait_for=2) for number in range(2)]
  texts = [process.communicate(timeout=120)[0] for process in processes]
  assert sorted(process.returncode for process in processes) == [0, 77], texts
  (refused,) = [text for process, text in zip(processes, texts) if process.returncode]
  assert "is in use by process" in refused and "Traceback" not in refused
  assert answered(folder) == ALL


def test_the_place_of_one_that_was_killed_is_taken_at_once(folder):
  first = start(folder, 0, wait_for=1)
  output = folder / "answers.jsonl"
  deadline = time.monotonic() + 60
  while not (output.exists() and output.stat().st_size) and time.monotonic() < deadline:
    time.sleep(0.01)
  first.kill()
  first.communicate(timeout=60)
  assert 0 < len(answered(folder)) < LINES
  second = start(folder, 1, wait_for=1)
  text, _ = second.communicate(timeout=120)
  assert second.returncode == 0, text
  assert answered(folder) == ALL
