"""What a model directory says about how it was started: the truth, whole, and with its history."""

import functools
import json

import pytest

from promot_jax.checkpoints.lease import Lease
from promot_jax.cli import config_record, gin_config
from promot_jax.cli.main import main
from promot_jax.errors import CannotWrite, ConfigError

FILES = (config_record.GIN, config_record.OPERATIVE, config_record.FLAT)
SMALL = {
  "PROMPT_STEPS": 2,
  "PROMPT_EVAL_PERIOD": 2,
  "BATCH_SIZE": 4,
  "PROMPT_LENGTH": 3,
  "TRAIN_EXAMPLES": 8,
  "VALIDATION_EXAMPLES": 4,
  "INITIAL_CHECKPOINT_PATH": "'random'",
  "experiment.EvaluationPlan.unseen": "['cb']",
  "experiment.EvaluationPlan.limit": 2,
  # One layer of each, which compiles in a fraction of the time.
  "micro_model.config.encoder_layers": 1,
  "micro_model.config.decoder_layers": 1,
  "micro_model.config.width": 16,
  "micro_model.config.heads": 2,
  "micro_model.config.head_width": 6,
  "micro_model.config.mlp_width": 24,
}


def train(folder, recipe="prompt_tune_rte_micro.gin", **changes) -> list[str]:
  # One stage, unless a test is of two: another one takes as long to compile.
  settings = {**SMALL, **changes}
  bindings = [f"--gin.{name}={value}" for name, value in settings.items()]
  return ["train", f"--gin_file={recipe}", f"--model_dir={folder}", "--quiet", *bindings]


def content(folder) -> dict[str, bytes]:
  return {name: (folder / name).read_bytes() for name in (*FILES, config_record.STARTS)}


def starts(folder) -> list[dict]:
  return [json.loads(line) for line in (folder / config_record.STARTS).read_text().splitlines()]


def test_only_accepted_starts_are_recorded_and_the_history_stays(tmp_path, capsys):
  folder = tmp_path / "run"
  assert main(train(folder)) == 0
  first = content(folder)
  assert [each["changed"] for each in starts(folder)] == [[]]
  # Refused: another shape of the prompt, a lease, a stage that is complete with another rate, weights
  # that do not exist, an unknown task.
  refused = [
    train(folder, PROMPT_LENGTH=4),
    train(folder, PROMPT_LEARNING_RATE=0.125),
    train(folder, MIXTURE_OR_TASK_NAME="'rtee'"),
    [*train(folder, INITIAL_CHECKPOINT_PATH="'/nowhere'"), "--allow_config_change"],
    train(folder, PROMT_LENGTH=4),
  ]
  for command in refused:
    assert main(command) == 2, capsys.readouterr().err
    assert content(folder) == first
  with Lease(folder):
    assert main(train(folder)) == 77
  assert content(folder) == first
  # Accepted: what may change, recorded with what it was.
  assert main(train(folder, **{"experiment.EvaluationPlan.limit": 3})) == 0
  assert content(folder) != first
  second = starts(folder)[1]
  assert second["changed"] == ["experiment.EvaluationPlan.limit: 2 -> 3"]
  assert second["command"] == train(folder, **{"experiment.EvaluationPlan.limit": 3})
  assert starts(folder)[0]["configuration"]["experiment.EvaluationPlan.limit"] == "2"
  assert "experiment.EvaluationPlan.limit = 3\n" in (folder / config_record.FLAT).read_text()
  assert sorted(p.name for p in folder.glob(".*.tmp*")) == []


def test_a_run_started_with_an_overlay_goes_on_under_its_short_name_and_is_evaluated(tmp_path):
  folder = tmp_path / "run"
  command = train(folder)
  both = [command[0], "--gin_file=prompt_tune_rte.gin", "--gin_file=micro.gin", *command[2:]]
  assert main(both) == 0
  assert main(command) == 0
  assert [each["changed"] for each in starts(folder)] == [[], []]
  assert main(["eval", f"--model_dir={folder}", "--tasks=wic", "--limit=2", "--quiet"]) == 0


