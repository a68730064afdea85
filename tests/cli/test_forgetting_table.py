"""The table of what keeps what a model could do, at a few steps: figures of every row beside its scores."""

import json

import pytest

from promot_jax.cli.main import main
from tiny_experiments import short_recipe

pytestmark = pytest.mark.slow  # four rows are trained and measured

ROWS = ["pretrained", "prompt_tuning", "fine_tuning", "sdft", "ensemble"]


def test_rows_have_their_distance_from_the_pretrained_model_which_has_none(tmp_path, capsys):
  small = tmp_path / "small.gin"
  # In order behind the recipe, so that the plan keeps what it asks for beside scores.
  small.write_text(short_recipe("prompt", "model") + "LAMBDAS = [0, 1]\n")
  files = ["comparison_forgetting.gin", "micro.gin", str(small)]
  command = [
    "train",
    *(f"--gin_file={name}" for name in files),
    f"--gin.ROWS={ROWS}",
    f"--model_dir={tmp_path / 'run'}",
    "--quiet",
  ]
  assert main(command) == 0

  def found(row):
    return json.loads((tmp_path / "run" / row / "evaluation" / "run.json").read_text())["drift"]

  start = found("pretrained")["none"]
  assert start["divergence"] == start["reverse"] == 0.0
  # Without its prompt it is the pretrained model.
  assert found("prompt_tuning")["off"] == start
  assert found("prompt_tuning")["on"]["divergence"] > 0
  for row in ("fine_tuning", "sdft", "ensemble"):
    (figures,) = found(row).values()
    assert figures["divergence"] > 0 and figures["perplexity"] != start["perplexity"]
  # A repeated command finds all of it.
  capsys.readouterr()
  assert main(command[:-1]) == 0
  assert "divergence and perplexity of" not in capsys.readouterr().out
  assert "KL from pretrained" in (tmp_path / "run" / "report.md").read_text()
