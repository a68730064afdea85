"""Every gin file is read, built and checked with abstract shapes; nothing is allocated."""

import dataclasses
import functools
import json
import math
import pathlib
import re
import runpy

import jax
import pytest

from promot_jax import paths
from promot_jax.cli import config_record, gin_config, gin_effect, gin_scan
from promot_jax.errors import ConfigError
from promot_jax.evaluation import runs
from promot_jax.evaluation.records import RunRecord
from promot_jax.experiments import epochs, record, shapes
from promot_jax.experiments.comparison import experiments_of
from promot_jax.experiments.experiment import variant_of
from promot_jax.methods import discovery
from promot_jax.methods.prefix import PrefixTuning, Reparameterization
from promot_jax.methods.prompt import PromptNetwork, SoftPrompt
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.networks import described, micro_model, network, texts
from promot_jax.networks.ensemble import Ensemble
from promot_jax.networks.run import NOTE, Note, Run
from promot_jax.planning import plan
from shipped_recipes import FOLDER, ROOT, build, read, small
from tasks import catalog

RECIPES = sorted(path.name for path in FOLDER.glob("*.gin") if path.name != "micro.gin")
# Of the built-in world, and no larger form: the others run on any model that fits them.
SMALL_ONLY = [name for name in RECIPES if name.endswith("_micro.gin")] + ["quickstart.gin"]
WITH_SMALL_FORM = [name for name in RECIPES if name not in SMALL_ONLY]


@pytest.fixture(autouse=True, scope="module")
def here(tmp_path_factory):
  """What recipes read where nothing else is said: a user's own table and templates, and runs that ended."""
  folder = tmp_path_factory.mktemp("here")
  rows = "".join(f"question {number}\tanswer\n" for number in range(9))
  (folder / "train.tsv").write_text("input\ttarget\n" + rows)
  asked = "jinja: '{{premise}} question: {{hypothesis}} ||| {{ answer_choices[label] }}'"
  text = "templates:\n" + "".join(
    f"  {name}: !Template\n    name: {name}\n    answer_choices: True ||| False\n    {asked}\n"
    for name in ("first", "second")
  )
  # In promptsource's layout, too.
  named = re.findall(r"'(\S+/templates.yaml)'", (FOLDER / "comparison_templates.gin").read_text())
  assert named
  for path in ("templates.yaml", *(f"templates/{name}" for name in named)):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)
  with pytest.MonkeyPatch.context() as monkeypatch:
    monkeypatch.chdir(folder)
    # Words become ids when a recipe is built; the tokenizers of real models are not here.
    monkeypatch.setattr(texts, "open_vocabulary", lambda name: WordLengths())
    # What the runs that an ensemble or a soup is made of note of themselves, before any stage.
    for name in (
      "prompt_tune_rte",
      "fine_tune_rte",
      "prompt_tune_rte_micro",
      "fine_tune_rte_micro",
    ):
      made = build(f"{name}.gin")
      note = Note(start=made.start, method=made.method, stages=[], seed=0)
      for seed in ("", "_seed1", "_seed2"):
        (folder / "runs" / (name + seed)).mkdir(parents=True)
        (folder / "runs" / (name + seed) / NOTE).write_text(note.text())
    yield


class WordLengths:
  def encode(self, text: str) -> list[int]:
    return [len(word) for word in text.split()]


# What several tests look at is made once: there are many recipes.
@functools.cache
def started(name: str):
  """What the command of the recipe's header starts."""
  return gin_config.build(read(*command_files(name)))


def shallow(run):
  """The run with two layers a stack: tracing 24 takes seconds and shows nothing that two do not."""
  if hasattr(run, "experiments"):
    return dataclasses.replace(run, experiments=list(map(shallow, run.experiments)), rows=None)
  stages = [stage for stage in run.stages if stage.teacher is not None]
  if run.anchors or not all(map(known, [run.network, *(stage.teacher for stage in stages)])):
    return run
  changed = {
    stage.name: dataclasses.replace(stage, teacher=few_layers(stage.teacher)) for stage in stages
  }
  return dataclasses.replace(
    run,
    network=few_layers(run.network),
    stages=[changed.get(stage.name, stage) for stage in run.stages],
  )


def known(part) -> bool:
  """Whether all that a network is made of is in the recipe: a note on the disk keeps its layers."""
  if isinstance(part, Ensemble):
    return all(map(known, part.members))
  return isinstance(part, network.Network) or (isinstance(part, Run) and part.to_come is not None)


