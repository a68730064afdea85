"""The overlay that makes any recipe small, and the short name of a recipe with it."""

import pytest

from promot_jax.cli import gin_config, gin_files
from promot_jax.errors import ConfigError
from promot_jax.experiments.comparison import experiments_of
from shipped_recipes import FOLDER, build, small


def _largest_rate(stage) -> float:
  return max(float(stage.learning_rate(step)) for step in range(0, stage.steps, 5))


@pytest.mark.parametrize(
  ("name", "steps", "rates", "method"),
  [
    ("fine_tune_snli", [300], [1e-2], {}),
    ("prompt_tune_rte_1shot", [600], [0.3], {"length": 16, "tasks": 1}),
    ("promot_rte", [600, 300], [0.3, 1e-2], {"length": 16}),
    ("promot_rte_t5_1_1_xxl", [600, 300], [0.3, 1e-2], {"length": 16}),
    ("promot_multitask", [600, 300], [0.3, 1e-2], {"length": 16, "tasks": 2}),
    ("promot_lora_r2_wmt14_enfr", [300, 300], [1e-2, 1e-2], {"rank": 2, "alpha": None}),
    ("dora_rte", [300], [1e-2], {"rank": 32, "alpha": None, "decomposed": True}),
    ("lora_rte", [300], [1e-2], {"rank": 4, "alpha": None, "dropout_rate": 0.0}),
    ("adapter_rte", [300], [5e-3], {"bottleneck": 8, "share": None, "train_norms": True}),
    ("adapter_3_rte", [300], [5e-3], {"bottleneck": None, "share": 0.03, "placement": "lin"}),
    ("adapter_0_1_rte", [300], [3e-2], {"bottleneck": 1, "share": None, "placement": "lin"}),
    ("adapter_xsum", [300], [5e-3], {"bottleneck": 24, "cross_attention": True}),
    ("prefix_tune_rte", [600], [3e-3], {"length": 8}),
    ("prefix_tune_xsum", [600], [3e-3], {"length": 8}),
    ("bitfit_rte", [300], [2e-2], {}),
    ("ia3_rte", [300], [3e-2], {}),
    ("top_layers_rte", [300], [2e-3], {"layers": 1}),
  ],
)
def test_the_overlay_sets_the_numbers_that_were_tuned_for_the_micro_model(
  name, steps, rates, method
):
  experiment = build(f"{name}_micro.gin")
  assert [stage.steps for stage in experiment.stages] == steps
  assert [stage.batch_size for stage in experiment.stages] == [64] * len(steps)
  found = [_largest_rate(stage) for stage in experiment.stages]
  assert found == pytest.approx(rates, rel=0.02)
  assert {key: getattr(experiment.method, key) for key in method} == method


def test_the_overlay_leaves_what_is_done_as_the_recipe_says():
  large, little = build("adapter_xsum.gin"), build("adapter_xsum_micro.gin")
  for name in ("task", "name", "targets", "selection"):
    assert getattr(large, name) == getattr(little, name)
  assert little.evaluation.unseen == large.evaluation.unseen == ()
  assert large.method.bottleneck == 200
  strict = build("promot_rte_micro.gin", "SELECTION = 'strict'", "TARGETS = 'sentinel'")
  assert (strict.selection, strict.targets) == ("strict", "sentinel")


@pytest.mark.parametrize(
  ("name", "expected"),
  [("comparison_methods_rte.gin", ("off", "on")), ("comparison_rte.gin", ("off",))],
)
def test_a_comparison_keeps_its_say_on_unseen_tasks(name, expected):
  found = {e.evaluation.unseen_method for e in experiments_of(build(small(name)))}
  assert found == {expected}


def test_both_spellings_of_a_small_recipe_are_one_configuration():
  short = gin_config.read(["promot_rte_micro.gin"], [])
  both = gin_config.read(["promot_rte.gin", "micro.gin"], [])
  assert (
    short.roots == both.roots == tuple(str(FOLDER / n) for n in ("promot_rte.gin", "micro.gin"))
  )
  assert short.flat() == both.flat()
  assert short.macros["MODEL_DIR"].value == "runs/promot_rte_micro"


def test_a_last_file_changes_the_family_of_the_small_form():
  files = ["lora_rte.gin", "micro.gin"]
  own = gin_config.build(gin_config.read(files, []))
  other = gin_config.build(gin_config.read([*files, "micro/encoder_decoder.gin"], []))
  assert [type(each.backbone).__name__ for each in (own, other)] == ["DecoderLMConfig", "T5Config"]
  assert own.stages[0].steps == other.stages[0].steps == 300


def test_the_small_form_of_a_users_own_recipe_and_a_file_of_that_name(tmp_path):
  own = (
    "from __gin__ import dynamic_registration\ninclude 'promot_snli.gin'\nLABEL_SMOOTHING = 0.25\n"
  )
  (tmp_path / "own.gin").write_text(own)
  scanned = gin_config.read(["own_micro.gin"], [], search_paths=str(tmp_path))
  experiment = gin_config.build(scanned)
  assert (experiment.task, experiment.source) == ("snli", "micro")
  (tmp_path / "own_micro.gin").write_text(own.replace("snli", "rte"))  # a file wins
  scanned = gin_config.read(["own_micro.gin"], [], search_paths=str(tmp_path))
  assert scanned.roots == (str(tmp_path / "own_micro.gin"),)
  # An include is found in the same way, and what follows it wins.
  (tmp_path / "own_micro.gin").write_text(own.replace("promot_snli", "promot_rte_micro"))
  experiment = gin_config.build(gin_config.read([str(tmp_path / "own_micro.gin")], []))
  assert (experiment.stages[1].steps, experiment.stages[1].objective.label_smoothing) == (300, 0.25)


def test_near_names_of_small_recipes_are_suggested(tmp_path):
  with pytest.raises(ConfigError, match=r"Did you mean 'promot_snli_micro\.gin'"):
    gin_files.find("promt_snli_micro.gin", [str(FOLDER)])
  with pytest.raises(ConfigError, match="was not found"):
    gin_files.find("micro_micro.gin", [str(FOLDER)])
