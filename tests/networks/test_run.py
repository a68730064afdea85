"""An earlier run as a network: its chosen steps on its start, its method kept, dropped or merged."""

import dataclasses
import json

import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints.step_reader import MARKER
from promot_jax.checkpoints.store import Store
from promot_jax.methods.combined import Combined
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models.t5_config import T5Config
from promot_jax.networks import described, network
from promot_jax.networks.interpolated import Interpolated
from promot_jax.networks.loaded import Loaded
from promot_jax.networks.network import Network
from promot_jax.networks.run import NOTE, Note, Run

CONFIG = T5Config(
  vocab_size=12,
  width=8,
  heads=2,
  head_width=4,
  mlp_width=6,
  encoder_layers=2,
  decoder_layers=1,
)
START = Network(backbone=CONFIG, checkpoint="random", seed=2)
BATCH = {
  "encoder_input_tokens": np.asarray([[4, 9, 6], [8, 3, 1]], np.int32),
  "decoder_input_tokens": np.asarray([[0, 5], [0, 7]], np.int32),
}


def written(folder, method, *trained: str, start=START, chosen=4):
  """A run's directory whose stage i trained `trained[i]`; returns the values of its chosen steps."""
  model = network.attach(start.build(), method, None, seed=5)
  found = {}
  for number, patterns in enumerate(trained):
    leaves = paths.named_leaves(model)
    store = Store(folder / "stages" / f"stage{number}")
    for step in (chosen, 9):
      random = np.random.default_rng(step)
      values = {
        name: random.normal(size=leaves[name].shape).astype(np.float32)
        for name in paths.match(patterns, leaves)
      }
      saved = {f"trainable/{name}": value for name, value in values.items()}
      store.save(step, {**saved, "opt_state/count": np.zeros(3, np.float32)}, {})
      store.wait()
      found |= values if step == chosen else {}
    store.write_json(MARKER, {"step": chosen})
    store.close()
  stages = [f"stage{number}" for number in range(len(trained))]
  note = Note(start=start, method=method, stages=stages, seed=5)
  (folder / NOTE).write_text(note.text())
  return found


def test_the_chosen_steps_of_all_stages_are_on_the_start(tmp_path):
  method = SoftPrompt(length=3)
  values = written(tmp_path, method, method.parameters, r"decoder/.*kernel")
  run = Run(directory=str(tmp_path))
  run.check()
  found, begun = paths.named_leaves(run.build()), paths.named_leaves(START.build())
  assert found.keys() == begun.keys() | set(paths.match(method.parameters, found))
  for name, leaf in found.items():
    np.testing.assert_array_equal(leaf, values.get(name, begun.get(name)), err_msg=name)
  assert (run.backbone, run.vocabulary) == (CONFIG, "t5")


def test_a_method_is_dropped_or_merged(tmp_path):
  method = LoRA(rank=2)
  values = written(tmp_path, method, method.parameters)
  kept = Run(directory=str(tmp_path)).build()
  merged = Run(directory=str(tmp_path), method="merge")
  dropped = Run(directory=str(tmp_path), method="drop")
  begun = paths.named_leaves(START.build())
  for run in (merged, dropped):
    built = paths.named_leaves(run.build())
    assert built.keys() == begun.keys() == paths.named_leaves(run.abstract()).keys()
  found = paths.named_leaves(dropped.build())
  assert all(np.array_equal(found[name], begun[name]) for name in begun)
  np.testing.assert_allclose(merged.build().hidden(BATCH), kept.hidden(BATCH), atol=1e-4, rtol=1e-4)
  assert values and not np.allclose(kept.hidden(BATCH), START.build().hidden(BATCH), atol=1e-2)


def test_a_method_that_has_no_place_in_the_backbone_is_not_merged(tmp_path):
  method = SoftPrompt(length=3)
  written(tmp_path, method, method.parameters)
  with pytest.raises(
    errors.ConfigError, match=r"Run.method='merge': what SoftPrompt adds .* 'keep' or 'drop'"
  ):
    Run(directory=str(tmp_path), method="merge").build()


