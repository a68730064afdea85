"""`promot train` with several seeds and several values of settings."""

import csv
import pathlib

import pytest

from promot_jax import errors
from promot_jax.cli import config_record, gin_config
from promot_jax.cli.main import main
from tiny_experiments import short_recipe

SMALL = """
from promot_jax.networks import micro_model

SEEDS = [1, 2]
AXES = {'fine_tuning': {'TRAIN_STEPS': [2]}}
ROWS = ['fine_tuning']
EVAL_PERIOD = 1
INITIAL_CHECKPOINT_PATH = 'random'
micro_model.config:
  width = 16
  heads = 2
  head_width = 6
  mlp_width = 24
  encoder_layers = 1
  decoder_layers = 1
"""


@pytest.fixture
def files(tmp_path):
  (tmp_path / "small.gin").write_text(short_recipe("model") + SMALL)
  return ["quickstart.gin", str(tmp_path / "small.gin")]


def test_each_seed_has_its_folder_each_value_its_row_and_all_one_report(files, tmp_path, capsys):
  command = ["train", *(f"--gin_file={file}" for file in files), f"--model_dir={tmp_path / 'all'}"]
  assert main([*command, "--dry_run"]) == 0
  assert "each of 1, 2, in folders seed_N" in capsys.readouterr().out
  assert main([*command, "--quiet"]) == 0
  said = capsys.readouterr().out
  assert "fine_tuning-train_steps-2, seed 2: model-" in said
  places = sorted(
    str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("run.json")
  )
  assert places == [f"seed_{seed}/fine_tuning-train_steps-2/evaluation/run.json" for seed in (1, 2)]
  with (tmp_path / "all" / "report.csv").open() as file:
    rows = list(csv.DictReader(file))
  name = "Standard fine-tuning (train steps 2)"
  assert {row["runs"] for row in rows if name in (row["row"], row["method"]) and row["runs"]} == {
    "2"
  }
  # What a seed was run with is kept in its folder, and `promot eval` finds a point there.
  kept = gin_config.build(config_record.read(tmp_path / "all" / "seed_2", []))
  assert [(row.name, row.seed) for row in kept.experiments] == [("fine_tuning-train_steps-2", 2)]
  point = tmp_path / "all" / "seed_1" / "fine_tuning-train_steps-2"
  assert main(["eval", f"--model_dir={point}", "--tasks=rte", "--limit=4", "--quiet"]) == 0


@pytest.mark.parametrize(
  ("flag", "told"),
  [
    ("--seeds=1,1", "different whole numbers"),
    ("--seeds=1,b", "'b' must be a whole number"),
    ("--seeds=1,2 --seed=3", "--seed=3 and --seeds=1,2 say both"),
    ("--gin.SEEDS=[]", "different whole numbers"),
    ("--gin.SEEDS=[1.5]", "different whole numbers"),
    ("--gin.AXES={'fine_tuning': {'LEARNING_RAT': [1]}}", "Did you mean 'LEARNING_RATE'?"),
    ("--gin.AXES={'fine_tuning': {'MODEL_DIRECTORY': [1]}}", "nothing in this run uses"),
  ],
)
def test_wrong_seeds_and_settings_are_one_sentence(flag, told, capsys):
  words = [flag] if "{" in flag else flag.split()
  assert (
    main(["train", "--gin_file=quickstart.gin", *words, "--dry_run"])
    == errors.ConfigError.exit_code
  )
  said = capsys.readouterr().err
  assert told in said and len(said.strip().splitlines()) == 2  # the sentence and the exit code


def test_the_texts_that_are_kept_are_those_of_the_comparison_itself(files):
  scanned = gin_config.read(files, [])
  gin_config.build(scanned)
  config, _ = gin_config.texts()
  assert "TRAIN_STEPS = 3" in config and pathlib.Path(files[1]).is_file()
