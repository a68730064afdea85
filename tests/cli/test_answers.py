"""Answers in one file are one model's, to one input, each exactly once."""

import json
import pathlib
import random
import resource
import subprocess
import sys

import pytest

from promot_jax.cli import answers
from promot_jax.cli.main import main
from promot_jax.errors import ConfigError, DamagedCheckpoint, DataError, ModelDirInUse

MADE = answers.made_with({"checkpoint": "model-300", "weights": "micro:1/ab"})


def records(count: int) -> list[dict]:
  return [{"inputs": f"question {number}", "id": number} for number in range(count)]


def answered(output, count: int) -> None:
  assert answers.begin(output, records(count), MADE, whole=True) == 0
  lines = [json.dumps({**r, "prediction": "yes", "score": -0.5}) + "\n" for r in records(count)]
  answers.append(output, "".join(lines))


def test_lines_added_to_the_input_are_answered(tmp_path):
  output = tmp_path / "a.jsonl"
  answered(output, 3)
  assert answers.begin(output, records(5), MADE, whole=True) == 3
  assert answers.begin(output, records(2), MADE, whole=False) == 3  # --limit=2


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_changed_line_is_refused_and_named(tmp_path, place):
  output = tmp_path / "a.jsonl"
  answered(output, 3)
  before = output.read_bytes()
  changed = records(4)
  changed[place]["inputs"] = "another question"
  with pytest.raises(ConfigError, match=f'line {place + 1} answers inputs="question {place}"'):
    answers.begin(output, changed, MADE, whole=True)
  moved = records(4)
  del moved[place]
  with pytest.raises(ConfigError, match=f"line {place + 1} answers"):
    answers.begin(output, moved, MADE, whole=True)
  assert output.read_bytes() == before


def test_a_shorter_input_is_refused(tmp_path):
  output = tmp_path / "a.jsonl"
  answered(output, 3)
  with pytest.raises(ConfigError, match="3 answers, and the input has 2 lines"):
    answers.begin(output, records(2), MADE, whole=True)


def test_another_model_is_refused_and_a_file_of_an_earlier_version_known(tmp_path):
  output = tmp_path / "a.jsonl"
  answered(output, 3)
  other = answers.made_with({"checkpoint": "model-200", "weights": "micro:1/ab"})
  with pytest.raises(ConfigError, match="checkpoint: model-300 -> model-200"):
    answers.begin(output, records(3), other, whole=True)
  meta = tmp_path / "a.jsonl.meta.json"
  meta.write_text(json.dumps({"checkpoint": "model-300"}))  # as 0.1.0 began with
  with pytest.raises(ConfigError, match="checkpoint: model-300 -> model-200"):
    answers.begin(output, records(3), other, whole=True)
  assert answers.begin(output, records(3), MADE, whole=True) == 3


def test_what_earlier_versions_called_otherwise_still_counts(tmp_path):
  output = tmp_path / "a.jsonl"
  before = answers.made_with({"prompt": "attached rte"})
  assert answers.begin(output, records(1), before, whole=True) == 0
  answers.append(output, json.dumps({**records(1)[0], "prediction": "yes", "score": 0.0}) + "\n")
  with pytest.raises(ConfigError, match="method: attached rte -> detached"):
    answers.begin(output, records(1), answers.made_with({"method": "detached"}), whole=True)
  same = answers.made_with({"method": "attached rte"})
  assert answers.begin(output, records(1), same, whole=True) == 1


def test_a_torn_line_is_answered_again(tmp_path):
  output = tmp_path / "a.jsonl"
  answered(output, 3)
  whole = output.read_bytes()
  output.write_bytes(whole[:-5])
  assert answers.begin(output, records(3), MADE, whole=True) == 2
  assert output.read_bytes() == whole[: whole.rfind(b"\n", 0, -1) + 1]


def test_a_damaged_file_beside_the_answers_is_one_sentence_and_the_answers_stay(tmp_path):
  output = tmp_path / "a.jsonl"
  answered(output, 3)
  before, meta = output.read_bytes(), tmp_path / "a.jsonl.meta.json"
  sound = meta.read_bytes()
  random_ = random.Random(3)
  cuts = [sound[:n] for n in random_.sample(range(len(sound) - 1), 20)]
  for content in [b"", b"[]", b"null", b"7", b"\xff\xfe", *cuts]:
    meta.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match="answers are untouched"):
      answers.begin(output, records(3), MADE, whole=True)
    assert output.read_bytes() == before
  meta.write_bytes(sound)
  for line in (b"[]\n", b"7\n", b"{\n", b"\xff\n"):
    output.write_bytes(line + before)
    with pytest.raises(DataError, match="line 1"):
      answers.begin(output, records(4), MADE, whole=True)


def test_two_never_write_one_file_and_others_beside_it_are_free(tmp_path):
  with answers.hold(tmp_path / "a.jsonl"):
    with pytest.raises(ModelDirInUse, match=r"--output=.*a\.jsonl is in use by process"):
      answers.hold(tmp_path / "a.jsonl")
    with answers.hold(tmp_path / "b.jsonl"):
      pass
  with answers.hold(tmp_path / "a.jsonl"):
    pass


@pytest.mark.slow
def test_infer_refuses_an_edited_input_and_goes_on_with_a_longer_one(tmp_path, capsys):
  source, output = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
  flags = ["infer", "--gin_file=prompt_tune_rte_micro.gin", f"--model_dir={tmp_path / 'run'}"]
  flags += ["--checkpoint=pretrained", f"--input={source}", f"--output={output}", "--quiet"]

  def ask(*texts: str) -> int:
    source.write_text("".join(json.dumps({"inputs": text}) + "\n" for text in texts))
    return main(flags)

  assert ask("a bird sings", "a dog runs") == 0
  first = output.read_bytes()
  assert ask("a bird sings", "a cat runs") == 2
  assert "line 2 answers inputs=" in capsys.readouterr().err
  assert output.read_bytes() == first
  assert ask("a bird sings", "a dog runs", "a cat runs") == 0
  assert output.read_bytes().startswith(first) and output.read_bytes().count(b"\n") == 3
  with answers.hold(output):
    assert main(flags) == 77


def test_a_full_disk_leaves_whole_lines_to_which_the_same_command_adds(tmp_path):
  output = tmp_path / "a.jsonl"
  answered(output, 2)
  before = output.read_bytes()
  line = json.dumps({**records(3)[2], "prediction": "x"}) + "\n"
  room = len(before) + len(line) + 7  # of the next line's characters
  script = (
    "import pathlib, sys; from promot_jax.cli import answers, failures\n"
    "try: answers.append(pathlib.Path(sys.argv[1]), sys.argv[2] * 3)\n"
    "except Exception as error: sys.exit(failures.end(error, None, verbose=False))"
  )
  done = subprocess.run(
    [sys.executable, "-c", script, str(output), line],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).resolve().parents[2],
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
  )
  assert done.returncode == 73, done.stderr
  assert f"'{output}' cannot be written: File too large" in done.stderr
  assert output.read_bytes() == before + line.encode()
  assert answers.begin(output, records(5), MADE, whole=True) == 3
