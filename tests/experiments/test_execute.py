"""A whole small comparison, its repetition, and what its parts have in common."""

import dataclasses
import functools
import json
import pathlib

import numpy as np
import pytest

import tiny_experiments
from promot_jax.checkpoints.store import Store
from promot_jax.errors import ConfigError, ModelDirInUse
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import (
  checkpoint,
  checkpoint_names,
  data,
  execute,
  measurement,
  pretrained_results,
)
from promot_jax.experiments.comparison import Comparison
from promot_jax.experiments.experiment import EvaluationPlan, Experiment
from promot_jax.experiments.reader import Reader
from promot_jax.experiments.reported import Outcome
from promot_jax.experiments.restored import Restored
from promot_jax.methods.prompt import SoftPrompt, prompt_count
from tiny_experiments import MODEL, PROMPT, REPORT, SHORT, Lines, opened


def experiment(label: str, **changes) -> Experiment:
  return tiny_experiments.experiment(label, **{**SHORT, "evaluation": REPORT, **changes})


def comparison(folder: pathlib.Path) -> Comparison:
  method = SoftPrompt(length=5)
  return Comparison(
    model_dir=str(folder),
    experiments=[
      experiment("pretrained"),
      experiment("prompt_tuning", method=method, stages=[PROMPT]),
      experiment(
        "promot",
        method=method,
        stages=[PROMPT, MODEL],
        imported_stages={"prompt": "prompt_tuning"},
      ),
    ],
  )


def scores(outcome: Outcome) -> list:
  return [(result.task, result.shots, dict(result.scores)) for result in outcome.results]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp("comparison")
  sink = Lines()
  outcomes = execute.execute(comparison(folder), sinks=[sink])
  return folder, outcomes, sink.lines


def test_each_experiment_is_evaluated_on_the_tuned_and_the_unseen_tasks(finished):
  _, outcomes, _ = finished
  assert [outcome.experiment.name for outcome in outcomes] == [
    "pretrained",
    "prompt_tuning",
    "promot",
  ]
  for outcome in outcomes:
    assert [(r.task, r.shots) for r in outcome.results] == [("rte", 0), ("cb", 1), ("trivia_qa", 1)]


def test_the_prompt_is_attached_for_the_tuned_task_only(finished):
  _, outcomes, _ = finished
  assert [result.method for result in outcomes[0].results] == ["none"] * 3
  for outcome in outcomes[1:]:
    assert [r.method for r in outcome.results] == ["attached", "detached", "detached"]


def test_the_record_has_the_step_time_of_every_stage_taken_over_ones_included(finished):
  folder, _, _ = finished
  recorded = {
    name: ResultStore(folder / name / "evaluation").read_run().stages
    for name in ("pretrained", "prompt_tuning", "promot")
  }
  assert recorded["pretrained"] == ()
  (alone,) = recorded["prompt_tuning"]
  prompt, model = recorded["promot"]
  assert (prompt.name, model.name) == ("prompt", "model")
  assert prompt == alone
  assert 0 < prompt.step_seconds < 60
  assert 0 < model.step_seconds < 60


def raw_outputs(store: ResultStore, checkpoint: str, results) -> list:
  return [[each.raw for each in store.predictions(checkpoint, result)] for result in results]


def test_prompt_tuning_leaves_unseen_tasks_as_the_pretrained_model_has_them(finished, tmp_path):
  folder, (pretrained, tuned, _), _ = finished
  # Evaluated anew: this session knows of no pretrained model whose results it could take over.
  directory = opened(tuned.experiment)
  chosen = checkpoint_names.named(directory, "chosen")
  store = ResultStore(tmp_path)
  tasks = data.report_tasks(tuned.experiment, directory.session.reader)[1:]
  results = measurement.measure(directory, chosen, tasks, models=Restored(directory), store=store)
  assert raw_outputs(store, chosen.name, results) == raw_outputs(
    ResultStore(folder / "pretrained" / "evaluation"), "pretrained", pretrained.results[1:]
  )


def test_the_pretrained_models_results_are_taken_over_where_its_backbone_is_untouched(finished):
  folder, (pretrained, tuned, _), lines = finished
  (said,) = [line for line in lines if "results without the method are the pretrained" in line]
  assert said.startswith(f"evaluated {tuned.selected}: 2 results")
  assert f"evaluating {tuned.selected}: 1 of 3 results to run" in lines
  store = ResultStore(folder / "prompt_tuning" / "evaluation")
  assert [result.method for result in tuned.results] == ["attached", "detached", "detached"]
  assert scores(tuned)[1:] == scores(pretrained)[1:]
  assert raw_outputs(store, tuned.selected, tuned.results[1:]) == raw_outputs(
    ResultStore(folder / "pretrained" / "evaluation"), "pretrained", pretrained.results[1:]
  )


def test_a_backbone_is_untouched_while_only_the_prompt_is_trained(finished):
  _, (pretrained, tuned, promot), _ = finished

  def untouched(outcome: Outcome, stages: int) -> bool:
    which = checkpoint.after(outcome.experiment, stages)
    return pretrained_results.backbone_is_untouched(outcome.experiment, which)

  assert untouched(tuned, 1) and untouched(promot, 1)
  assert not untouched(promot, 2)
  assert not untouched(promot, 0)  # the prompt is not attached yet
  assert not untouched(pretrained, 0)


