"""What a run's record says, and what the plan refuses before anything is read."""

import dataclasses
import pathlib
import shutil

import jax
import pytest

import tiny_experiments
from promot_jax import partitioning
from promot_jax.decoding.strategies import Greedy
from promot_jax.errors import ConfigError
from promot_jax.experiments import checkpoint, execute, record, shapes
from promot_jax.experiments.experiment import EvaluationPlan, Experiment, MeshShape
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.networks import micro_model
from promot_jax.networks.ensemble import Ensemble
from promot_jax.networks.interpolated import Interpolated
from promot_jax.networks.network import Network
from promot_jax.planning import plan
from promot_jax.training import optimizers, schedules
from promot_jax.training.stages import Stage


def stage(name: str, rate: float, **changes) -> Stage:
  values = {
    "name": name,
    "trainable": ".*/prompt/.*" if name == "prompt" else "!.*/prompt/.*",
    "steps": 2,
    "batch_size": 6,
    "optimizer": optimizers.adafactor,
    "learning_rate": schedules.constant(rate),
  }
  return Stage(**{**values, **changes})


def experiment(*stages: Stage, **changes) -> Experiment:
  values = {
    "network": Network(backbone=micro_model.config(), checkpoint="random"),
    "method": SoftPrompt(length=5),
    "stages": stages,
    "evaluation": EvaluationPlan(unseen=("cb",), strategy=Greedy(), batch_size=8),
  }
  return tiny_experiments.experiment("promot", **{**values, **changes})


def variant(*stages: Stage) -> str:
  return record.run_record(experiment(*stages), selected="model-2", why="").variant


def test_runs_that_differ_in_the_backbones_learning_rate_are_variants():
  prompt = stage("prompt", 0.3)
  assert variant(prompt, stage("model", 0.01)) == "learning rate 0.01"
  assert variant(prompt, stage("model", 0.003)) == "learning rate 0.003"
  assert variant(stage("model", 0.01)) == "learning rate 0.01"
  assert variant(prompt) == ""


def test_a_record_tells_the_length_of_the_method_and_how_few_examples_trained():
  few = experiment(stage("prompt", 0.3), task_splits={"train": "train_50_3", "select": "dev_50_3"})
  found = record.run_record(few, selected="prompt-2", why="")
  assert (found.training_examples, found.subsample, found.kind, found.positions) == (
    50,
    3,
    "SoftPrompt",
    5,
  )
  found = record.run_record(experiment(stage("prompt", 0.3)), selected="prompt-2", why="")
  assert (found.training_examples, found.subsample) == (None, None)


def test_a_row_that_is_made_of_trained_networks_is_of_their_task_and_their_start():
  start = Network(backbone=micro_model.config(), checkpoint="random", seed=0)
  tuned = dataclasses.replace(start, checkpoint="runs/tuned/stages/model")
  between = Interpolated(first=start, second=tuned, weight=0.3)
  together = Ensemble(members=[between, start], weights=[0.75])
  for network, settings in (
    (between, {"network: weight": 0.3}),
    (together, {"network: weights": "0.75, 0.25", "network: space": "probability"}),
  ):
    row = experiment(network=network, method=None, task="cb")
    made = record.run_record(row, selected="pretrained", why="")
    assert (made.trained_on, made.backbone, made.backbone_trained) == ("cb", "random", False)
    assert settings.items() <= made.settings.items()
    # Its tuned task is read and written as its parts were tuned to.
    assert checkpoint.last(row).tuned
  for row in (experiment(task="cb"), experiment(network=tuned, method=None, task="cb")):
    assert record.run_record(row, selected="pretrained", why="").trained_on == "none"
    assert not checkpoint.last(row).tuned
  base = dataclasses.replace(experiment(network=between, method=None), name="pretrained")
  assert record.run_record(base, selected="pretrained", why="").trained_on == "none"


def test_the_record_keeps_no_secret_of_the_command(monkeypatch):
  monkeypatch.setattr("sys.argv", ["promot", "train", "--gin.A='https://host/m?token=abc'"])
  made = record.run_record(experiment(), selected="pretrained", why="")
  assert made.command == "promot train --gin.A='https://host/m?token=***'"


def test_the_record_tells_the_types_of_the_weights():
  made = experiment(stage("prompt", 0.3, frozen_dtype="bfloat16"))
  precision = record.run_record(made, selected="prompt-2", why="").environment["precision"]
  assert precision == (
    "float32 parameters, frozen ones bfloat16 in stage 'prompt', float32 activations"
  )


def test_the_record_tells_what_each_stage_trains_and_at_which_pace():
  made = experiment(stage("prompt", 0.3), stage("model", 0.01))
  prompt, model = record.run_record(
    made, selected="model-2", why="", chosen=[{"step_seconds": 0.25}, {}]
  ).stages
  backbone = 947_968  # the card of the micro model, promot_jax/micro/weights.md
  assert (prompt.name, prompt.trained, prompt.step_seconds) == ("prompt", 5 * 128, 0.25)
  assert (model.name, model.trained, model.step_seconds) == ("model", backbone, None)
  assert prompt.backbone == model.backbone == backbone


