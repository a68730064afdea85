"""Named networks: what they are told apart by, and that equal ones are built once."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.checkpoints import npz
from promot_jax.errors import ConfigError
from promot_jax.networks import micro_model, network
from promot_jax.networks.loaded import Loaded
from promot_jax.networks.network import Network
from tiny_models import config

CONFIG = config("t5")
RANDOM = Network(backbone=CONFIG, checkpoint="random")


def test_identities_are_those_that_results_of_earlier_versions_are_keyed_by():
  micro = Network(backbone=micro_model.config(), checkpoint="micro")
  assert micro.identity() == f"micro:{micro_model.digest()}"
  assert Network(backbone=CONFIG, checkpoint="/a/folder").identity() == "/a/folder"
  kind, seed, digest = RANDOM.seeded(7).identity().split(":")
  assert (kind, seed, len(digest)) == ("random", "7", 12)


def test_a_seed_of_its_own_is_not_the_experiments():
  own = dataclasses.replace(RANDOM, seed=5)
  assert own.seeded(7) == own
  assert RANDOM.seeded(7).identity() != own.identity()


def test_the_shapes_are_those_of_what_is_built():
  built, shapes = RANDOM.build(), RANDOM.abstract()
  assert {name: (leaf.shape, leaf.dtype) for name, leaf in paths.named_leaves(shapes).items()} == {
    name: (leaf.shape, leaf.dtype) for name, leaf in paths.named_leaves(built).items()
  }


def test_a_checkpoint_of_another_model_is_refused_before_it_is_read(tmp_path):
  leaves = paths.named_leaves(RANDOM.build())
  path = npz.write_npz(tmp_path / "weights.npz", leaves)
  fitting = Network(backbone=CONFIG, checkpoint=str(path))
  fitting.check()
  found = paths.named_leaves(fitting.build())
  assert all(np.array_equal(found[name], leaves[name]) for name in leaves)
  other = dataclasses.replace(fitting, backbone=dataclasses.replace(CONFIG, width=10))
  with pytest.raises(ConfigError, match="do not fit the model"):
    other.check()
  before = fitting.content()
  npz.write_npz(tmp_path / "changed.npz", {**leaves, "more": np.ones(3, np.float32)})
  (tmp_path / "changed.npz").replace(path)
  assert before is not None and fitting.content() != before


def test_equal_networks_are_built_once_and_others_can_be_forgotten():
  loaded = Loaded(None, lambda line: None)
  first = loaded.model(RANDOM.seeded(1))
  assert loaded.model(RANDOM.seeded(1)) is first
  other = loaded.model(RANDOM.seeded(2))
  loaded.keep_only(RANDOM.seeded(2))
  assert loaded.model(RANDOM.seeded(2)) is other
  assert loaded.model(RANDOM.seeded(1)) is not first


def test_an_experiment_needs_a_network():
  with pytest.raises(ConfigError, match=r"Experiment\.network='micro' is no network"):
    network.require("micro", what="Experiment.network")


def test_a_method_shares_the_arrays_of_the_model_it_is_attached_to():
  from promot_jax.methods.prompt import SoftPrompt

  model = RANDOM.build()
  attached = network.attach(model, SoftPrompt(length=3), None, seed=0)
  ours = paths.named_leaves(attached)
  for name, leaf in paths.named_leaves(model).items():
    assert ours[name] is leaf
  assert isinstance(attached, nnx.Module) and jax.device_count() >= 1
