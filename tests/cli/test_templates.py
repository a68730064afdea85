"""A data set with templates through every command, with a few steps of the micro model."""

import json

import pytest

from promot_jax.cli.main import main

NAMES = ("Anna", "Tom", "Maria", "Peter", "Lucy")
VERBS = {"managed": "yes", "remembered": "yes", "failed": "no", "forgot": "no"}
TABLE = "premise\thypothesis\tlabel\n" + "".join(
  f"{name} {verb} to sell the car.\t{name} sold the car.\t{label}\n"
  for name in NAMES
  for verb, label in VERBS.items()
)
TEMPLATE = """\
  {name}: !Template
    name: {name}
    jinja: {jinja!r}
    answer_choices: {choices}
"""
TEMPLATES = "templates:\n" + "".join(
  TEMPLATE.format(name=name, jinja=jinja + " ||| {{ answer_choices[label] }}", choices=choices)
  for name, jinja, choices in (
    ("first", "{{premise}} question: {{hypothesis}} answer:", "True ||| False"),
    ("second", "{{premise}} {{hypothesis}} Is it true?", "True ||| False"),
    ("third", "Q: {{hypothesis}} {{premise}} A:", "True ||| False ||| Neither"),
  )
)


def flags(folder, **changes) -> list[str]:
  macros = {
    "DATA_SET_NAME": "own",
    "TRAIN_FILE": str(folder / "train.tsv"),
    "TEMPLATES_FILE": str(folder / "t.yaml"),
    "CLASSES": {"label": ["yes", "no"]},
    "HELD_OUT_TEMPLATES": ["third"],
    "TRAIN_STEPS": 2,
    "EVAL_PERIOD": 2,
    "BATCH_SIZE": 8,
    **changes,
  }
  bound = [f"--gin.{name}={value!r}" for name, value in macros.items()]
  return ["--gin_file=promot_templates_micro.gin", *bound]


def write(folder, templates: str = TEMPLATES, table: str = TABLE) -> None:
  (folder / "t.yaml").write_text(templates)
  (folder / "train.tsv").write_text(table)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """The model directory of a finished run."""
  folder = tmp_path_factory.mktemp("templates")
  write(folder)
  model_dir = folder / "run"
  # One stage, one program to compile.
  recipe = ["promot_templates.gin", "methods/fine_tuning.gin", "micro.gin"]
  given = [*(f"--gin_file={file}" for file in recipe), *flags(folder)[1:]]
  assert main(["train", *given, f"--model_dir={model_dir}", "--quiet"]) == 0
  return model_dir


def test_the_report_has_each_template_and_their_median(run, capsys):
  record = json.loads((run / "evaluation" / "run.json").read_text())
  record = record.get("content", record)
  assert record["trained_on"] == "own" and record["unseen"] == ["own_held_out"]
  assert record["templates"] == {"own": ["own_first", "own_second"], "own_held_out": ["own_third"]}
  assert main(["report", str(run), "--json"]) == 0
  (section,) = json.loads(capsys.readouterr().out)["sections"]
  rows = [row for row in section["figures"] if row["table"].endswith("every task")]
  found = {row["row"]: (row["detail"], row["value"]) for row in rows}
  assert found["own"][0] == "median of 2 templates"
  assert found["own_first"][0] == found["own_second"][0] == "template"
  mean = (found["own_first"][1] + found["own_second"][1]) / 2
  assert found["own"][1] == pytest.approx(mean)
  assert found["own_held_out"][0] == "0-shot accuracy median of 1 template"
  assert found["own_third"][1] == found["own_held_out"][1] == found["Norm. Avg"][1]


def test_answers_are_chosen_among_the_choices_and_results_found_again(run, capsys):
  asked = ["eval", f"--model_dir={run}", "--quiet"]
  assert main([*asked, "--json"]) == 0
  results = {each["task"]: each for each in json.loads(capsys.readouterr().out)}
  assert results["own"]["median_of"] == 2 and results["own_held_out"]["median_of"] == 1
  third = results["own_third"]["settings"]
  assert third["answers"] == "ranked" and list(third["options"]) == ["True", "False", "Neither"]
  assert main([*asked, "--tasks=own"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[2] for line in lines[1:4]] == ["own_first", "own_second", "own"]
  predictions = [
    json.loads(line)["prediction"] for file in run.rglob("own_third*.jsonl") for line in file.open()
  ]
  assert predictions and set(predictions) <= {"True", "False", "Neither"}


def test_inspect_shows_the_templates_and_one_of_them_by_name(tmp_path, capsys):
  write(tmp_path)
  assert main(["inspect", "data", "own_third", *flags(tmp_path), "--n=1"]) == 0
  shown = capsys.readouterr().out
  assert "own_first                        'first': trains, chooses among 'True', 'False'" in shown
  assert "'third': held out" in shown and "\n    Q: " in shown
  assert "own_third, split validation" in shown and "trains\n  targets" not in shown


def test_a_plan_counts_what_is_measured(tmp_path, capsys):
  write(tmp_path)
  assert main(["train", "--dry_run", *flags(tmp_path), f"--model_dir={tmp_path / 'r'}"]) == 0
  shown = capsys.readouterr().out
  assert (
    "3 evaluations of chosen checkpoint: tuned own_first, own_second; 1 unseen tasks x 0 shots"
    in shown
  )
  assert "rows of" in shown and not (tmp_path / "r").exists()


# (templates, table, part of the message)
WRONG = [
  (TEMPLATES.replace("{{", "").replace("}}", ""), TABLE, "template 'first' names no column"),
  (
    TEMPLATES.replace("True ||| False\n", "True |||\n"),
    TABLE,
    "template 'first' has an empty answer",
  ),
  (TEMPLATES.replace("||| {{", "{{"), TABLE, "template 'first' has no '|||'"),
  (TEMPLATES.replace("!Template", "!Other"), TABLE, "t.yaml:2 is no YAML of templates"),
  (TEMPLATES, TABLE.replace("hypothesis\t", "claim\t"), "train.tsv has no column 'hypothesis'"),
  (TEMPLATES, TABLE + "a\tb\tmaybe\n", "train.tsv:22: label 'maybe' is no class"),
  (TEMPLATES.replace("[label]", "[premise]"), TABLE, "train.tsv:2: "),
]


@pytest.mark.parametrize("templates, table, message", WRONG)
def test_what_cannot_be_used_ends_a_run_before_it_starts(
  tmp_path, capsys, templates, table, message
):
  write(tmp_path, templates, table)
  assert main(["train", *flags(tmp_path), f"--model_dir={tmp_path / 'run'}"]) == 65
  printed = capsys.readouterr().err
  assert "ERROR  " in printed and message in printed and "Traceback" not in printed
  assert not (tmp_path / "run" / "stages").exists()
