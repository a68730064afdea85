import pathlib

import pytest

from promot_jax.cli import config_record, gin_scan
from promot_jax.errors import ConfigError

HEAD = "from __gin__ import dynamic_registration\n"
STAGE = HEAD + "from promot_jax.training import stages\n"


def write(folder: pathlib.Path, text: str, name: str = "recipe.gin") -> str:
  path = folder / name
  path.write_text(text)
  return str(path)


def message(folder, text, bindings=(), **options) -> str:
  with pytest.raises(ConfigError) as caught:
    gin_scan.scan([write(folder, text)], bindings, folders=[str(folder)], **options)
  return str(caught.value)


def test_a_wrong_parameter_is_named_with_file_line_and_the_nearest_right_one(tmp_path):
  found = message(tmp_path, STAGE + "stages.Stage.batchsize = 3\n")
  assert "recipe.gin:3" in found
  assert "'Stage' has no parameter 'batchsize'" in found
  assert "Did you mean 'batch_size'?" in found


def test_a_wrong_parameter_in_a_block_is_named_with_its_own_line(tmp_path):
  found = message(tmp_path, STAGE + "stages.Stage:\n  steps = 3\n  metrik = 'a'\n")
  assert "recipe.gin:5" in found
  assert "Did you mean 'metric'?" in found


def test_a_wrong_class_is_named_with_the_nearest_right_one(tmp_path):
  found = message(tmp_path, STAGE + "stages.Stge.steps = 3\n")
  assert "Did you mean 'Stage'?" in found


def test_a_missing_import_is_named(tmp_path):
  found = message(tmp_path, STAGE + "stagse.Stage.steps = 3\n")
  assert "no import of this file provides" in found
  assert "Did you mean 'stages'?" in found


def test_modules_of_earlier_versions_are_found_where_they_are_now(tmp_path):
  text = (
    HEAD
    + "from promot_jax.experiments import micro_model\nfrom promot_jax.experiments import texts\n"
    + "from promot_jax.methods import probe\n"
    + "micro_model.config.dropout_rate = 0.5\ntexts.token_ids.text = 'a'\nprobe.Probe.layer = 1\n"
  )
  found = gin_scan.scan([write(tmp_path, text)], folders=[])
  assert {binding.selector for binding in found.bindings.values()} == {
    "promot_jax.networks.micro_model.config",
    "promot_jax.networks.texts.token_ids",
    "promot_jax.probing.probe.Probe",
  }


def test_parameters_of_earlier_versions_are_found_where_they_are_now(tmp_path):
  text = (
    HEAD
    + "from promot_jax.experiments import experiment\n"
    + "a/experiment.Experiment.initial_checkpoint = 'random'\n"
    + "experiment.Experiment.vocabulary = 'mt5'\n"
  )
  assert gin_scan.scan([write(tmp_path, text)], folders=[]).flat() == {
    "a/experiment.Experiment.network": "@network.Network()",
    "a/network.Network.checkpoint": "'random'",
    "experiment.Experiment.network": "@network.Network()",
    "network.Network.vocabulary": "'mt5'",
  }


def test_names_of_earlier_versions_bind_what_they_are_called_now(tmp_path):
  text = (
    HEAD
    + "from promot_jax.experiments import experiment\n"
    + "UNSEEN_PROMPT = ['off']\nexperiment.EvaluationPlan.unseen_prompt = %UNSEEN_PROMPT\n"
  )
  found = gin_scan.scan([write(tmp_path, text)], ["UNSEEN_PROMPT = ['on']"], folders=[])
  assert found.flat() == {"experiment.EvaluationPlan.unseen_method": "['on']"}
  assert list(found.macros) == ["UNSEEN_METHOD"]


def test_a_former_parameter_leaves_the_network_that_a_recipe_names(tmp_path):
  text = (
    HEAD
    + "from promot_jax.experiments import experiment\nfrom promot_jax.networks import network\n"
    + "experiment.Experiment.network = @own/network.Network()\n"
  )
  found = gin_scan.scan(
    [write(tmp_path, text)], ["experiment.Experiment.allow_nan = True"], folders=[]
  ).flat()
  assert found["experiment.Experiment.network"] == "@own/network.Network()"
  assert found["network.Network.allow_nan"] == "True"


