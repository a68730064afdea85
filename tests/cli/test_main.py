"""Exit codes and messages of whole command lines, in this process."""

import json
import pathlib

import pytest

from promot_jax.checkpoints.lease import Lease
from promot_jax.cli.main import main
from promot_jax.experiments import execute
from promot_jax.experiments.reported import Outcome

RECIPE = "--gin_file=promot_rte_micro.gin"
RANDOM = "--gin.INITIAL_CHECKPOINT_PATH='random'"


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))


def test_a_wrong_gin_name_ends_with_code_2_and_writes_nothing(tmp_path, capsys):
  folder = tmp_path / "run"
  assert main(["train", RECIPE, f"--model_dir={folder}", "--gin.TRAIN_STEP=3"]) == 2
  assert "Did you mean 'TRAIN_STEPS'?" in capsys.readouterr().err
  assert not folder.exists()


def test_a_wrong_value_ends_with_code_2_and_writes_nothing(tmp_path, capsys):
  folder = tmp_path / "run"
  assert main(["train", RECIPE, f"--model_dir={folder}", "--gin.BATCH_SIZE=0"]) == 2
  assert "batch_size" in capsys.readouterr().err
  assert not folder.exists()


def test_an_unknown_task_ends_with_code_2_and_names_the_nearest(tmp_path, capsys):
  command = ["train", RECIPE, f"--model_dir={tmp_path / 'run'}"]
  assert main([*command, "--gin.MIXTURE_OR_TASK_NAME='rtee'"]) == 2
  assert "rte" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(tmp_path, capsys):
  folder = tmp_path / "run"
  assert main(["train", RECIPE, f"--model_dir={folder}", "--dry_run"]) == 0
  assert "nothing was written" in capsys.readouterr().out
  assert not folder.exists()


def test_a_path_below_a_file_ends_with_code_73(tmp_path, capsys):
  (tmp_path / "file").write_text("")
  folder = tmp_path / "file" / "run"
  assert main(["train", RECIPE, RANDOM, f"--model_dir={folder}", "--quiet"]) == 73
  assert str(folder) in capsys.readouterr().err


def test_a_directory_in_use_ends_with_code_77(tmp_path, capsys):
  with Lease(tmp_path):
    assert main(["train", RECIPE, RANDOM, f"--model_dir={tmp_path}", "--quiet"]) == 77
  assert "in use by" in capsys.readouterr().err


def test_a_changed_batch_size_is_refused_in_a_started_directory(tmp_path, capsys):
  assert main(["inspect", "config", "promot_rte_micro.gin", "--json"]) == 0
  flat = json.loads(capsys.readouterr().out)
  (tmp_path / "config.flat.txt").write_text("".join(f"{k} = {v}\n" for k, v in flat.items()))
  (tmp_path / "stages" / "prompt" / "checkpoint_50").mkdir(parents=True)
  command = ["train", RECIPE, f"--model_dir={tmp_path}", "--gin.BATCH_SIZE=32"]
  assert main(command) == 2
  assert "64 -> 32" in capsys.readouterr().err


def test_a_report_of_nothing_ends_with_code_65(tmp_path, capsys):
  assert main(["report", str(tmp_path)]) == 65
  assert "ERROR" in capsys.readouterr().err


def test_a_report_leaves_out_what_a_shell_pattern_names_beside_runs(
  tmp_path, capsys, module_of_tests
):
  by_hand = module_of_tests("evaluation/test_report").evaluate_by_hand
  by_hand(tmp_path / "run" / "evaluation", "fine_tuning")
  (tmp_path / "run" / "config.gin").write_text("")
  (tmp_path / "run" / "logs").mkdir()
  (tmp_path / "run" / "latest").symlink_to("nowhere")
  named = sorted(str(path) for path in (tmp_path / "run").iterdir())
  assert main(["report", *named, f"--output={tmp_path / 'out'}", "--quiet"]) == 0
  told = capsys.readouterr().err
  assert "left out, no evaluated model: " in told and "config.gin" in told and "logs" in told
  assert "latest" in told
  assert main(["report", str(tmp_path / "run" / "config.gin")]) == 65
  assert main(["report", str(tmp_path / "run"), str(tmp_path / "rum")]) == 2


def test_records_that_cannot_be_used_are_left_out_where_the_message_says(capsys):
  skip = ["--gin.MALFORMED='skip'", "--gin.EMPTY_TARGETS='keep'"]
  assert main(["inspect", "config", "promot_rte_micro.gin", *skip, "--json"]) == 0
  flat = json.loads(capsys.readouterr().out)
  assert "'skip'" in [
    value for name, value in flat.items() if name.endswith("Experiment.malformed")
  ]


def test_an_unknown_way_with_malformed_records_is_refused(tmp_path, capsys):
  command = ["train", RECIPE, f"--model_dir={tmp_path / 'run'}", "--dry_run"]
  assert main([*command, "--gin.MALFORMED='skipp'"]) == 2
  assert "Experiment.malformed has 'skipp'; it may be 'refuse', 'skip'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval", "infer"])
def test_a_directory_without_a_run_ends_with_code_2(tmp_path, capsys, command):
  questions = tmp_path / "q.jsonl"
  questions.write_text('{"inputs": "Q: who? A:"}\n')
  flags = ["--input", str(questions), "--output", str(tmp_path / "a.jsonl")]
  assert main([command, f"--model_dir={tmp_path}", *(flags if command == "infer" else [])]) == 2
  assert "config.gin" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("line", "words"),
  [("{", "no JSON"), ('{"text": "a"}', "no field 'inputs' (it has: text)"), ("", "no line")],
)
def test_input_that_cannot_be_used_ends_with_code_65(tmp_path, capsys, line, words):
  questions = tmp_path / "q.jsonl"
  questions.write_text(line + "\n")
  flags = ["--input", str(questions), "--output", str(tmp_path / "a.jsonl")]
  assert main(["infer", RECIPE, f"--model_dir={tmp_path}", *flags]) == 65
  assert words in capsys.readouterr().err


def test_a_world_writable_compilation_cache_is_refused(tmp_path, monkeypatch, capsys):
  cache = tmp_path / "open"
  cache.mkdir()
  cache.chmod(0o777)
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
  assert main(["inspect", "config", "promot_rte_micro.gin"]) == 2
  assert "writable by everybody" in capsys.readouterr().err


def test_inspect_config_shows_where_a_macro_was_set(capsys):
  assert main(["inspect", "config", "promot_rte_micro.gin"]) == 0
  out = capsys.readouterr().out
  assert "TRAIN_STEPS = 300" in out
  assert str(pathlib.Path("micro") / "run.gin") in out


def test_a_run_that_measured_nothing_is_no_failure(tmp_path, capsys, monkeypatch):
  def trained(experiment, **_):
    return [Outcome(experiment=experiment, selected="model-300", why="the last one", results=[])]

  monkeypatch.setattr(execute, "execute", trained)
  assert main(["train", RECIPE, f"--model_dir={tmp_path / 'run'}", "--quiet"]) == 0
  assert capsys.readouterr().out == "Nothing was measured\n\npromot: model-300 (the last one)\n"
