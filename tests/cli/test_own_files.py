"""A table of a user's own through every command, with a few steps of the micro model."""

import dataclasses
import json
import re

import pytest

from promot_jax.cli import gin_config
from promot_jax.cli.main import main
from promot_jax.errors import ConfigError
from promot_jax.experiments.comparison import Comparison

VERBS = {"managed": 1, "remembered": 1, "dared": 1, "failed": 0, "forgot": 0, "refused": 0}
NAMES = ("Anna", "Tom", "Maria", "Peter", "Lucy")
TEMPLATE = "{premise} question: {hypothesis} answer:"


def table(separator: str = "\t", names=NAMES) -> str:
  rows = [("premise", "hypothesis", "label")]
  for name in names:
    for verb, label in VERBS.items():
      rows.append((f"{name} {verb} to sell the car.", f"{name} sold the car.", str(label)))
  return "".join(separator.join(row) + "\n" for row in rows)


def flags(folder, **changes) -> list[str]:
  macros = {
    "TRAIN_FILE": str(folder / "train.tsv"),
    "TEMPLATE": TEMPLATE,
    "TARGET": "{label}",
    "LABELS": {"0": "False", "1": "True"},
    "PROMPT_STEPS": 2,
    "PROMPT_EVAL_PERIOD": 2,
    "TRAIN_STEPS": 2,
    "EVAL_PERIOD": 2,
    "BATCH_SIZE": 8,
    **changes,
  }
  bound = [f"--gin.{name}={value!r}" for name, value in macros.items()]
  return ["--gin_file=promot_files_micro.gin", *bound]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """(folder of the tables, model directory of a finished run)."""
  folder = tmp_path_factory.mktemp("own")
  (folder / "train.tsv").write_text(table())
  model_dir = folder / "run"
  assert main(["train", *flags(folder), f"--model_dir={model_dir}", "--quiet"]) == 0
  return folder, model_dir


def test_a_run_trains_scores_and_reports_it(run, capsys):
  folder, model_dir = run
  record = json.loads((model_dir / "evaluation" / "run.json").read_text())
  assert f"the table {folder}/train.tsv (6 validation examples)" in json.dumps(record)
  assert main(["report", str(model_dir), "--json"]) == 0
  shown = capsys.readouterr().out
  assert "files" in shown and "train.tsv" in shown


def test_the_run_is_evaluated_again_with_and_without_the_prompt(run, capsys):
  _, model_dir = run
  assert main(["eval", f"--model_dir={model_dir}", "--quiet", "--json"]) == 0
  capsys.readouterr()
  asked = [f"--model_dir={model_dir}", "--tasks=files,files_1shot", "--prompt=off", "--quiet"]
  assert main(["eval", *asked]) == 0
  assert "files" in capsys.readouterr().out


def test_questions_have_the_columns_of_the_table(run, tmp_path, capsys):
  _, model_dir = run
  source, output = tmp_path / "new.csv", tmp_path / "answers.jsonl"
  source.write_text(table(",", NAMES[:1]).replace("label", "gold"))
  asked = ["infer", f"--model_dir={model_dir}", "--quiet"]
  assert main([*asked, f"--input={source}", f"--output={output}", "--probabilities"]) == 0
  lines = [json.loads(line) for line in output.read_text().splitlines()]
  assert len(lines) == 6 and lines[0]["gold"] == "1" and lines[0]["premise"].startswith("Anna")
  for line in lines:
    shares = line["probabilities"]
    assert list(shares) == ["False", "True"] and sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0
  capsys.readouterr()
  cells = [f"--cell={name}={lines[0][name]}" for name in ("premise", "hypothesis")]
  assert main([*asked, *cells, "--probabilities"]) == 0
  one = json.loads(capsys.readouterr().out)
  assert one["probabilities"]["True"] == pytest.approx(lines[0]["probabilities"]["True"], rel=1e-3)
  assert one["prediction"] == lines[0]["prediction"]
  text = TEMPLATE.format(**lines[0])
  assert main([*asked, "--text", text, "--prompt=on", "--probabilities"]) == 0
  same = json.loads(capsys.readouterr().out)
  assert same["probabilities"]["True"] == pytest.approx(one["probabilities"]["True"], rel=1e-3)


def test_a_question_without_a_column_of_the_template_is_refused(run, capsys):
  _, model_dir = run
  asked = ["infer", f"--model_dir={model_dir}", "--quiet"]
  assert main([*asked, "--cell=premise=Anna sold the car."]) == 65
  assert "has no 'hypothesis', which TEMPLATE=" in capsys.readouterr().err
  assert main([*asked, "--cell=premise"]) == 2
  assert "--cell 'premise=Anna sold the car.'" in capsys.readouterr().err


def test_answers_need_no_training_file(run, capsys):
  folder, model_dir = run
  (folder / "train.tsv").rename(folder / "away.tsv")
  try:
    cells = ["--cell=premise=Anna failed to sell the car.", "--cell=hypothesis=Anna sold the car."]
    assert main(["infer", f"--model_dir={model_dir}", "--quiet", *cells]) == 0
    assert json.loads(capsys.readouterr().out)["prediction"]
  finally:
    (folder / "away.tsv").rename(folder / "train.tsv")


def test_a_changed_table_is_not_trained_on_under_the_same_model_directory(run, capsys):
  folder, model_dir = run
  again = ["train", *flags(folder), f"--model_dir={model_dir}", "--quiet"]
  assert main(again) == 0  # everything is done
  (folder / "train.tsv").write_text(table().replace("Lucy", "David"))
  try:
    assert main(again) == 2
    assert "the training data changed" in capsys.readouterr().err
  finally:
    (folder / "train.tsv").write_text(table())


