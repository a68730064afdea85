"""Settings without effect, empty flags and `~`: what a user typed is used or refused."""

import os

import pytest

from promot_jax.cli import config_record, flags, gin_config, gin_effect
from promot_jax.errors import ConfigError

HEAD = "from __gin__ import dynamic_registration\n"
RECIPE = "promot_rte_micro.gin"


def message(*bindings: str, recipe: str = RECIPE) -> str:
  with pytest.raises(ConfigError) as caught:
    gin_config.read([recipe], bindings)
  return str(caught.value)


@pytest.mark.parametrize(
  ("binding", "words"),
  [
    ("promt_stage/stages.Stage.steps = 3", "Did you mean 'prompt_stage'?"),
    ("prompt_stage/x/stages.Stage.steps = 3", "no 'stages.Stage' is made in the scope"),
    ("optimizers.adamw.weight_decay = 0.1", "nothing in this run is made by 'optimizers.adamw'"),
    (
      "stages.Stage.steps = 3",
      "model_stage/stages.Stage.steps and prompt_stage/stages.Stage.steps",
    ),
    ("MIXING_TEMPERATURE = 3.0", "nothing in this run uses %MIXING_TEMPERATURE"),
    ("TRAIN_STEP = 3", "Did you mean 'TRAIN_STEPS'?"),
    ("experiment.MeshShap.data = 1", "Did you mean 'MeshShape'?"),
  ],
)
def test_a_binding_of_the_command_line_without_effect_is_refused(binding, words):
  found = message(binding)
  assert found.startswith("--gin.") or "command line" in found
  assert words in found


@pytest.mark.parametrize(
  "binding",
  [
    "prompt_stage/stages.Stage.steps = 3",
    "stages.Stage.log_period = 5",
    "model_stage/optimizers.adafactor.decay_rate = 0.7",
    "experiment.EvaluationPlan.limit = 4",
    "promot/experiment.EvaluationPlan.limit = 4",
    "RANDOM_SEED = 4",
    "TRAIN_STEPS = 4",
  ],
)
def test_a_binding_with_an_effect_is_taken(binding):
  gin_config.build(gin_config.read([RECIPE], [binding]))


def test_a_users_own_file_is_checked_and_what_it_includes_is_not(tmp_path):
  text = f"include '{RECIPE}'\nfrom promot_jax.training import stages\n"
  shared = tmp_path / "shared.gin"
  shared.write_text(HEAD + text + "promt_stage/stages.Stage.steps = 3\nOWN = 2\n")
  assert "shared.gin:4: promt_stage/stages.Stage.steps has no effect" in message(recipe=str(shared))
  assert "shared.gin:5: OWN has no effect" in message(recipe=str(shared))
  including = tmp_path / "including.gin"
  including.write_text(HEAD + "include 'shared.gin'\n")
  gin_config.read([str(including)], [], search_paths=str(tmp_path))


def test_files_made_for_inclusion_may_be_named_beside_a_recipe():
  gin_config.read([RECIPE, "models/t5_1_1_small.gin"], [])


def test_a_hidden_binding_names_the_one_that_wins(tmp_path):
  file = tmp_path / "own.gin"
  file.write_text(
    HEAD
    + f"include '{RECIPE}'\nfrom promot_jax.experiments import experiment\n"
    + "experiment.EvaluationPlan.limit = 4\npromot/experiment.EvaluationPlan.limit = 5\n"
  )
  found = message(recipe=str(file))
  assert "own.gin:4: experiment.EvaluationPlan.limit has no effect" in found
  assert "promot/experiment.EvaluationPlan.limit is bound and wins" in found


@pytest.mark.parametrize("recipe", [RECIPE, "comparison_methods_rte_micro.gin", "quickstart.gin"])
def test_what_gin_used_is_what_was_said_to_have_an_effect(recipe):
  """gin's own record of the parameters it gave, after the objects are made."""
  from gin import config as gin_internals

  scanned = gin_config.read([recipe], [])
  gin_config.build(scanned)
  reached = gin_effect.reached(scanned)
  called = {
    (scope, _full(gin_internals._REGISTRY[selector].wrapped))
    for scope, selector in gin_internals._OPERATIVE_CONFIG
  }
  expected = {(scope, selector) for scope, selector in reached.objects if selector != "gin.macro"}
  assert {node for node in called if "macro" not in node[1]} <= expected
  handed_over = {"promot_jax.training.adafactor.adafactor", "promot_jax.data.mixtures.equal"}
  missing = {selector for _, selector in expected - called}
  assert all("optimizers." in name or name in handed_over for name in missing)