def few_layers(part):
  if isinstance(part, Ensemble):
    return dataclasses.replace(part, members=list(map(few_layers, part.members)))
  if isinstance(part, Run):  # by its bare name, which the comparison looks up again
    return dataclasses.replace(part, directory=pathlib.Path(part.directory).name, to_come=None)
  names = {field.name for field in dataclasses.fields(part.backbone)}
  depth = names & {"layers", "encoder_layers", "decoder_layers"}
  assert depth
  few = dataclasses.replace(part.backbone, **dict.fromkeys(depth, 2))
  return dataclasses.replace(part, backbone=few)


@functools.cache
def small_scan(name: str):
  """The recipe with the overlay, read."""
  return read(small(name))


def header(name: str) -> dict[str, str]:
  return runpy.run_path(str(ROOT / "docs/write_recipes.py"))["header"]((FOLDER / name).read_text())


def command_files(name: str) -> list[str]:
  """The gin files that the header's command names: the recipe, and the hardware that it needs."""
  return re.findall(r"--gin_file=(\S+)", header(name)["Command"]) or [name]


def traced(names):
  """The names; a table of everything takes a minute, and its rows have recipes of their own."""
  long = {"comparison_forgetting.gin"}
  return [pytest.param(each, marks=[pytest.mark.slow] * (each in long)) for each in names]


@pytest.mark.parametrize("name", traced(each for each in RECIPES if each[:9] != "pretrain_"))
def test_the_recipe_is_sound_as_its_command_starts_it(name):
  run = started(name)
  shapes.check(shallow(run))
  for experiment in experiments_of(run):  # others can start from it
    plain = json.dumps([described.describe(each) for each in (experiment.start, experiment.method)])
    start, _ = described.build(json.loads(plain), where="here")
    assert start == experiment.start


@pytest.mark.parametrize("name", traced(WITH_SMALL_FORM))
def test_the_recipe_is_sound_and_small_with_the_overlay(name):
  run = gin_config.build(small_scan(name))
  shapes.check(shallow(run))
  decoder_only = isinstance(experiments_of(started(name))[0].backbone, DecoderLMConfig)
  expected = micro_model.decoder_config() if decoder_only else micro_model.config()
  for experiment in experiments_of(run):
    assert (experiment.backbone.width, experiment.backbone.dropout_rate) == (128, 0.0)
    assert experiment.source == "micro"
    assert type(experiment.backbone) is type(expected)
    assert micro_model.digest(expected) in experiment.start.pretrained.identity()
    assert shapes.mesh_sizes(experiment.mesh) == {"data": 1, "model": 1}
    assert all((stage.steps, stage.batch_size) <= (600, 64) for stage in experiment.stages)
    assert all(stage.frozen_dtype is None for stage in experiment.stages)
    evaluation = experiment.evaluation
    assert (evaluation.limit, evaluation.shots, dict(evaluation.task_lengths)) == (
      96,
      evaluation.shots,
      {},
    )
    assert evaluation.shots in ((1,), (0,))


@pytest.mark.parametrize("name", [*RECIPES, "promot_rte_micro.gin", "adapter_xsum_micro.gin"])
def test_the_recipe_is_kept_as_plain_values_and_read_back(name, tmp_path):
  scanned = read(name)
  (tmp_path / config_record.FLAT).write_text(config_record.record_text(scanned))
  again = config_record.read(tmp_path, [])
  assert again.flat() == scanned.flat()
  assert gin_config.program(again) == gin_config.program(scanned)


@pytest.mark.parametrize("name", [*RECIPES, "micro.gin"])
def test_the_header_says_command_hardware_and_what_to_expect(name):
  text = (FOLDER / name).read_text()
  for word in ("# Command:", "# Hardware:", "# Expected:"):
    assert word in text, f"{name} lacks {word}"
  assert f"gin_file={name}" in text or name == "quickstart.gin"
  assert name == "micro.gin" or "# Paper: " in text


