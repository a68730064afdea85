"""Names and texts of others cannot steer the terminal."""

import ast
import io
import json
import logging
import pathlib

import numpy as np
import pytest

from promot_jax.checkpoints import manifest
from promot_jax.cli import answers, screen
from promot_jax.cli.main import main

STEERING = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b1A\u202e"


def is_safe(text: str) -> bool:
  return not set(STEERING) - set(map(chr, range(32, 127))) & set(text)


@pytest.mark.parametrize("kind", ["npz", "step"])
def test_names_in_a_checkpoint_are_shown_and_not_obeyed(tmp_path, capsys, kind):
  path = tmp_path / "file.npz"
  if kind == "npz":
    np.savez(path, **{STEERING: np.ones(2, np.float32)})
  else:
    path = tmp_path / "checkpoint_1"
    path.mkdir()
    table = {STEERING: {"shape": [1], "dtype": STEERING}}
    description = {"format": 1, "metadata": {}, "arrays": table}
    (path / "metadata.json").write_text(json.dumps(description))
    manifest.write(path)
  assert main(["inspect", "checkpoint", str(path)]) == 0
  printed = capsys.readouterr()
  assert "⟨U+001B⟩" in printed.out
  assert is_safe(printed.out) and is_safe(printed.err)


def test_what_the_library_logs_is_shown_so_too(capsys, monkeypatch):
  log = logging.getLogger("promot_jax.checkpoints.huggingface.reader")
  monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as nobody has set up logging
  before = logging.lastResort.formatter
  try:
    screen.show_warnings_so()
    log.warning("tensors %s", STEERING)
  finally:
    logging.lastResort.setFormatter(before)
  printed = capsys.readouterr().err
  assert "tensors ⟨U+001B⟩" in printed and is_safe(printed)


def test_answers_on_a_terminal_are_the_same_json(monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  record = {"prediction": STEERING}
  line = json.dumps(record, ensure_ascii=False) + "\n"
  for stream, safe in ((Terminal(), True), (io.StringIO(), False)):
    monkeypatch.setattr("sys.stdout", stream)
    answers.append(pathlib.Path("-"), line)
    assert json.loads(stream.getvalue()) == record
    assert is_safe(stream.getvalue()) is safe


def test_commands_print_through_it():
  """Where each of them is sure to show no name of somebody else's, `print` is left."""
  left = {"screen.py", "failures.py", "main.py", "cluster.py"}
  for path in pathlib.Path(screen.__file__).parent.glob("*.py"):
    calls = [
      node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    printing = any(isinstance(function, ast.Name) and function.id == "print" for function in calls)
    assert not printing or path.name in left, path.name
