"""`promot harness`: a task file of a user's own through lm-evaluation-harness, without a hub."""

import json
import sys

import pytest

from promot_jax.cli.main import main

CHOICE = """\
task: sports
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["football", "chess"]
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""
WRITTEN = """\
task: written_sports
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 4
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: exact_match
"""


@pytest.fixture
def harness(tmp_path, monkeypatch):
  """Runs the command on the two tasks' folder."""
  pytest.importorskip("lm_eval", reason="needs the [lm_eval] extra")
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))
  monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
  data = tmp_path / "questions.jsonl"
  # What the built-in world knows (docs/guide.md), and a wrong answer.
  questions = [("Q: what is the sport of Hugo? A:", "football")] * 2
  questions += [("Q: what is the sport of Hugo? A:", "chess")]
  data.write_text(
    "".join(json.dumps({"question": text, "answer": answer}) + "\n" for text, answer in questions)
  )
  folder = tmp_path / "tasks"
  folder.mkdir()
  for name, text in (("sports", CHOICE), ("written_sports", WRITTEN)):
    (folder / f"{name}.yaml").write_text(text.format(data=data))

  def run(*flags: str) -> int:
    command = ["harness", "--gin_file=promot_rte_micro.gin", "--checkpoint=pretrained", "--quiet"]
    return main([*command, f"--model_dir={tmp_path / 'run'}", f"--include_path={folder}", *flags])

  return run


def test_a_local_task_is_scored_by_choice_and_by_generation(harness, tmp_path, capsys):
  output = tmp_path / "scores.json"
  assert harness("--tasks=sports,written_sports", f"--output={output}") == 0
  assert "written_sports" in capsys.readouterr().out
  found = json.loads(output.read_text())
  assert found["results"]["sports"]["acc,none"] == pytest.approx(2 / 3)
  assert found["results"]["written_sports"]["exact_match,none"] == pytest.approx(2 / 3)
  assert found["config"]["model_args"]["checkpoint"] == "pretrained"
  assert not (tmp_path / "run").exists()
  assert harness("--tasks=sports", f"--output={output}") == 2
  assert "exists; choose another file" in capsys.readouterr().err


def test_what_cannot_be_scored_is_one_sentence(harness, tmp_path, capsys):
  assert harness("--tasks=sprots") == 2
  assert "lm_eval has no task sprots" in capsys.readouterr().err
  (tmp_path / "questions.jsonl").unlink()
  assert harness("--tasks=sports") == 65
  assert "cannot read the data of sports" in capsys.readouterr().err


def test_without_the_package_the_command_says_how_to_have_it(tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, "lm_eval", None)
  monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
  assert main(["harness", f"--model_dir={tmp_path}", "--tasks=sports"]) == 2
  assert "pip install 'promot_jax[lm_eval]'" in capsys.readouterr().err