@pytest.mark.parametrize("name", traced(RECIPES))
def test_the_command_of_the_header_names_the_hardware_that_it_speaks_of(name):
  run = started(name)
  if not hasattr(run, "evaluation") and not hasattr(run, "experiments"):
    return  # pretraining
  (mesh,) = {experiment.mesh for experiment in experiments_of(run)}
  chips = re.match(r"(\d+) TPU chips", header(name)["Hardware"])
  assert chips is None or mesh.data * mesh.model == int(chips[1])
  assert chips or (mesh.data, mesh.model) in ((1, 1), (-1, 1))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/*.gin")), ids=lambda path: path.name)
def test_the_included_file_is_sound_by_itself(path):
  """Macros may be defined elsewhere; imports, classes and parameters must be right here."""
  gin_scan.scan([str(path)], folders=[str(FOLDER)], check=False)


def test_meshes_are_set_by_files_of_hardware_alone():
  places = {
    path.parent.name
    for path in FOLDER.rglob("*.gin")
    if re.search(r"^MESH_", path.read_text(), re.M)
  }
  assert places == {"hardware"}
  (mesh,) = {experiment.mesh for experiment in experiments_of(build("comparison_rte.gin"))}
  assert shapes.mesh_sizes(mesh) == {"data": len(jax.devices()), "model": 1}


def test_the_overlay_binds_nothing_that_no_recipe_asks_for():
  overlay = gin_scan.scan([str(FOLDER / "micro.gin")], folders=[str(FOLDER)], check=False)
  idle = {each.place for each in (*overlay.bindings.values(), *overlay.macros.values())}
  for name in WITH_SMALL_FORM:
    scanned = small_scan(name)
    used = gin_effect.reached(scanned).used
    bindings = (*scanned.bindings.values(), *scanned.macros.values())
    idle -= {b.place for b in bindings if (b.scope, b.selector, b.parameter) in used}
  # For recipes of the built-in world, which include the same file.
  assert {place.rpartition("/")[2] for place in idle} <= {
    f"methods.gin:{number}"
    for number, line in enumerate((FOLDER / "micro/methods.gin").read_text().splitlines(), 1)
    if line.startswith("VECTORS_LEARNING_RATE")
  }


def own_names(kind: type) -> set[str]:
  """Names of the parameters that a method adds to a backbone of either family."""
  found: set[str] = set()
  for recipe in ("fine_tune_rte_micro.gin", "infix_tune_rte_micro.gin"):
    backbone = dataclasses.replace(build(recipe), method=None, stages=())
    methods = [kind()]
    if kind is SoftPrompt:
      methods.append(SoftPrompt(network=PromptNetwork()))
    if kind is PrefixTuning:
      methods.append(PrefixTuning(reparameterization=Reparameterization()))
    for method in methods:
      try:
        model = shapes.abstract_model(dataclasses.replace(backbone, method=method))
      except ConfigError:  # infixes need a decoder-only model
        continue
      found |= set(paths.match(method.parameters, paths.named_leaves(model)))
  return found


def test_no_recipe_repeats_the_pattern_of_a_method():
  """A pattern in a recipe selects everything, or parameters of the backbone alone."""
  kinds = {name: kind for name, kind in discovery.kinds().items() if name != "Combined"}
  names = set().union(*map(own_names, kinds.values()))
  assert len(kinds) >= 8
  repeated, words = [], 0

  @functools.cache
  def selected(pattern: str) -> set[str]:
    try:
      return {name for name in names if re.fullmatch(pattern, name)}
    except re.error:
      return set()

  for path in sorted(FOLDER.rglob("*.gin")):
    scanned = gin_scan.scan([str(path)], folders=[str(FOLDER)], check=False)
    for binding in (*scanned.bindings.values(), *scanned.macros.values()):
      for text in strings(binding.value):
        words += text in ("method", "!method")
        hits = selected(text.removeprefix("!"))
        if hits and hits != names:
          repeated.append(f"{binding.place}: {binding.name} = {text!r} selects {min(hits)}")
  assert words and not repeated, "\n".join(repeated)


def strings(value) -> list[str]:
  if isinstance(value, dict):
    value = [*value, *value.values()]
  if isinstance(value, list | tuple):
    return [text for item in value for text in strings(item)]
  return [value] if isinstance(value, str) else []


def test_a_stage_of_a_recipe_trains_what_its_method_adds_networks_included():
  for name in ("prompt_and_prefix_rte_micro.gin", "embedding_only_rte_micro.gin"):
    experiment = build(name)
    (stage,) = shapes.stage_plans(experiment, {"data": 1, "model": 1})
    model = paths.named_leaves(shapes.abstract_model(experiment))
    own = paths.match(experiment.method.parameters, model)
    assert stage.trainable == sum(math.prod(model[each].shape) for each in own)


# As the columns of a report stand, with their names.
PRINTED = {
  "pretrained": "Pretrained",
  "fine_tuning": "Standard fine-tuning",
  "promot": "ProMoT",
  "promot_1shot": "ProMoT + 1-shot",
  "prompt_tuning": "Prompt tuning",
  "prompt_tuning_1shot": "Prompt tuning + 1-shot",
  "joint": "Joint tuning",
  "fine_tuning_1shot": "Fine-tuning + 1-shot",
  "random_prompt": "Fixed random prompt",
  "multitask_fine_tuning": "Multi-task fine-tuning",
  "multitask_promot": "Multi-task ProMoT",
  "multitask_fine_tuning_1shot": "Multi-task fine-tuning + 1-shot",
  "multitask_promot_1shot": "Multi-task ProMoT + 1-shot",
  "prefix_tuning": "Prefix tuning",
  "deep_prompts": "Deep prompts",
  "p_tuning": "P-tuning",
  "embedding_only": "Embedding-only prefix",
  "infix_tuning": "Infix tuning",
  "prompt_and_prefix": "Prompt and prefix",
  "promot_prefix": "ProMoT with a prefix",
  "multitask_promot_prefix": "Multi-task ProMoT with prefixes",
  "lora": "LoRA",
  "promot_lora": "ProMoT with LoRA",
  "promot_lora_r2": "ProMoT with LoRA r=2",
  "promot_lora_r4": "ProMoT with LoRA r=4",
  "adapter": "Adapters",
  "adapter_3": "Adapters, 3 %",
  "adapter_0_1": "Adapters, 0.1 %",
  "bitfit": "BitFit",
  "ia3": "IA3",
  "top_layers": "Top layers",
  "groups": "LoRA and vectors",
  "probing": "Probing",
}


def test_every_row_of_a_recipe_has_its_name_and_place_in_a_report():
  found: dict[str, runs.Run] = {}
  printed: dict[tuple, str] = {}
  for name in RECIPES:
    for each in experiments_of(shallow(started(name))) if not name.startswith("pretrain_") else ():
      # What is printed follows from these, and takes a trace of the model.
      kind = (each.name, each.printed, type(each.method), *(str(s.trainable) for s in each.stages))
      if kind not in printed:
        printed[kind] = record.printed(each)
      made = RunRecord(method=each.name, printed=printed[kind], column=each.column)
      earlier = found.setdefault(each.name, runs.Run(record=made, directory=FOLDER, results={}))
      assert earlier.record == made, f"{name} calls '{each.name}' by another name or place"
  shipped = {method: run for method, run in found.items() if method in PRINTED}
  assert set(shipped) == set(PRINTED)
  order = runs.in_columns(list(reversed(shipped.values())))
  assert {method: runs.method_name(run[0].record) for method, run in order.items()} == PRINTED
  assert list(order) == list(PRINTED)


def test_the_page_of_recipes_is_made_from_the_headers():
  page = runpy.run_path(str(ROOT / "docs/write_recipes.py"))["page"]()
  assert (ROOT / "docs/recipes.md").read_text() == page, "run: python docs/write_recipes.py"
  assert {name for name in RECIPES if f"| `{name}` |" in page} == set(RECIPES)


def test_every_row_of_a_published_table_is_in_its_recipe():
  tables = runpy.run_path(str(ROOT / "docs/write_recipes.py"))["TABLES"]
  assert len(tables) > 10
  for table in tables:
    files = table.files.split()
    assert all((FOLDER / name).is_file() for name in files), table
    if table.rows:
      names = [experiment.name for experiment in experiments_of(started(files[0]))]
      assert set(table.rows.split()) <= set(names), table


def test_every_folder_of_gin_files_is_packaged():
  from setuptools import find_namespace_packages

  folders = {path.parent.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.gin")}
  assert folders == {".", *find_namespace_packages(str(FOLDER))}


def test_promot_rte_has_the_settings_of_the_paper():
  experiment = gin_config.build(read("promot_rte.gin", "hardware/tpu_64.gin"))
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
  assert experiment.evaluation.unseen_method == ("off", "on")
  assert shapes.mesh_sizes(experiment.mesh) == {"data": 4, "model": 16}


# Epochs, rate and batch of full tuning, adapters and prefix tuning, and the prefix's length (Hewitt et al., 2021).
TABLE_3 = {
  "webnlg": ((5, 5e-5, 6), (5, 5e-5, 5), (5, 5e-5, 5), 20),
  "xsum": ((5, 5e-5, 5), (5, 8e-5, 20), (15, 5e-5, 64), 40),
  "nq_open": ((6, 5e-5, 16), (2, 5e-4, 16), (2, 5e-5, 16), 20),
}


@pytest.mark.parametrize("data", TABLE_3)
def test_recipes_of_ensembles_and_cocktails_have_the_settings_of_the_paper(data):
  run = started(f"comparison_cocktail_{data}.gin")
  rows = {experiment.row: epochs.planned(experiment) for experiment in run.experiments}

  def settings(name):
    (stage,) = rows[name].stages
    return stage.epochs, pytest.approx(float(stage.learning_rate(0))), stage.batch_size

  full, adapters, prefix, length = TABLE_3[data]
  assert (settings("fine_tuning"), settings("adapter")) == (full, adapters)
  assert settings("prefix_tuning") == prefix
  assert rows["prefix_tuning"].method.length == length
  assert rows["adapter"].method.bottleneck == 200
  for light in ("prefix", "adapter"):
    cocktail, ensemble = rows[f"cocktail_{light}"], rows[f"ensemble_{light}"]
    assert settings(cocktail.row) == full  # its student is tuned as full tuning is
    assert variant_of(cocktail) == variant_of(rows["fine_tuning"]) and not variant_of(ensemble)
    assert cocktail.start == rows["fine_tuning"].start
    taught = pathlib.Path(cocktail.stages[0].teacher.directory).name
    assert [pathlib.Path(member.directory).name for member in ensemble.network.members] == [
      taught,
      "fine_tuning",
    ]
    assert taught == rows[taught].name and taught.startswith(light)


def test_small_forms_measure_other_data_as_the_tuned_task_too():
  for experiment in gin_config.build(small_scan("comparison_squad_mrqa.gin")).experiments:
    plan = experiment.evaluation
    assert (plan.unseen_method, plan.unseen_written, plan.shots) == (("on",), "tuned", (0,))


def test_a_second_full_tuning_has_a_seed_of_its_own_in_every_run():
  for seed in (0, 3):
    run = build("comparison_cocktail_rte_micro.gin", f"RANDOM_SEED = {seed}")
    seeds = {experiment.name: experiment.seed for experiment in run.experiments}
    assert seeds.pop("fine_tuning_again") == seed + 1000  # 1000 with seed 0, as it always was
    assert set(seeds.values()) == {seed}


def test_large_training_sets_are_bounded_and_nothing_is_seen_twice():
  experiment = build("promot_wmt14_enfr.gin")
  seen = sum(stage.steps * stage.batch_size for stage in experiment.stages)
  assert seen <= experiment.train_limit < 1_000_000


def test_the_second_stage_of_promot_trains_everything_but_the_prompt():
  experiment = build("promot_rte_micro.gin")
  stages = shapes.stage_plans(experiment, {"data": 1, "model": 1})
  total = stages[0].trainable + stages[0].frozen
  assert stages[0].trainable == experiment.method.length * experiment.backbone.width
  assert stages[1].trainable == total - stages[0].trainable


def test_the_prompt_of_the_random_prompt_recipe_is_not_trained():
  experiment = build("random_prompt_rte_micro.gin")
  (only,) = shapes.stage_plans(experiment, {"data": 1, "model": 1})
  assert only.frozen == experiment.method.length * experiment.backbone.width


def test_multitask_promot_has_one_prompt_for_each_task():
  experiment = build("promot_multitask.gin")
  assert experiment.tasks == ["rte", "wmt14_en_fr"]
  assert experiment.method.tasks == 2


def test_multitask_promot_1shot_trains_its_prompts_without_demonstrations():
  experiment = build("promot_multitask_1shot_micro.gin")
  assert catalog.members(experiment.task_of("prompt")) == ["rte", "wmt14_en_fr"]
  assert catalog.members(experiment.task_of("model")) == ["rte_1shot", "wmt14_en_fr_1shot"]


def test_some_rows_of_a_recipe_run_with_those_whose_stages_they_take_over():
  run = build("quickstart.gin", "ROWS = ['promot']")
  assert [experiment.name for experiment in run.experiments] == ["prompt_tuning", "promot"]
  for value, said in (
    ("['promt']", "has 'promt'"),
    ("'promot'", "is 'promot'"),
    ("[]", r"is \[\]|is \(\)"),
  ):
    with pytest.raises(
      ConfigError, match=f"{said}; it must be None or a list.*pretrained, prompt_tuning"
    ):
      build("quickstart.gin", f"ROWS = {value}")


def test_the_quickstart_trains_the_prompt_once():
  experiments = {
    experiment.name: experiment for experiment in experiments_of(build("quickstart.gin"))
  }
  assert list(experiments) == ["pretrained", "prompt_tuning", "fine_tuning", "promot"]
  assert experiments["promot"].imported_stages == {"prompt": "prompt_tuning"}
  assert experiments["promot"].stages[0].steps == experiments["prompt_tuning"].stages[0].steps


def test_the_plan_of_the_xxl_recipe_names_its_parts():
  run = gin_config.build(read("promot_rte.gin", "hardware/tpu_64.gin"))
  text = "\n".join(plan.describe(run))
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
