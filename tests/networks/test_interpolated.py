"""Interpolated weights against numpy, as a start and in a recipe."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from promot_jax import partitioning, paths
from promot_jax.checkpoints import npz
from promot_jax.cli import gin_config
from promot_jax.errors import ConfigError
from promot_jax.networks.interpolated import Interpolated
from promot_jax.networks.loaded import Loaded
from promot_jax.networks.network import Network
from tiny_models import config

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "gin"
CONFIG = config("t5", encoder_layers=2, decoder_layers=1)


@pytest.fixture
def pair(tmp_path):
  """(first, second) network of checkpoints, the second in another order of its files' names."""
  for number, name in enumerate(("b", "a")):
    built = Network(backbone=CONFIG, checkpoint="random", seed=number).build()
    npz.write_npz(tmp_path / f"{name}.npz", paths.named_leaves(built))
  return [Network(backbone=CONFIG, checkpoint=str(tmp_path / f"{name}.npz")) for name in ("b", "a")]


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0, 1.5])
def test_every_parameter_is_the_weighted_mean(pair, weight):
  first, second = (
    {name: np.asarray(leaf, np.float64) for name, leaf in npz.open_npz(each.checkpoint).items()}
    for each in pair
  )
  found = paths.named_leaves(Interpolated(first=pair[0], second=pair[1], weight=weight).build())
  assert found.keys() == first.keys()
  for name, leaf in found.items():
    expected = (1 - weight) * first[name] + weight * second[name]
    np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-7, err_msg=name)
    if weight in (0.0, 1.0):
      np.testing.assert_array_equal(leaf, (first, second)[int(weight)][name])


def test_two_devices_hold_the_same_values_in_shards(pair):
  mesh = partitioning.make_mesh(data=1, model=2)
  between = Interpolated(first=pair[0], second=pair[1], weight=0.3)
  one, two = paths.named_leaves(between.build()), paths.named_leaves(between.build(mesh))
  assert any(not leaf.sharding.is_fully_replicated for leaf in two.values())
  for name, leaf in one.items():
    np.testing.assert_allclose(two[name], leaf, rtol=1e-6)
  assert jax.device_count() > 1


def test_its_parts_are_loaded_once_for_all(pair):
  loaded = Loaded(None, lambda line: None)
  first = loaded.model(pair[0])
  loaded.model(Interpolated(first=pair[0], second=pair[1]))
  assert loaded.model(pair[0]) is first


def test_its_identity_and_content_are_of_both_and_of_the_weight(pair):
  between = Interpolated(first=pair[0], second=pair[1], weight=0.3)
  others = [
    dataclasses.replace(between, weight=0.4),
    dataclasses.replace(between, weight=0.30000001),
    Interpolated(first=pair[1], second=pair[0], weight=0.3),
    pair[0],
  ]
  assert between.identity() not in [other.identity() for other in others]
  assert between.identity().startswith("interpolated:0.3(")  # as results of before have it
  content = between.content()
  built = Network(backbone=CONFIG, checkpoint="random", seed=5).build()
  pathlib.Path(pair[1].checkpoint).unlink()
  npz.write_npz(pair[1].checkpoint, paths.named_leaves(built))
  assert content is not None and between.content() != content


def test_networks_of_other_shapes_or_words_are_refused_before_anything_is_read(pair):
  wider = dataclasses.replace(pair[1], backbone=dataclasses.replace(CONFIG, mlp_width=21))
  with pytest.raises(ConfigError, match=r"mlp/wo/kernel.*20.*21"):
    Interpolated(first=pair[0], second=wider).check()
  with pytest.raises(ConfigError, match=r"has vocabulary t5, and .* mt5; weights"):
    Interpolated(first=pair[0], second=pair[1].spelled("mt5")).check()
  Interpolated(first=pair[0], second=pair[1]).check()
  with pytest.raises(ConfigError, match=r"Interpolated\.first=None is no network"):
    Interpolated(first=None, second=pair[1])


def test_a_recipe_starts_from_the_network_between_two(tmp_path):
  files = [str(FOLDER / name) for name in ("wise_ft_rte.gin", "micro.gin")]
  scanned = gin_config.read(files, [f"TUNED_CHECKPOINT_PATH = '{tmp_path}'", "TUNED_WEIGHT = 0.25"])
  network = gin_config.build(scanned).network
  assert isinstance(network, Interpolated) and network.weight == 0.25
  assert (network.first.checkpoint, network.second.checkpoint) == ("micro", str(tmp_path))