def test_unseen_tasks_with_one_of_several_prompts_are_left_out_and_named():
  bank = experiment(
    "both",
    task="rte_and_wmt14_en_fr",
    method=SoftPrompt(length=5, tasks=2),
    stages=[dataclasses.replace(PROMPT, metric="mean")],
    evaluation=EvaluationPlan(unseen=("cb",), unseen_method=("off", "on"), limit=2),
  )
  reader = Reader(lambda text: None)
  assert "a row for each of rte, wmt14_en_fr" in data.left_out(bank)
  assert [task.method for task in data.report_tasks(bank, reader)[2:]] == ["detached"]
  named = data.report_tasks(bank, reader, bank_row=1)[2:]
  assert [(task.method, task.bank_row) for task in named] == [("detached", 0), ("attached", 1)]
  assert not data.left_out(bank, bank_row=1)
  shared = dataclasses.replace(bank, method=SoftPrompt(length=5))
  assert not data.left_out(shared)
  states = [task.method for task in data.report_tasks(shared, reader)[2:]]
  assert states == ["detached", "attached"]


def test_promot_takes_over_the_prompt_of_prompt_tuning(finished):
  folder, _, lines = finished
  leaves = []
  for name in ("prompt_tuning", "promot"):
    stage = folder / name / "stages" / "prompt"
    step = json.loads((stage / "stage_complete.json").read_text())["step"]
    restored = Store(stage).restore(step, prefix="trainable/").leaves
    leaves.append(restored["trainable/encoder/prompt/prompt"])
  np.testing.assert_array_equal(*leaves)
  assert any("taken over from prompt_tuning" in line for line in lines)


def test_the_second_stage_does_not_store_the_frozen_prompt(finished):
  folder, _, _ = finished
  stage = folder / "promot" / "stages" / "model"
  names = Store(stage).restore(4, prefix="trainable/").leaves
  assert names
  assert not [name for name in names if "/prompt/" in name]


def test_a_repeated_run_trains_and_evaluates_nothing(finished):
  folder, outcomes, _ = finished
  before = {path: path.stat().st_mtime_ns for path in folder.rglob("checkpoint_*/manifest.json")}
  sink = Lines()
  again = execute.execute(comparison(folder), sinks=[sink])
  assert [scores(outcome) for outcome in again] == [scores(outcome) for outcome in outcomes]
  assert {p: p.stat().st_mtime_ns for p in folder.rglob("checkpoint_*/manifest.json")} == before
  assert not [line for line in sink.lines if "to run" in line and "none to run" not in line]
  assert not [line for line in sink.lines if "starting at step" in line]


def test_a_lost_evaluation_is_repeated_alone_and_alike(finished):
  folder, outcomes, _ = finished
  (lost,) = (folder / "promot" / "evaluation").glob("*/cb.test.1shot.detached.*json")
  lost.unlink()
  sink = Lines()
  again = execute.execute(comparison(folder), sinks=[sink])
  assert [line for line in sink.lines if line.endswith("1 of 3 results to run")]
  assert scores(again[2]) == scores(outcomes[2])


def test_a_second_run_in_the_same_directory_is_refused(finished):
  folder, _, _ = finished
  from promot_jax.checkpoints.lease import Lease

  with Lease(folder), pytest.raises(ModelDirInUse):
    execute.execute(comparison(folder))


def test_a_stage_is_not_taken_over_from_an_experiment_that_runs_later(tmp_path):
  made = comparison(tmp_path)
  with pytest.raises(ConfigError, match="does not run before it"):
    dataclasses.replace(made, experiments=made.experiments[::-1])


def test_the_pretrained_checkpoint_of_a_promot_run_has_no_prompt(finished):
  _, outcomes, _ = finished
  directory = opened(outcomes[2].experiment)
  models = Restored(directory)
  for name, prompts in (("pretrained", 0), ("prompt", 1)):
    assert prompt_count(models.model(checkpoint_names.named(directory, name))) == prompts


def test_checkpoints_are_named_by_stage_and_step(finished):
  _, outcomes, _ = finished
  directory = opened(outcomes[2].experiment)
  named = functools.partial(checkpoint_names.named, directory)
  assert named("pretrained") == checkpoint.pretrained(directory.experiment)
  assert named("model:2") == checkpoint.after(directory.experiment, 2, 2)
  assert (named("model:2").name, named("model:2").tuned) == ("model-2", True)
  assert named("chosen").name == outcomes[2].selected
  with pytest.raises(ConfigError, match="no such step"):
    named("model:3")
  with pytest.raises(ConfigError, match="names no stage"):
    named("modl")


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"task": "rtee"}, "did you mean rte"),
    ({"name": "../x"}, "becomes a folder"),
    ({"imported_stages": {"prompt": "x"}}, "imported_stages"),
    ({"stages": [PROMPT, PROMPT]}, "two stages of one name"),
    ({"feature_lengths": {"inputs": 0, "targets": 3}}, "needs 'inputs'"),
  ],
)
def test_an_impossible_experiment_is_refused_with_a_sentence(changes, words):
  with pytest.raises(ConfigError, match=words):
    experiment("a", **changes)


def test_a_prompt_pattern_without_a_prompt_is_refused_before_anything_is_read(tmp_path):
  made = experiment("a", model_dir=str(tmp_path / "a"), stages=[PROMPT])
  with pytest.raises(ConfigError, match="prompt"):
    execute.execute(made)
  assert not (tmp_path / "a" / "stages").exists()
