"""A network with the method of a file: the same outputs, name and refusals wherever a network stands."""

import dataclasses
import pathlib

import numpy as np
import pytest

from promot_jax import errors, partitioning, paths
from promot_jax.checkpoints import npz
from promot_jax.checkpoints.method_files import Backbone
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prefix import PrefixTuning
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.networks import network, trained_methods
from promot_jax.networks.adapted import Adapted
from promot_jax.networks.interpolated import Interpolated
from promot_jax.networks.loaded import Loaded
from promot_jax.networks.network import Network
from tiny_models import config

CONFIG = config("t5", encoder_layers=2, decoder_layers=1)
START = Network(backbone=CONFIG, checkpoint="random", seed=2)
BATCH = {
  "encoder_input_tokens": np.asarray([[4, 9, 6], [8, 3, 1]], np.int32),
  "decoder_input_tokens": np.asarray([[0, 5], [0, 7]], np.int32),
}


def written(path: pathlib.Path, method, seed: int = 1):
  """A method file of values that were drawn on START; the model that it is of."""
  attached = network.attach(START.build(), method, None, seed=seed)
  trained_methods.export(path, attached, method)
  return attached


@pytest.mark.parametrize(
  "method", [SoftPrompt(length=3), LoRA(rank=2), PrefixTuning(length=2)], ids=lambda m: m.printed
)
def test_it_is_the_model_that_the_file_was_written_from(tmp_path, method):
  model = written(tmp_path / "m.npz", method)
  adapted = Adapted(network=START, method=str(tmp_path / "m.npz"))
  adapted.check()
  built, shapes = paths.named_leaves(adapted.build()), paths.named_leaves(adapted.abstract())
  assert {name: leaf.shape for name, leaf in shapes.items()} == {
    name: leaf.shape for name, leaf in built.items()
  }
  for name, leaf in paths.named_leaves(model).items():
    np.testing.assert_array_equal(built[name], leaf, err_msg=name)
  assert (adapted.backbone, adapted.vocabulary) == (CONFIG, "t5")


def test_its_backbone_is_the_network_itself_and_its_values_lie_on_the_mesh(tmp_path):
  written(tmp_path / "m.npz", SoftPrompt(length=3))
  adapted = Adapted(network=START, method=str(tmp_path / "m.npz"))
  mesh = partitioning.make_mesh(data=1, model=2)
  loaded = Loaded(mesh, lambda line: None)
  start = paths.named_leaves(loaded.model(START))
  found = paths.named_leaves(loaded.model(adapted))
  assert all(found[name] is leaf for name, leaf in start.items())
  (prompt,) = (leaf for name, leaf in found.items() if name not in start)
  assert prompt.sharding.device_set == set(mesh.devices.flat)


def test_its_identity_is_that_of_the_network_and_of_the_files_values(tmp_path):
  digests = []
  for seed in (1, 2):
    (tmp_path / "m.npz").unlink(missing_ok=True)
    written(tmp_path / "m.npz", SoftPrompt(length=3), seed)
    adapted = Adapted(network=START, method=str(tmp_path / "m.npz"))
    start, _, digest = adapted.identity().partition("/method ")
    assert start == START.identity()
    digests.append(digest)
  assert digests[0] != digests[1]
  assert Adapted(network=START.spelled("mt5"), method="m").spelled("t5").vocabulary == "t5"


def test_it_may_stand_in_another_network(tmp_path):
  path = tmp_path / "m.npz"
  model = written(path, SoftPrompt(length=3))
  adapted = Adapted(network=START, method=str(path))
  other = written(tmp_path / "n.npz", SoftPrompt(length=3), seed=2)
  between = Interpolated(
    first=adapted, second=dataclasses.replace(adapted, method=str(tmp_path / "n.npz")), weight=0.5
  )
  between.check()
  name = "encoder/prompt/prompt"
  first, second = (paths.named_leaves(each)[name] for each in (model, other))
  found = paths.named_leaves(between.build())[name]
  np.testing.assert_allclose(found, (np.asarray(first) + second) / 2, rtol=1e-6)


def test_what_does_not_fit_is_refused_before_a_checkpoint_is_read(tmp_path):
  path = tmp_path / "m.npz"
  written(path, LoRA(rank=2))
  npz.write_npz(tmp_path / "damaged.npz", {"a": np.full(3, np.nan, np.float32)})
  wider = dataclasses.replace(CONFIG, mlp_width=21)
  for checkpoint in (str(tmp_path / "damaged.npz"), "random"):
    backbone = Network(backbone=wider, checkpoint=checkpoint)
    with pytest.raises(errors.ConfigError, match=r"m\.npz' was trained with a T5 of .* this model"):
      Adapted(network=backbone, method=str(path)).check()
  other = Network(backbone=CONFIG, checkpoint="random", seed=3)
  with pytest.raises(errors.ConfigError, match="other weights"):
    Adapted(network=other, method=str(path)).build()
  with pytest.raises(errors.ConfigError, match="no method file"):
    Adapted(network=START, method=str(tmp_path / "absent.npz")).check()
  with pytest.raises(errors.ConfigError, match=r"Adapted\.method=None is no path"):
    Adapted(network=START, method=None)
  with pytest.raises(errors.ConfigError, match=r"Adapted\.network='micro' is no network"):
    Adapted(network="micro", method=str(path))
  assert Backbone.of(START.build()).parameters == paths.count(START.abstract())