def test_what_the_run_left_alone_is_the_start_itself(tmp_path):
  method = SoftPrompt(length=3)
  written(tmp_path, method, method.parameters)
  loaded = Loaded(None, lambda line: None)
  start = paths.named_leaves(loaded.model(START))
  found = paths.named_leaves(loaded.model(Run(directory=str(tmp_path))))
  assert all(found[name] is leaf for name, leaf in start.items())


def test_another_choice_is_another_identity(tmp_path):
  method = SoftPrompt(length=3)
  written(tmp_path, method, method.parameters)
  run = Run(directory=str(tmp_path))
  before = run.identity()
  assert before != dataclasses.replace(run, method="drop").identity()
  (tmp_path / "stages" / "stage0" / MARKER).unlink()
  Store(tmp_path / "stages" / "stage0").write_json(MARKER, {"step": 9})
  assert run.identity() != before


def test_a_run_may_start_from_a_run_and_be_interpolated(tmp_path):
  method = LoRA(rank=2)
  written(tmp_path / "one", method, method.parameters)
  first = Run(directory=str(tmp_path / "one"), method="merge")
  values = written(tmp_path / "two", None, ".*/mlp/.*", start=first)
  second = Run(directory=str(tmp_path / "two"))
  between = Interpolated(first=START, second=second, weight=1.0)
  between.check()
  found = paths.named_leaves(between.build())
  merged = paths.named_leaves(first.build())
  for name, leaf in found.items():
    np.testing.assert_array_equal(leaf, values.get(name, merged[name]), err_msg=name)


def test_what_cannot_be_a_start_is_refused_with_a_sentence(tmp_path):
  with pytest.raises(errors.ConfigError, match=r"has no network\.json.*repeat its promot train"):
    Run(directory=str(tmp_path)).check()
  method = SoftPrompt(length=3)
  written(tmp_path, method, r"decoder/.*kernel")  # the prompt was drawn at random and stayed
  with pytest.raises(errors.ConfigError, match=r"encoder/prompt/prompt.*never trained.*'drop'"):
    Run(directory=str(tmp_path)).build()
  Run(directory=str(tmp_path), method="drop").build()
  with pytest.raises(errors.ConfigError, match="has no place in the weights"):
    Run(directory=str(tmp_path), method="merge").check()
  (tmp_path / "stages" / "stage0" / MARKER).unlink()
  with pytest.raises(errors.ConfigError, match=r"stage 'stage0' in .* is not complete"):
    Run(directory=str(tmp_path), method="drop").check()
  (tmp_path / NOTE).write_text((tmp_path / NOTE).read_text().replace("random", "other"))
  with pytest.raises(errors.DamagedRecord):
    Run(directory=str(tmp_path)).check()


@pytest.mark.parametrize(
  "value",
  [
    START,
    Run(directory="a", method="merge"),
    Interpolated(first=START, second=Run(directory="b"), weight=0.25),
    Combined(methods=[SoftPrompt(length=2), LoRA(rank=3)]),
    None,
  ],
)
def test_a_description_gives_the_value_back(value):
  plain = json.loads(json.dumps(described.describe(value)))
  assert described.build(plain, where="here") == value


@pytest.mark.parametrize(
  "name",
  [
    "os.system",
    "promot_jax.cli.main.main",
    "promot_jax.networks.network.attach",
    "promot_jax.networks.micro_model.config",
    "promot_jax.models.sizes.t5_1_1_small",
  ],
)
def test_a_note_names_no_code(name):
  with pytest.raises(errors.ConfigError, match="here needs"):
    described.build({"class": name, "fields": {}}, where="here")


def test_the_built_model_is_a_module():
  assert isinstance(START.build(), nnx.Module)
