"""Networks of combined weights: layouts, meshes, identity, notes of runs, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from promot_jax import partitioning, paths
from promot_jax.checkpoints import npz, t5x_names
from promot_jax.errors import ConfigError
from promot_jax.networks import described
from promot_jax.networks.combined_weights import CombinedWeights
from promot_jax.networks.interpolated import Interpolated
from promot_jax.networks.network import Network
from promot_jax.networks.operations import Dare, Mean, TaskArithmetic
from promot_jax.networks.ties import Ties
from tiny_models import config

CONFIG = config("t5", encoder_layers=2, decoder_layers=2)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
  """(base, two members), checkpoints of unrolled layers."""
  folder = tmp_path_factory.mktemp("networks")
  found = []
  for seed in range(3):
    built = Network(backbone=CONFIG, checkpoint="random", seed=seed).build()
    file = npz.write_npz(folder / f"{seed}.npz", paths.named_leaves(built))
    found.append(Network(backbone=CONFIG, checkpoint=str(file)))
  return found


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_scanned_layers_and_shards_change_nothing(networks, devices):
  # What is dropped, which entries are the largest of all, and how deep a layer is: each by names of layers.
  operation = Dare(rate=0.5, seed=3, then=Ties(density=0.3))

  def named(operation, networks, mesh=None):
    own = CombinedWeights(base=networks[0], members=networks[1:], operation=operation)
    return paths.named_leaves(own.build(mesh))

  scanned = [
    dataclasses.replace(each, backbone=dataclasses.replace(CONFIG, scan_layers=True))
    for each in networks
  ]
  mesh = partitioning.make_mesh(data=1, model=2) if devices > 1 else None
  expected, leaves = named(operation, networks), named(operation, scanned, mesh)
  assert mesh is None or any(not leaf.sharding.is_fully_replicated for leaf in leaves.values())
  abstract = paths.named_leaves(scanned[0].abstract())
  assert {n: leaf.shape for n, leaf in leaves.items()} == {n: s.shape for n, s in abstract.items()}
  found = t5x_names.unrolled(leaves, lambda own, shape, cut: cut(*own))
  for name, leaf in expected.items():
    np.testing.assert_allclose(found[name], leaf, rtol=1e-6, atol=1e-7, err_msg=name)


def test_a_line_is_task_arithmetic_of_one_network(networks):
  base, member, _ = networks
  line = paths.named_leaves(Interpolated(first=base, second=member, weight=0.3).build())
  of_one = CombinedWeights(base=base, members=[member], operation=TaskArithmetic(scales=0.3))
  for name, leaf in paths.named_leaves(of_one.build()).items():
    np.testing.assert_array_equal(line[name], leaf)


def test_its_identity_is_of_all_networks_in_order_and_of_the_operation(networks):
  base, *members = networks
  soup = CombinedWeights(members=members, operation=Mean())
  others = [
    CombinedWeights(members=members[::-1], operation=Mean()),
    CombinedWeights(members=members, operation=Mean(weights=[0.4, 0.6])),
    CombinedWeights(base=base, members=members, operation=Ties()),
    CombinedWeights(base=base, members=members, operation=Ties(trim="array")),
  ]
  assert len({each.identity() for each in (soup, *others)}) == 5
  assert soup.content() is not None
  assert (soup.pretrained, others[-1].pretrained) == (soup, base)
  for each in (soup, *others):
    plain = json.loads(json.dumps(described.describe(each)))
    assert described.build(plain, where="here") == each


def test_what_cannot_be_combined_is_refused_before_anything_is_read(networks):
  base, member, _ = networks
  wider = dataclasses.replace(member, backbone=dataclasses.replace(CONFIG, mlp_width=21))
  with pytest.raises(ConfigError, match=r"mlp/wo/kernel.*20.*21"):
    CombinedWeights(members=[base, wider], operation=Mean()).check()
  with pytest.raises(ConfigError, match=r"has vocabulary t5, and .* mt5"):
    CombinedWeights(members=[base, member.spelled("mt5")], operation=Mean()).check()
  with pytest.raises(ConfigError, match="Ties needs the network that the others began with"):
    CombinedWeights(members=[member], operation=Ties())
  with pytest.raises(ConfigError, match="Mean takes no base"):
    CombinedWeights(base=base, members=[member], operation=Mean())
  with pytest.raises(ConfigError, match=r"members\[0\]=None is no network"):
    CombinedWeights(members=[None], operation=Mean())
  with pytest.raises(ConfigError, match="operation='ties' is no operation"):
    CombinedWeights(members=[member], operation="ties")
