"""Every gin file is read, built and checked with abstract shapes; nothing is allocated."""

import pathlib

import pytest

from promot_jax.cli import config_record, gin_config, gin_scan
from promot_jax.experiments import plan
from promot_jax.experiments.comparison import experiments_of
from tasks import catalog

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "gin"
RECIPES = sorted(path.name for path in FOLDER.glob("*.gin"))


def build(name: str, *bindings: str):
  return gin_config.build(gin_config.read([str(FOLDER / name)], bindings))


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("pretrain_")])
def test_the_recipe_is_sound(name):
  plan.check(build(name))


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_kept_as_plain_values_and_read_back(name, tmp_path):
  scanned = gin_config.read([str(FOLDER / name)], [])
  (tmp_path / config_record.FLAT).write_text(config_record.record_text(scanned))
  again = config_record.read(tmp_path, [])
  assert again.flat() == scanned.flat()
  assert gin_config.program(again) == gin_config.program(scanned)


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_says_command_hardware_and_what_to_expect(name):
  text = (FOLDER / name).read_text()
  for word in ("# Command:", "# Hardware:", "# Expected:"):
    assert word in text, f"{name} lacks {word}"
  assert f"gin_file={name}" in text or name == "quickstart.gin"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/*.gin")), ids=lambda path: path.name)
def test_the_included_file_is_sound_by_itself(path):
  """Macros may be defined elsewhere; imports, classes and parameters must be right here."""
  gin_scan.scan([str(path)], folders=[str(FOLDER)], check=False)


def test_every_recipe_of_the_paper_has_a_micro_twin():
  names = {name.removesuffix(".gin") for name in RECIPES}
  large = {
    n
    for n in names
    if not n.endswith("_micro")
    and n not in ("quickstart", "infix_tune_rte")  # infix: decoder-only, the micro model is not
    and "_xl" not in n
    and "t5_1_1" not in n
  }
  assert not {n for n in large if f"{n}_micro" not in names}


def test_promot_rte_has_the_settings_of_the_paper():
  experiment = build("promot_rte.gin")
  prompt, model = experiment.stages
  config = experiment.backbone
  assert (config.vocab_size, config.width, config.encoder_layers) == (250_112, 4096, 24)
  assert config.dropout_rate == 0.1
  assert (prompt.steps, prompt.save_period, float(prompt.learning_rate(0))) == (
    5000,
    1000,
    pytest.approx(0.2),
  )
  assert (model.steps, model.save_period, float(model.learning_rate(0))) == (
    1000,
    100,
    pytest.approx(1e-3),
  )
  assert prompt.batch_size == model.batch_size == 64
  assert model.objective.label_smoothing == pytest.approx(0.1)
  assert experiment.method.length == 100
  assert experiment.evaluation.strategy.width == 4
  assert experiment.evaluation.shots == (1, 4)
  assert plan.mesh_sizes(experiment.mesh) == {"data": 4, "model": 16}


def test_large_training_sets_are_bounded_and_nothing_is_seen_twice():
  experiment = build("promot_wmt14_enfr.gin")
  seen = sum(stage.steps * stage.batch_size for stage in experiment.stages)
  assert seen <= experiment.train_limit < 1_000_000


def test_the_second_stage_of_promot_trains_everything_but_the_prompt():
  experiment = build("promot_rte_micro.gin")
  stages = plan.stage_plans(experiment, {"data": 1, "model": 1})
  total = stages[0].trainable + stages[0].frozen
  assert stages[0].trainable == experiment.method.length * experiment.backbone.width
  assert stages[1].trainable == total - stages[0].trainable


def test_the_prompt_of_the_random_prompt_recipe_is_not_trained():
  experiment = build("random_prompt_rte_micro.gin")
  (only,) = plan.stage_plans(experiment, {"data": 1, "model": 1})
  assert only.frozen == experiment.method.length * experiment.backbone.width


def test_multitask_promot_has_one_prompt_for_each_task():
  experiment = build("promot_multitask.gin")
  assert experiment.tasks == ["rte", "wmt14_en_fr"]
  assert experiment.method.tasks == 2


def test_multitask_promot_1shot_trains_its_prompts_without_demonstrations():
  experiment = build("promot_multitask_1shot_micro.gin")
  assert catalog.members(experiment.task_of("prompt")) == ["rte", "wmt14_en_fr"]
  assert catalog.members(experiment.task_of("model")) == ["rte_1shot", "wmt14_en_fr_1shot"]


def test_the_quickstart_trains_the_prompt_once():
  experiments = {
    experiment.name: experiment for experiment in experiments_of(build("quickstart.gin"))
  }
  assert list(experiments) == ["pretrained", "prompt_tuning", "fine_tuning", "promot"]
  assert experiments["promot"].imported_stages == {"prompt": "prompt_tuning"}
  assert experiments["promot"].stages[0].steps == experiments["prompt_tuning"].stages[0].steps


def test_the_plan_of_the_xxl_recipe_names_its_parts():
  text = "\n".join(plan.describe(build("promot_rte.gin")))
  for words in (
    "12.9 B parameters",
    "mesh data=4 x model=16 (64 chips)",
    "checkpoint_1000000",
    "rte.tfds.mt5",
    "5000",
    "Beam(width=4, alpha=0.6)",
  ):
    assert words in text


def test_bindings_override_the_recipe():
  experiment = build("promot_rte_micro.gin", "TRAIN_STEPS = 7", "RANDOM_SEED = 5")
  assert experiment.stages[1].steps == 7
  assert experiment.seed == 5