def test_a_wrong_module_is_named_with_the_nearest_right_one(tmp_path):
  found = message(tmp_path, HEAD + "from promot_jax.training import stagse\n")
  assert "recipe.gin:2" in found
  assert "Did you mean 'stages'?" in found


def test_every_undefined_macro_is_reported_at_once(tmp_path):
  found = message(
    tmp_path, STAGE + "STEPS = 3\nstages.Stage.steps = %STEP\nstages.Stage.name = %NAME_OF_STAGE\n"
  )
  assert "recipe.gin:4: macro %STEP is not defined. Did you mean 'STEPS'?" in found
  assert "recipe.gin:5: macro %NAME_OF_STAGE" in found


def test_a_required_macro_says_how_to_give_it(tmp_path):
  found = message(tmp_path, STAGE + "STEPS = %gin.REQUIRED\nstages.Stage.steps = %STEPS\n")
  assert "--gin.STEPS=VALUE" in found


def test_an_overridden_binding_needs_no_macro(tmp_path):
  text = STAGE + "stages.Stage.steps = %NOWHERE\nstages.Stage.steps = 3\n"
  assert gin_scan.scan([write(tmp_path, text)], folders=[]).flat() == {"stages.Stage.steps": "3"}


def test_a_missing_include_is_named_with_the_nearest_right_one(tmp_path):
  write(tmp_path, STAGE, "training.gin")
  found = message(tmp_path, HEAD + "include 'trainin.gin'\n")
  assert "recipe.gin:2" in found
  assert "Did you mean 'training.gin'" in found


def test_foreign_imports_are_refused_before_they_run(tmp_path):
  marker = tmp_path / "ran"
  (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
  text = HEAD + "import evil\n"
  found = message(tmp_path, text)
  assert "--gin_allow_imports=evil" in found
  assert not marker.exists()
  gin_scan.scan([write(tmp_path, text)], folders=[], allow=["evil"])
  assert not marker.exists(), "scanning imports nothing, also where it is allowed"


def test_a_syntax_error_shows_its_line(tmp_path):
  found = message(tmp_path, STAGE + "stages.Stage.steps = [1, \nstages.Stage.name = 3\n")
  assert "recipe.gin" in found


def test_an_unquoted_string_on_the_command_line_is_explained(tmp_path):
  found = message(tmp_path, STAGE + "A = 1\n", ["A = /tmp/x"])
  assert "--gin.A=\"'/tmp/x'\"" in found


def test_a_macro_that_no_file_mentions_is_refused_on_the_command_line(tmp_path):
  found = message(tmp_path, STAGE + "TRAIN_STEPS = 1\n", ["TRAIN_STEP = 2"])
  assert "Did you mean 'TRAIN_STEPS'?" in found


def test_an_include_that_includes_itself_is_refused(tmp_path):
  found = message(tmp_path, HEAD + "include 'recipe.gin'\n")
  assert "includes itself" in found


def test_what_may_not_change_in_a_model_directory_is_refused(tmp_path):
  before = gin_scan.scan(
    [write(tmp_path, STAGE + "stages.Stage.batch_size = 4\nstages.Stage.steps = 5\n")], folders=[]
  )
  steps = gin_scan.scan(
    [write(tmp_path, STAGE + "stages.Stage.batch_size = 4\nstages.Stage.steps = 6\n")], folders=[]
  )
  batch = gin_scan.scan(
    [write(tmp_path, STAGE + "stages.Stage.batch_size = 8\nstages.Stage.steps = 5\n")], folders=[]
  )
  earlier = before.flat()
  assert config_record.difference(earlier, steps.flat(), allow_change=False) == [
    "stages.Stage.steps: 5 -> 6"
  ]
  with pytest.raises(ConfigError, match="batch_size: 4 -> 8"):
    config_record.difference(earlier, batch.flat(), allow_change=False)
  assert config_record.difference(earlier, batch.flat(), allow_change=True)