def _full(value) -> str:
  return f"{value.__module__}.{value.__qualname__}"


@pytest.mark.parametrize(
  "arguments",
  [
    ["train", "--gin_file=a.gin", "--model_dir="],
    ["train", "--gin_file=a.gin", "--model_dir", ""],
    ["train", "--gin_file=a.gin", "--init= "],
    ["train", "--gin_file="],
    ["train", "--gin_file=a.gin", "--coordinator_address="],
    ["train", "--gin_file=a.gin", "--tfds_data_dir="],
    ["train", "--gin_file=a.gin", "--gin_allow_imports="],
    ["train", "--gin_file=a.gin", "--gin_search_paths="],
    ["train", "--gin_file=a.gin", "--gin.TRAIN_STEPS="],
    ["train", "--gin_file=a.gin", "--gin.TRAIN_STEPS", ""],
    ["train", "--gin_file=a.gin", "--gin_bindings="],
    ["eval", "--model_dir=a", "--checkpoint="],
    ["eval", "--model_dir=a", "--tasks="],
    ["infer", "--model_dir=a", "--input=", "--output=b"],
    ["infer", "--model_dir=a", "--input=q", "--output="],
    ["convert", "", "out", "--to=hf"],
    ["convert", "in", "out", "--to=hf", "--model="],
    ["report", ""],
    ["inspect", "data", "--vocabulary="],
  ],
)
def test_an_empty_value_is_refused_and_never_means_the_default(arguments):
  with pytest.raises(ConfigError, match="empty"):
    flags.parse(arguments)


@pytest.mark.parametrize(
  ("arguments", "name", "expected"),
  [
    (["train", "--model_dir=~/runs/a"], "model_dir", "{home}/runs/a"),
    (["train", "--init=~/weights"], "init", "{home}/weights"),
    (["train", "--init=hf:~/weights"], "init", "hf:{home}/weights"),
    (["train", "--init=hf:google/t5~x"], "init", "hf:google/t5~x"),
    (["train", "--gin_file=~/a.gin", "--gin_file=b.gin"], "gin_file", ["{home}/a.gin", "b.gin"]),
    (["train", "--gin_search_paths=.,~/gin"], "gin_search_paths", ".,{home}/gin"),
    (["eval", "--method=~/m.npz"], "method", "{home}/m.npz"),
    (["infer", "--input=~/q", "--output=~/a"], "input", "{home}/q"),
    (["convert", "~/in", "~/out", "--to=hf"], "source", "{home}/in"),
    (["convert", "~/in", "~/out", "--to=hf"], "output", "{home}/out"),
    (["report", "~/a", "b"], "runs", ["{home}/a", "b"]),
    (
      ["inspect", "data", "--vocabulary=sentencepiece:~/f?family=t5"],
      "vocabulary",
      "sentencepiece:{home}/f?family=t5",
    ),
  ],
)
def test_the_home_folder_is_meant_by_a_tilde(monkeypatch, tmp_path, arguments, name, expected):
  monkeypatch.setenv("HOME", str(tmp_path))
  filled = [
    each.format(home=tmp_path) for each in ([expected] if isinstance(expected, str) else expected)
  ]
  found = getattr(flags.parse(arguments).values, name)
  assert found == (filled[0] if isinstance(expected, str) else filled)


def test_a_tilde_in_a_gin_value_is_the_home_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  bindings = [
    "MODEL_DIR = '~/runs/a'",
    "INITIAL_CHECKPOINT_PATH = 'hf:~/x'",
    "VOCABULARY = 'sentencepiece:~/f'",
    "PROMPT_REGEX = '.*/prompt/~.*'",
  ]
  scanned = gin_config.read([RECIPE], bindings)
  found = [scanned.macros[binding.split(" ")[0]].value for binding in bindings]
  assert found == [
    f"{tmp_path}/runs/a",
    f"hf:{tmp_path}/x",
    f"sentencepiece:{tmp_path}/f",
    ".*/prompt/~.*",
  ]
  (tmp_path / "own.gin").write_text(HEAD + f"include '{RECIPE}'\n")
  assert gin_config.read(["~/own.gin"], []).macros["EXPERIMENT"]