def test_settings_that_a_run_does_not_use_are_no_change(tmp_path):
  folder = tmp_path / "run"
  (folder / "stages/model/1").mkdir(parents=True)
  before = gin_config.read(["fine_tune_rte_micro.gin"], [])
  (folder / config_record.FLAT).write_text(config_record.record_text(before))
  file = tmp_path / "own.gin"
  file.write_text(
    "from __gin__ import dynamic_registration\nfrom promot_jax.experiments import experiment\n"
    "include 'fine_tune_rte_micro.gin'\ninclude 'methods/bitfit.gin'\n"  # binds its own stage
    "EXPERIMENT = @fine_tuning/experiment.Experiment()\n"
  )
  after = gin_config.read([str(file)], ["TRAIN_STEPS = 7"])
  assert after.flat() != before.flat()
  assert config_record.changes(after, folder, allow_change=False) == [
    "model_stage/stages.Stage.steps: 300 -> 7"
  ]


EARLIER = {
  "PROMPT_REGEX": "'.*/prompt/.*'",
  "BACKBONE_REGEX": "'!.*/prompt/.*'",
  "light_stage/lora/stages.Stage.trainable": "'.*/lora/(down|up)'",
}


@pytest.mark.parametrize("recipe", ["promot_rte_micro.gin", "promot_lora_rte_micro.gin"])
def test_a_directory_whose_stages_spell_their_methods_pattern_goes_on(tmp_path, recipe):
  (tmp_path / "stages/model/1").mkdir(parents=True)
  scanned = gin_config.read([recipe], [])
  wanted = {
    name: value for name, value in EARLIER.items() if ("lora" in name) == ("lora" in recipe)
  }
  before = gin_config.read([recipe], [f"{name} = {value}" for name, value in wanted.items()])
  (tmp_path / config_record.FLAT).write_text(config_record.record_text(before))
  lines = config_record.changes(scanned, tmp_path, allow_change=False)
  assert lines and all("trainable" in line for line in lines)


@pytest.mark.parametrize(
  ("recipe", "binding"),
  [
    ("lora_rte_micro.gin", "LORA_RANK = 3"),
    ("adapter_rte_micro.gin", "ADAPTER_BOTTLENECK = 3"),
    ("promot_rte_micro.gin", "PROMPT_LENGTH = 3"),
  ],
)
def test_settings_of_any_method_are_fixed_in_a_started_directory(tmp_path, recipe, binding):
  (tmp_path / "stages/model/1").mkdir(parents=True)
  before = gin_config.read([recipe], [])
  (tmp_path / config_record.FLAT).write_text(config_record.record_text(before))
  after = gin_config.read([recipe], [binding])
  with pytest.raises(ConfigError, match="started with another configuration"):
    config_record.changes(after, tmp_path, allow_change=False)


def test_a_stage_that_trains_other_parameters_than_its_checkpoints_have_is_refused(
  tmp_path, capsys
):
  two = functools.partial(
    train, tmp_path / "run", "promot_rte_micro.gin", TRAIN_STEPS=2, EVAL_PERIOD=2
  )
  assert main(two()) == 0
  capsys.readouterr()
  for regex, named in (("'.*'", "lacks 'encoder/prompt"), ("'!.*/(mlp|prompt)/.*'", "/mlp/")):
    assert main(two(BACKBONE_REGEX=regex)) == 2
    assert named in capsys.readouterr().err
  assert main([*two(BACKBONE_REGEX="'.*'"), "--allow_config_change"]) == 0


def test_a_first_start_that_is_refused_leaves_no_configuration(tmp_path):
  folder = tmp_path / "run"
  assert main(train(folder, INITIAL_CHECKPOINT_PATH="'/nowhere'")) == 2
  assert not any((folder / name).exists() for name in FILES)