def test_a_plan_counts_the_copy_of_frozen_weights():
  plans = [
    shapes.stage_plans(
      experiment(stage("prompt", 0.3, frozen_dtype=dtype)), {"data": 1, "model": 1}
    )
    for dtype in (None, "bfloat16")
  ]
  (as_they_are,), (with_copy,) = plans
  assert with_copy.bytes.parameters - as_they_are.bytes.parameters == 2 * as_they_are.frozen


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"stages": [stage("model", 0.1, metric="acuracy")]},
      "validation on rte gives no 'acuracy' but accuracy",
    ),
    (
      {"stages": [stage("model", 0.1)], "task": "rte_and_wmt14_en_fr"},
      "gives no 'accuracy' but mean, rte/accuracy, wmt14_en_fr/bleu",
    ),
    (
      {"network": Network(backbone=micro_model.config(), checkpoint="/no/such/folder")},
      "is not a folder on this machine",
    ),
    ({"method": SoftPrompt(length=5, tasks=2), "stages": []}, "set PROMPT_TASKS"),
    (
      {
        "mesh": MeshShape(data=4, model=1),
        "evaluation": EvaluationPlan(unseen=("cb",), batch_size=6),
        "stages": [],
      },
      "batch of the evaluation",
    ),
  ],
)
def test_what_must_fail_fails_before_the_directory_is_made(tmp_path, changes, words):
  folder = tmp_path / "run"
  with pytest.raises(ConfigError, match=words):
    execute.execute(experiment(**{"model_dir": str(folder), **changes}))
  assert not pathlib.Path(folder).exists()


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"shots": 1}, r"shots=1 must be a list: write \[1\]"),
    ({"unseen": "cb"}, r"write \['cb'\]"),
    ({"buckets": 0}, "buckets=0 must be a whole number"),
    ({"limit": 0}, "None for all examples"),
    ({"feature_lengths": {"inputs": 10}}, "needs 'targets'"),
    ({"task_lengths": {"wmt16_en_d": {"inputs": 9, "targets": 9}}}, "wmt16_en_d"),
    ({"task_lengths": {"cb": {"inputs": 9}}}, "task_lengths of cb"),
  ],
)
def test_an_impossible_evaluation_plan_is_refused(changes, words):
  with pytest.raises(ConfigError, match=words):
    EvaluationPlan(**changes)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"selection": "strickt"}, "did you mean strict"),
    ({"seed": -1}, "seed=-1"),
    ({"train_limit": 0}, "train_limit=0"),
    ({"input_buckets": 0}, "input_buckets=0"),
    ({"stages": [stage("prompt", 0.1)], "stage_tasks": {"prompt": "rtee"}}, "did you mean rte"),
    (
      {"stages": [stage("prompt", 0.1)], "stage_feature_lengths": {"prompt": {"inputs": 9}}},
      "stage_feature_lengths of 'prompt'",
    ),
  ],
)
def test_an_impossible_experiment_is_refused(changes, words):
  with pytest.raises(ConfigError, match=words):
    experiment(**changes)


def test_a_mesh_that_does_not_fit_names_the_settings(monkeypatch):
  chips = [object()] * 2
  with pytest.raises(
    ConfigError, match=r"MESH_DATA=4 x MESH_MODEL=16 needs 64 .*has 2\. Set MESH_DATA=2"
  ):
    partitioning.make_mesh(4, 16, devices=chips)
  monkeypatch.setattr("jax.process_count", lambda: 2)
  with pytest.raises(
    ConfigError, match=r"uses 1 of the 2 devices of 2 processes.*--gin.MESH_DATA=2;"
  ):
    partitioning.make_mesh(1, 1, devices=chips)


def test_a_plan_names_missing_chips_vocabulary_data_and_what_is_written(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  monkeypatch.setenv("PROMOT_T5_VOCABULARY", str(tmp_path / "absent.model"))
  (tmp_path / "super_glue" / "cb" / "1.0.2").mkdir(parents=True)
  chip = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda: chip)
  run = experiment(
    stage("prompt", 0.3),
    source="tfds",
    model_dir=str(tmp_path / "run"),
    mesh=MeshShape(data=6, model=1),
    evaluation=EvaluationPlan(unseen=("cb", "wic"), strategy=Greedy(), batch_size=6),
  )
  text = "\n".join(plan.describe(run))
  assert "6 needed for mesh data=6 x model=1; 5 are missing here" in text
  assert "absent.model (NOT on this machine)" in text
  assert "super_glue/rte:1.0.2" in text and "not prepared yet" in text
  assert "unseen tasks: 1 of 2 data sets are prepared; TFDS will download wic" in text
  assert "scores and predictions of 3 evaluations" in text
  (written,) = [line for line in text.splitlines() if "checkpoints: prompt" in line]
  assert "prompt 1 x" in written and "in all" in written


def test_a_plan_says_where_there_is_too_little_room(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=24_600))
  text = "\n".join(plan.describe(experiment(stage("prompt", 0.3), model_dir=str(tmp_path))))
  assert "24.6 kB free, TOO LITTLE for the checkpoints" in text
  assert "part of the package" in text  # the vocabulary