def test_a_changed_table_is_evaluated_anew(run, capsys):
  folder, model_dir = run
  asked = [
    "eval",
    f"--model_dir={model_dir}",
    "--checkpoint=pretrained",
    "--tasks=files",
    "--quiet",
  ]
  counts = []
  try:
    for names in (NAMES, (*NAMES, "David", "Emma", "Oscar", "Nina", "Felix")):
      (folder / "train.tsv").write_text(table(names=names))
      assert main([*asked, "--json"]) == 0
      counts.append(re.findall(r'"count": (\d+)', capsys.readouterr().out))
  finally:
    (folder / "train.tsv").write_text(table())
  assert counts == [["6"], ["12"]]


def test_inspect_shows_labels_copies_and_what_splits_share(tmp_path, capsys):
  (tmp_path / "train.tsv").write_text(
    table() + "Anna  dared to sell the car.\tAnna sold the car.\t0\n"
  )
  (tmp_path / "v.tsv").write_text(table(names=("Anna", "Xaver")))
  changes = {"VALIDATION_FILE": str(tmp_path / "v.tsv"), "MIXTURE_OR_TASK_NAME": "files_1shot"}
  asked = ["inspect", "data", *flags(tmp_path, **changes), f"--model_dir={tmp_path / 'run'}"]
  assert main([*asked, "--n=1"]) == 0
  shown = capsys.readouterr().out
  assert "files, split train: 31 examples; trains" in shown
  assert "'False' 16, 'True' 15" in shown
  assert f"1 ({tmp_path}/train.tsv:4 and {tmp_path}/train.tsv:32); 1 of them with another" in shown
  assert "files, split validation: 12 examples; chooses the checkpoint and is reported" in shown
  assert f"6 of 12 (50.0 %; {tmp_path}/v.tsv:2 and {tmp_path}/train.tsv:2)" in shown
  assert re.search(r"unknown +1 of \d+ different words, .*: Xaver\n", shown)
  assert "files_1shot.micro, split train, first 1" in shown
  assert main([*asked, "--json"]) == 0
  found = json.loads(capsys.readouterr().out)["files"]
  assert found["train"]["contradicting"] == 1 and found["validation"]["shared"] == {"train": 6}


@pytest.mark.parametrize(
  ("content", "changes", "words"),
  [
    (table() + "one cell\n", {}, "train.tsv:32 has 1 cell and the first row names 3 columns"),
    (table(), {"TEMPLATE": "{text}"}, "has no column 'text', which TEMPLATE='{text}' needs"),
    (table(), {"LABELS": ["1"]}, "train.tsv:5: target '0' is no label; LABELS has: '1'"),
    (table() + "a\tb\t\n", {}, "train.tsv:32: the target is empty"),
    (table().encode() + b"sch\xf6n\tb\t1\n", {}, "train.tsv:32 is no UTF-8: byte 0xf6"),
    (b"PK\x03\x04", {}, "is a zip archive or a spreadsheet"),
    ("", {}, "train.tsv is empty"),
  ],
)
def test_a_file_that_cannot_be_used_is_named_by_line_before_anything_is_written(
  tmp_path, capsys, content, changes, words
):
  file = tmp_path / "train.tsv"
  file.write_bytes(content if isinstance(content, bytes) else content.encode())
  command = ["train", *flags(tmp_path, **changes), f"--model_dir={tmp_path / 'run'}", "--quiet"]
  assert main([*command, "--dry_run"]) == 65
  assert words in capsys.readouterr().err
  assert main(command) == 65
  assert words in capsys.readouterr().err
  assert not list(tmp_path.glob("run/stages/*/checkpoint_*"))


def test_wrong_settings_are_named_by_their_macro(tmp_path, capsys):
  (tmp_path / "train.tsv").write_text(table())
  for change, words in (
    ({"METRIC": "acuracy"}, "METRIC='acuracy': There is no metric"),
    ({"LABELS": "yes"}, "LABELS='yes' must be"),
    ({"VALIDATION_SHARE": 2}, "VALIDATION_SHARE=2 must be between"),
    ({"TRAIN_FILE": str(tmp_path / "none.csv")}, "none.csv cannot be read: No such file"),
    ({"TRAIN_FILE": "https://example.org/t.csv"}, "is a URL"),
    ({"TEMPLATE": "{premise"}, "has a '{' alone at character 1"),
  ):
    command = ["train", *flags(tmp_path, **change), f"--model_dir={tmp_path / 'run'}", "--dry_run"]
    assert main(command) == 2
    assert words in capsys.readouterr().err


def test_two_tables_of_one_name_in_a_comparison_are_refused(tmp_path):
  (tmp_path / "train.tsv").write_text(table())
  (tmp_path / "other.tsv").write_text(table())
  experiments = [
    dataclasses.replace(gin_config.build(gin_config.read(files, bindings)), name=name)
    for name, file in (("a", "train.tsv"), ("b", "other.tsv"))
    for files, bindings in [
      (["promot_files_micro.gin"], [f"TRAIN_FILE = {str(tmp_path / file)!r}"])
    ]
  ]
  with pytest.raises(ConfigError, match="two experiments have different tables under the name"):
    Comparison(model_dir=str(tmp_path), experiments=experiments)
  Comparison(
    model_dir=str(tmp_path),
    experiments=[experiments[0], dataclasses.replace(experiments[0], name="b")],
  )
