"""Ensembles as networks: one copy of what is shared, identity, and what is refused in a sentence."""

import dataclasses
import pathlib

import numpy as np
import pytest
from flax import nnx

from promot_jax import partitioning, paths
from promot_jax.checkpoints import npz
from promot_jax.cli import config_record, gin_config
from promot_jax.cli.main import main
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Beam
from promot_jax.errors import ConfigError
from promot_jax.experiments import shapes
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models.bert_config import BertConfig
from promot_jax.networks import network, trained_methods
from promot_jax.networks.adapted import Adapted
from promot_jax.networks.ensemble import Ensemble
from promot_jax.networks.loaded import Loaded
from promot_jax.networks.network import Network
from promot_jax.networks.run import NOTE, Note, Run
from promot_jax.training import optimizers, schedules
from promot_jax.training.distillation import Distillation
from promot_jax.training.stages import Stage
from shipped_recipes import build, read
from tiny_experiments import BACKBONE, experiment
from tiny_models import config

CONFIG = config("t5")
FIRST = Network(backbone=CONFIG, checkpoint="random", seed=0)
SECOND = dataclasses.replace(FIRST, seed=1)
PAIR = Ensemble(members=[FIRST, SECOND], weights=[0.25])


def test_what_two_members_have_in_common_is_there_once(tmp_path, module_of_tests):
  runs = module_of_tests("networks/test_run")
  members = []
  for name, method in (("prompt", SoftPrompt(length=3)), ("lora", LoRA(rank=2))):
    runs.written(tmp_path / name, method, method.parameters)
    members.append(Run(directory=str(tmp_path / name)))
  together = Ensemble(members=[*members, runs.START])
  together.check()
  leaves = paths.named_leaves(together.build())
  start = paths.named_leaves(runs.START.build())
  for name, leaf in start.items():
    first = leaves[f"members/0/{name}"]
    assert first is leaves[f"members/1/{name}"] is leaves[f"members/2/{name}"]
    np.testing.assert_array_equal(first, leaf)
  own = {name for name in leaves if name.split("/", 2)[-1] not in start}
  assert own == {"members/0/encoder/prompt/prompt", "weights"} | {
    name for name in leaves if "lora" in name
  }
  # A plan counts the arrays that there will be: one prompt, two LoRA, one start.
  assert set(paths.distinct(together.abstract())) == set(paths.distinct(together.build()))
  shared = Loaded(None, lambda line: None)
  begun = paths.named_leaves(shared.model(runs.START))
  again = paths.named_leaves(shared.model(together))
  assert all(again[f"members/1/{name}"] is leaf for name, leaf in begun.items())


def test_its_shapes_are_those_of_what_is_built():
  built, abstract = (paths.named_leaves(each) for each in (PAIR.build(), PAIR.abstract()))
  assert {name: (leaf.shape, leaf.dtype) for name, leaf in built.items()} == {
    name: (leaf.shape, leaf.dtype) for name, leaf in abstract.items()
  }
  np.testing.assert_allclose(built["weights"], [0.25, 0.75])


@pytest.mark.slow
def test_members_on_a_mesh_write_the_same():
  batch = {"encoder_input_tokens": np.asarray([[5, 9, 4, 1], [7, 3, 1, 0]], np.int32)}
  options = {"strategy": Beam(width=2), "max_length": 4}
  expected = generate(PAIR.build(), batch, **options)
  mesh = partitioning.make_mesh(data=2, model=2)
  model = PAIR.build(mesh)
  leaves = paths.named_leaves(model)
  assert not leaves["members/1/token_embedder/embedding"].sharding.is_fully_replicated
  found = generate(model, partitioning.global_batch(batch, mesh), **options)
  np.testing.assert_array_equal(found.tokens, expected.tokens)
  np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_its_identity_and_content_are_of_members_weights_and_space(tmp_path):
  others = [
    dataclasses.replace(PAIR, weights=[0.5]),
    dataclasses.replace(PAIR, space="logits"),
    Ensemble(members=[SECOND, FIRST], weights=[0.25]),
    Ensemble(members=[FIRST, SECOND, SECOND], weights=[0.25, 0.75, 0]),
    FIRST,
  ]
  assert len({each.identity() for each in (PAIR, *others)}) == len(others) + 1
  assert PAIR.content() is None
  file = npz.write_npz(tmp_path / "a.npz", paths.named_leaves(FIRST.build()))
  stored = dataclasses.replace(
    PAIR, members=[dataclasses.replace(FIRST, checkpoint=str(file)), SECOND]
  )
  before = stored.content()
  file.unlink()
  npz.write_npz(tmp_path / "a.npz", paths.named_leaves(SECOND.build()))
  assert before is not None and stored.content() != before


@pytest.mark.parametrize(
  ("weights", "expected"),
  [
    (None, (1 / 3,) * 3),
    ([0.9, 0.1], (0.9, 0.1, 0.0)),  # the rest, without -2e-17
    ((0, 0.25, 0.75), (0.0, 0.25, 0.75)),
  ],
)
def test_weights_are_shares_of_one(weights, expected):
  found = Ensemble(members=[FIRST] * 3, weights=weights).weights
  assert found == pytest.approx(expected, abs=1e-15) and min(found) >= 0