# gin files that are no text.


def no_utf8(path):
  path.write_bytes(b"A = 1\nB = 'caf\xe9'\n")


def pipe(path):
  os.mkfifo(path)


def large(path):
  with path.open("wb") as file:
    file.truncate(100 * 2**20)


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (no_utf8, "is no UTF-8 text: line 2 has the byte 0xe9"),
    (pipe, "is a pipe or device"),
    (large, "has 104,857,600 bytes"),
    (lambda path: path.mkdir(), "is a folder"),
    (lambda path: path.symlink_to("/dev/zero"), "is a pipe or device"),
    (lambda path: path.symlink_to("nowhere"), "was not found"),
    (lambda path: path.write_bytes("A = 1\n".encode("utf-16")), "is no UTF-8 text: line 1"),
  ],
)
@pytest.mark.parametrize("how", ["file", "include"])
def test_a_gin_file_that_is_no_text_is_one_sentence(tmp_path, monkeypatch, make, words, how):
  monkeypatch.chdir(tmp_path)
  make(tmp_path / "odd.gin")
  (tmp_path / "including.gin").write_text(HEAD + "include 'odd.gin'\n")
  found = message(recipe="odd.gin" if how == "file" else "including.gin")
  assert "odd.gin" in found and words in found and "\n" not in found


def test_a_byte_order_mark_is_no_part_of_a_gin_file(tmp_path):
  (tmp_path / "bom.gin").write_text(f"\ufeff{HEAD}include '{RECIPE}'\n", encoding="utf-8")
  assert gin_config.read([str(tmp_path / "bom.gin")], []).macros["EXPERIMENT"]


def test_odd_configurations_of_a_model_directory_are_one_sentence(tmp_path):
  for number, make in enumerate((no_utf8, large)):
    run = tmp_path / str(number)
    run.mkdir()
    make(run / config_record.FLAT)
    with pytest.raises(ConfigError, match=r"bytes|UTF-8"):
      config_record.read(run, [])


@pytest.mark.parametrize(
  ("files", "words"),
  [
    (["micro.gin", "promot_rte.gin"], "micro.gin has no effect: the recipe is read after it"),
    (["hardware/tpu_64.gin", "promot_rte.gin"], "tpu_64.gin has no effect: the recipe is read"),
    (
      ["promot_rte.gin", "hardware/tpu_64.gin", "models/t5_1_1_xl.gin"],
      r"tpu_64.gin has no effect: \S+all_devices.gin:4 sets the mesh after it",
    ),
    (
      ["promot_rte.gin", "hardware/tpu_64.gin", "hardware/model_8.gin"],
      r"tpu_64.gin has no effect: \S+model_8.gin:5 sets the mesh after it",
    ),
  ],
)
def test_an_overlay_that_a_later_file_undoes_is_refused(files, words):
  with pytest.raises(ConfigError, match=words):
    gin_config.read(files, [])


def test_overlays_after_what_they_change_are_taken():
  scanned = gin_config.read(["promot_rte.gin", "micro.gin", "hardware/model_4.gin"], [])
  assert scanned.macros["MESH_MODEL"].value == 4
  scanned = gin_config.read(["promot_rte.gin", "hardware/tpu_64.gin"], ["MESH_DATA = 8"])
  assert (scanned.macros["MESH_DATA"].value, scanned.macros["MESH_MODEL"].value) == (8, 16)


def test_what_an_overlay_takes_the_place_of_may_stand_in_the_recipe_and_mistakes_may_not(tmp_path):
  gin_config.read(["adapter_xsum.gin", "micro.gin"], [])  # its beam gives way to greedy decoding
  own = tmp_path / "own.gin"
  own.write_text(HEAD + "include 'adapter_xsum.gin'\nOWN = 2\n")
  assert "own.gin:3: OWN has no effect" in message(recipe=str(tmp_path / "own_micro.gin"))
  # What is given after the overlay is judged by the run as it is.
  binding = "strategies.TransformersBeam.width = 4"
  assert "nothing in this run is made by" in message(binding, recipe="adapter_xsum_micro.gin")
