"""`promot infer`: what is read and written, with a stand-in for the model's answers."""

import io
import json
import math
import os
import sys
import threading

import pytest

from promot_jax.checkpoints import sources
from promot_jax.cli.main import main
from promot_jax.experiments import writing
from promot_jax.inference import answering
from promot_jax.token_ids import TokenIds

LONG = "the cat sees the dog . " * 200


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path):
  """Answers are the number of tokens; every second score is NaN."""
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))
  monkeypatch.setattr(
    answering,
    "answer",
    lambda form, model, inputs, *, place, given, first: [
      (str(len(ids)), math.nan if number % 2 else -1.0) for number, ids in enumerate(inputs)
    ],
  )


@pytest.fixture
def infer(tmp_path):
  """Runs the command on lines; gives its exit code and what was written."""

  def run(lines: str, *flags: str, output: str | None = None) -> tuple[int, list[dict]]:
    source = tmp_path / "questions.jsonl"
    source.write_text(lines)
    target = tmp_path / "answers.jsonl"
    code = main(
      [
        "infer",
        "--gin_file=promot_rte_micro.gin",
        f"--model_dir={tmp_path / 'none'}",
        "--checkpoint=pretrained",
        "--quiet",
        f"--output={output or target}",
        *([] if any(flag.startswith("--input") for flag in flags) else [f"--input={source}"]),
        *flags,
      ]
    )
    return code, read(target.read_text()) if target.is_file() else []

  return run


def read(text: str) -> list[dict]:
  def refuse(name):
    raise AssertionError(f"{name} is no JSON")

  return [json.loads(line, parse_constant=refuse) for line in text.split("\n") if line]


def question(text: str, **fields) -> str:
  return json.dumps({"inputs": text, **fields}) + "\n"


def test_a_score_that_is_no_number_is_null(infer):
  code, found = infer(question("a") + question("b\u2028c"))
  assert code == 0
  assert [line["score"] for line in found] == [-1.0, None]
  assert found[1]["inputs"] == "b\u2028c"


def test_a_directory_without_a_trained_step_names_the_pretrained_model(infer, capsys):
  assert infer(question("a"), "--checkpoint=chosen")[0] == 2
  assert "is not complete. Finish it with promot train, or name --checkpoint=pretrained." in (
    capsys.readouterr().err
  )


def test_one_long_line_is_found_and_named_before_the_first_answer(infer, tmp_path, capsys):
  lines = question("a") * 3 + "\n" + question(LONG) + question("b") * 600 + question(LONG)
  code, found = infer(lines)
  assert code == 65 and not found
  error = capsys.readouterr().err
  assert "questions.jsonl:5 has " in error and "Too long: line 5, 606." in error
  assert "--too_long=cut" in error
  assert not (tmp_path / "answers.jsonl.meta.json").exists()


def test_long_lines_are_cut_or_answered_by_null(infer, tmp_path):
  lines = question("a") + question(LONG) + question("b")
  code, found = infer(lines, "--too_long=skip")
  assert code == 0
  assert [line["prediction"] is None for line in found] == [False, True, False]
  assert found[1]["score"] is None and found[1]["inputs"] == LONG
  assert infer(lines, "--too_long=cut")[0] == 2  # the file was begun with other settings
  (tmp_path / "answers.jsonl").unlink()
  code, found = infer(lines, "--too_long=cut")
  assert code == 0 and found[1]["prediction"] == "192"  # what micro.gin allows


def test_a_field_of_the_users_is_not_overwritten(infer, capsys):
  lines = question("a", prediction="mine")
  code, found = infer(lines)
  assert code == 65 and not found
  assert "a field 'prediction' already" in capsys.readouterr().err
  code, found = infer(lines, "--prediction_field=ours", "--score_field=our_score")
  assert code == 0
  assert found == [{"inputs": "a", "prediction": "mine", "ours": "2", "our_score": -1.0}]
  assert infer(question("a"), "--prediction_field=x", "--score_field=x")[0] == 2


