"""`promot analyze` from a run of a few steps to files, and what it refuses in one sentence."""

import csv
import json
import pathlib

import pytest

from promot_jax.analyses import gradient_cosine, kl_from_pretrained
from promot_jax.cli import analyze
from promot_jax.cli.main import main
from promot_jax.experiments.restored import Restored
from shipped_recipes import FOLDER, ROOT
from tiny_experiments import short_recipe

SMALL = """
from promot_jax.networks import micro_model

TRAIN_STEPS = 3
EVAL_PERIOD = 1
INITIAL_CHECKPOINT_PATH = 'random'  # one layer, which compiles faster
micro_model.config:
  width = 16
  heads = 2
  head_width = 6
  mlp_width = 24
  encoder_layers = 1
  decoder_layers = 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A fine-tuning of three steps, each of which was kept."""
  folder = tmp_path_factory.mktemp("analyze")
  (folder / "small.gin").write_text(short_recipe("model") + SMALL)
  files = [
    f"--gin_file={name}" for name in ("fine_tune_rte.gin", "micro.gin", folder / "small.gin")
  ]
  assert main(["train", *files, f"--model_dir={folder / 'run'}", "--quiet"]) == 0
  return folder / "run"


def rows(path: pathlib.Path) -> list[dict[str, str]]:
  with path.open() as file:
    return list(csv.DictReader(file))


def test_every_analysis_runs_on_a_run_and_finds_its_figures_again(
  run, tmp_path, monkeypatch, capsys
):
  shared = [str(run), f"--output={tmp_path}", "--quiet"]
  own = {
    "forgetting_curve": ["--gin.STEPS=[0, 1, 3]"],
    "format_share": ["--gin.TASKS=['cb']", "--gin.STEPS=[0, 3]"],
    "trade_off": [],
    "gradient_cosine": ["--gin.EXAMPLES=6", "--gin.EXAMPLES_AT_ONCE=4", "--gin.STEPS=[0, 3]"],
    "kl_from_pretrained": ["--gin.LIMIT=4", "--gin.EXAMPLES_AT_ONCE=4"],
  }
  for name, flags in own.items():
    assert main(["analyze", name, *shared, *flags]) == 0, capsys.readouterr().err
    for kind in ("csv", "json", "png", "svg"):
      assert (tmp_path / f"{name}.{kind}").stat().st_size > 100
  curve = rows(tmp_path / "forgetting_curve.csv")
  assert [(row["step"], row["task"]) for row in curve] == [
    (step, task) for step in ("0", "1", "3") for task in ("rte", "Norm. Avg")
  ]
  assert {row["step"] for row in rows(tmp_path / "trade_off.csv")} == {"0", "1", "2", "3"}
  divergence = rows(tmp_path / "kl_from_pretrained.csv")
  assert float(divergence[0]["divergence"]) == pytest.approx(0, abs=1e-6)
  assert all(float(row["divergence"]) > 1e-4 for row in divergence[1:])
  cosines = rows(tmp_path / "gradient_cosine.csv")
  assert {row["weights"] for row in cosines} == set(gradient_cosine.WEIGHTS)
  assert all(-1 <= float(row["cosine"]) <= 1 for row in cosines)

  before = {path: path.read_bytes() for path in tmp_path.iterdir()}

  def no_model(*_):
    raise AssertionError("a model was restored")

  monkeypatch.setattr(Restored, "model", no_model)
  monkeypatch.setattr(kl_from_pretrained.drift, "divergences", no_model)
  for name, flags in own.items():
    assert main(["analyze", name, *shared, *flags]) == 0
  assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_command_line_is_refused_in_a_sentence_and_nothing_is_written(run, tmp_path, capsys):
  bare = tmp_path / "bare"
  bare.mkdir()
  for flags, code, sentence in (
    (["gradient_cosin", str(run)], 2, "Did you mean 'gradient_cosine'?"),
    (["trade_off", str(tmp_path / "none")], 2, "none' does not exist"),
    (["trade_off", str(bare)], 2, "bare is no model directory"),
    (["trade_off"], 2, "no run is named"),
    (["trade_off", str(run), "--gin.STEP=[0]"], 2, "Did you mean 'STEPS'?"),
    (["trade_off", str(run), "--gin.TASKS=['cb']"], 2, "no gin file of this run has a macro"),
    (["forgetting_curve", str(run), "--gin.TASKS=['cbb']"], 2, "did you mean cb?"),
    (["gradient_cosine", str(run), "--gin.WEIGHTS={'a': 'nothing'}"], 2, "matches none"),
    (["prompt_distances", str(run)], 2, "has trained no method"),
  ):
    assert main(["analyze", *flags, f"--output={tmp_path / 'out'}"]) == code
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error, error
  assert not (tmp_path / "out").exists()
  assert list(bare.iterdir()) == []


def test_every_analysis_has_a_header_and_a_place_on_its_page():
  page = (ROOT / "docs/analyses.md").read_text()
  names = analyze.names(".")
  assert len(names) >= 6
  for name in names:
    text = (FOLDER / f"analyses/{name}.gin").read_text()
    for word in ("# Paper:", "# Command:", "# Hardware:", "# Expected:"):
      assert word in text
    assert f"promot analyze {name}" in text and f"promot analyze {name}" in page


def test_json_on_standard_output_is_what_is_written(run, tmp_path, capsys):
  flags = ["--gin.STEPS=[0, 3]", f"--output={tmp_path}", "--json", "--quiet"]
  assert main(["analyze", "trade_off", str(run), *flags]) == 0
  shown = json.loads(capsys.readouterr().out)
  assert shown == json.loads((tmp_path / "trade_off.json").read_text())
  assert shown["settings"]["steps"] == [0, 3]