def test_data_that_cannot_be_read_leave_no_configuration(tmp_path, monkeypatch):
  monkeypatch.setenv("PROMOT_T5_VOCABULARY", str(tmp_path / "absent.model"))
  folder = tmp_path / "run"
  command = train(folder, DATA_SOURCE="'tfds'", TASK_FEATURE_LENGTHS="{'inputs': 64, 'targets': 8}")
  command += [f"--tfds_data_dir={tmp_path}"]
  assert main(command) in (2, 65)
  assert not any((folder / name).exists() for name in FILES)


def test_what_cannot_be_written_leaves_all_files_as_they_were(tmp_path, monkeypatch):
  run = tmp_path / "run"
  scanned = gin_config.read(["promot_rte_micro.gin"], [])
  gin_config.build(scanned)
  config_record.write(run, scanned, command=["a"], changed=[])
  before = content(run)

  def full(_):
    raise OSError(28, "No space left on device")

  for number in range(3):
    calls = iter([None] * number)
    monkeypatch.setattr(
      config_record.os, "fsync", lambda fd, calls=calls: next(calls, full) and full(fd)
    )
    other = gin_config.read(["promot_rte_micro.gin"], ["RANDOM_SEED = 9"])
    with pytest.raises(CannotWrite, match="No space left"):
      config_record.write(run, other, command=["b"], changed=[])
    assert content(run) == before
    assert not list(run.glob(".*"))


def test_a_line_of_the_history_that_was_torn_does_not_spoil_the_next(tmp_path):
  scanned = gin_config.read(["promot_rte_micro.gin"], [])
  gin_config.build(scanned)
  tmp_path.joinpath(config_record.STARTS).write_text('{"time": "20')
  command = ["a", "--gin.INITIAL_CHECKPOINT_PATH='https://me:word@host/m?token=abc'"]
  config_record.write(tmp_path, scanned, command=command, changed=[])
  lines = tmp_path.joinpath(config_record.STARTS).read_text().splitlines()
  assert len(lines) == 2
  masked = "--gin.INITIAL_CHECKPOINT_PATH='https://***@host/m?token=***'"
  assert json.loads(lines[1])["command"] == ["a", masked]


def test_a_flat_file_of_an_earlier_version_is_compared_by_meaning(tmp_path):
  (tmp_path / "stages" / "prompt" / "checkpoint_50").mkdir(parents=True)
  recipe = "prefix_tune_words_rte_micro.gin"
  scanned = gin_config.read([recipe], [])
  text = config_record.flat_text(scanned)
  # As it was written: names by their imports, tuples as lists.
  text = text.replace("prefix_initializers.FromWords", "prefix.FromWords")
  (tmp_path / config_record.FLAT).write_text(text)
  assert "prefix.FromWords" in text
  assert config_record.changes(scanned, tmp_path, allow_change=False) == []
  other = gin_config.read([recipe], ["RANDOM_SEED = 9"])
  assert config_record.changes(other, tmp_path, allow_change=True) == [
    "experiment.Experiment.seed: 0 -> 9"
  ]


def test_the_history_is_not_written_through_a_link(tmp_path):
  run, other = tmp_path / "run", tmp_path / "other"
  run.mkdir()
  other.write_text("kept")
  for name in (config_record.STARTS, config_record.FLAT):
    (run / name).symlink_to(other)
  scanned = gin_config.read(["promot_rte_micro.gin"], [])
  gin_config.build(scanned)
  with pytest.raises(CannotWrite):
    config_record.write(run, scanned, command=["a"], changed=[])
  assert other.read_text() == "kept"


@pytest.mark.parametrize("name", ["..", ".", "../../elsewhere", "-x", "a/b"])
def test_a_stage_cannot_be_named_so_that_it_lies_elsewhere(tmp_path, capsys, name):
  flag = f"--gin.prompt_stage/stages.Stage.name={name!r}"
  assert main([*train(tmp_path / "run"), flag]) == 2
  assert "begin with no '.' or '-'" in capsys.readouterr().err