def test_answers_go_to_standard_output_alone(infer, capsys, tmp_path):
  code, _ = infer(question("a"), output="-")
  out = capsys.readouterr()
  assert code == 0 and len(read(out.out)) == 1 and "1 lines" in out.err
  assert infer(question("a"), "--json", output="/dev/stdout")[0] == 0
  assert "prediction" in capsys.readouterr().out
  assert {path.name for path in tmp_path.iterdir()} <= {"questions.jsonl", "xla"}


def test_answers_go_through_a_pipe_to_its_end(infer, tmp_path):
  pipe = tmp_path / "pipe"
  os.mkfifo(pipe)
  received = []
  reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
  reader.start()
  code, _ = infer(question("a") * 1600, output=str(pipe))  # more than one write
  reader.join(timeout=30)
  assert code == 0 and len(read(received[0])) == 1600
  assert not list(tmp_path.glob("*.meta.json"))


def test_questions_come_from_standard_input(infer, monkeypatch):
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(question("a").encode())))
  code, found = infer("", "--input=-")
  assert code == 0 and len(found) == 1


def test_bytes_that_are_no_text_end_with_code_65(infer, tmp_path, capsys):
  source = tmp_path / "latin.jsonl"
  source.write_bytes(b'{"inputs": "a"}\n{"inputs": "sch\xf6n"}\n')
  assert infer("", f"--input={source}")[0] == 65
  assert "latin.jsonl:2 is no UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
  "change",
  [
    lambda patch: patch.setattr(sources, "content", lambda text: "b" * 16),
    lambda patch: patch.setattr(
      TokenIds,
      "of",
      lambda model: TokenIds(pad=0, eos=1, decoder_start=0, output_ends=(1, 7)),
    ),
    lambda patch: patch.setattr(writing, "stop", lambda words, tuned: ("\n",)),
  ],
)
def test_other_weights_of_one_name_other_ends_or_stops_do_not_go_on(
  infer, monkeypatch, capsys, change
):
  monkeypatch.setattr(sources, "content", lambda text: "a" * 16)
  assert infer(question("a"))[0] == 0
  assert infer(question("a") + question("b"))[0] == 0
  change(monkeypatch)
  code, lines = infer(question("a") + question("b") + question("c"))
  assert code == 2 and len(lines) == 2
  assert "was begun with other settings" in capsys.readouterr().err


def test_where_answers_end_is_said_and_kept_to(infer, capsys):
  assert infer(question("a"), "--stop=none")[0] == 0
  assert infer(question("a") + question("b"))[0] == 0  # an encoder-decoder's end with eos anyway
  code, lines = infer(question("a") + question("b") + question("c"), "--stop=line")
  assert code == 2 and len(lines) == 2
  assert "was begun with other settings (stop: () -> ('\\n',))" in capsys.readouterr().err


def test_a_table_is_read_by_its_names_end(infer, tmp_path, capsys):
  source = tmp_path / "questions.csv"
  source.write_text('inputs,id\r\n"a, b\nc",7\r\n\r\nd,8\r\n')
  code, found = infer("", f"--input={source}")
  assert code == 0
  assert [(line["inputs"], line["id"]) for line in found] == [("a, b\nc", "7"), ("d", "8")]
  source.write_text("inputs,id\na,1\nb\n")
  assert infer("", f"--input={source}", output=str(tmp_path / "other.jsonl"))[0] == 65
  assert "questions.csv:3 has 1 cell and the first row names 2 columns" in capsys.readouterr().err


def test_one_question_on_the_command_line_is_answered_on_the_screen(stand_in, tmp_path, capsys):
  where = ["--gin_file=promot_rte_micro.gin", f"--model_dir={tmp_path}", "--checkpoint=pretrained"]
  assert main(["infer", *where, "--quiet", "--text", "the cat sees the dog ."]) == 0
  found = read(capsys.readouterr().out)
  assert found == [{"inputs": "the cat sees the dog .", "prediction": "7", "score": -1.0}]
  assert main(["infer", *where, "--text", "a", "--input=q.jsonl"]) == 2
  assert "not allowed with argument --text" in capsys.readouterr().err