@pytest.mark.parametrize(
  ("weights", "message"),
  [
    ([1.5], r"\[1\.5\] must be shares of 1"),
    ([-0.1], "shares of 1"),
    ([0.5, 0.6], "shares of 1"),
    ([float("nan")], "shares of 1"),
    ([0.2, 0.3, 0.5], "3 numbers for 2 members; give one for each, or one fewer"),
    ([], "0 numbers for 2 members"),
    (0.5, r"weights=0\.5 must be a list of numbers"),
    (["a"], "must be a list of numbers"),
    ([True], "must be a list of numbers"),
  ],
)
def test_other_weights_are_refused(weights, message):
  with pytest.raises(ConfigError, match=message):
    Ensemble(members=[FIRST, SECOND], weights=weights)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"members": []}, "must be a list of networks"),
    ({"members": FIRST}, "must be a list of networks"),
    ({"members": [FIRST, None]}, r"Ensemble\.members\[1\]=None is no network"),
    (
      {"members": [FIRST], "space": "geometric"},
      "'geometric' must be one of probability, log, logits",
    ),
  ],
)
def test_what_is_no_ensemble_is_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    Ensemble(**fields)


def test_members_of_other_words_are_refused_before_anything_is_read():
  larger = dataclasses.replace(SECOND, backbone=config("t5", vocab_size=48))
  absent = dataclasses.replace(larger, checkpoint="/nowhere/at_all")
  alone = Network(backbone=config("gpt2"), checkpoint="random")
  reader = Network(
    backbone=BertConfig(vocab_size=40, width=12, heads=2, mlp_width=20, layers=1),
    checkpoint="random",
  )
  for other, message in [
    (absent, r"member 0 \(random\) has .* 40 rows.*member 1 \(/nowhere/at_all\) .* 48 rows"),
    (SECOND.spelled("mt5"), "vocabulary 't5'.*vocabulary 'mt5'"),
    (alone, "decoder_start=0.*decoder_start=None"),
    (reader, "random is an encoder alone, which writes no text"),
  ]:
    found = Ensemble(members=[FIRST, other])
    for wish in (found.check, found.abstract, found.build):
      with pytest.raises(ConfigError, match=message):
        wish()
  Ensemble(members=[FIRST, dataclasses.replace(SECOND, backbone=config("t5", width=16))]).check()


def test_the_member_with_the_fewest_positions_limits_all():
  members = [
    Network(backbone=config("gpt2", max_positions=size), checkpoint="random") for size in (24, 16)
  ]
  made = Ensemble(members=members)
  assert made.backbone.max_positions == made.abstract().config.max_positions == 16


STAGE = Stage(
  name="taught",
  trainable=".*",
  steps=2,
  batch_size=2,
  optimizer=optimizers.adafactor,
  learning_rate=schedules.constant(0.01),
)


def test_an_ensemble_is_measured_and_teaches_and_is_not_trained():
  start = Network(backbone=BACKBONE, checkpoint="random")
  together = Ensemble(members=[start, dataclasses.replace(start, seed=4)])
  shapes.check(experiment(network=together))
  taught = dataclasses.replace(STAGE, objective=Distillation(), teacher=together)
  shapes.check(experiment(stages=[taught]))
  with pytest.raises(ConfigError, match=r"is 2 networks .* cannot be trained by stage 'taught'"):
    shapes.check(experiment(network=together, stages=[STAGE]))
  with pytest.raises(ConfigError, match="cannot have a SoftPrompt"):
    shapes.check(experiment(network=together, method=SoftPrompt(length=2)))
  with pytest.raises(ConfigError, match="cannot have a LoRA"):
    network.attach(PAIR.abstract(), LoRA(rank=2), None, seed=0)


def test_the_method_of_a_file_goes_onto_members_only(tmp_path):
  method = SoftPrompt(length=3)
  trained = method.attach(FIRST.build(), nnx.Rngs(0))
  file = str(trained_methods.export(tmp_path / "prompt.npz", trained, method))
  with pytest.raises(ConfigError, match=r"cannot have the method of '.*prompt\.npz'"):
    Adapted(network=PAIR, method=file).check()
  Ensemble(members=[Adapted(network=FIRST, method=file), SECOND]).check()


def test_a_recipe_names_one_and_its_directory_is_not_converted(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  for name in ("prompt_tune_rte_micro", "fine_tune_rte_micro"):
    made = build(f"{name}.gin")
    note = Note(start=made.start, method=made.method, stages=[], seed=0)
    pathlib.Path("runs", name).mkdir(parents=True)
    pathlib.Path("runs", name, NOTE).write_text(note.text())
  scanned = read("ensemble_rte.gin", "micro.gin", bindings=["LIGHT_WEIGHT = 0.1"])
  found = gin_config.build(scanned).network
  assert found.weights == (0.1, 0.9) and found.space == "probability"
  assert [member.directory for member in found.members] == [
    "runs/prompt_tune_rte_micro",
    "runs/fine_tune_rte_micro",
  ]
  pathlib.Path("runs/ensemble").mkdir()
  pathlib.Path("runs/ensemble", config_record.FLAT).write_text(config_record.record_text(scanned))
  assert main(["convert", "runs/ensemble", "out", "--to=hf"]) == 2
  assert "An ensemble is 2 networks" in (said := capsys.readouterr().err)
  assert "cannot be written as a checkpoint" in said
  assert not pathlib.Path("out").exists()
