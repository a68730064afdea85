"""Hugging Face folders without torch: what is refused, how, and what a written folder holds."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax import partitioning, paths
from promot_jax.checkpoints import huggingface, recognition, restore
from promot_jax.checkpoints.huggingface import gpt2, safetensors_file, writer
from promot_jax.errors import CannotWrite, ConfigError, DamagedCheckpoint
from promot_jax.models import T5, sizes
from promot_jax.models.published_sizes import SIZES
from promot_jax.networks import backbones
from tiny_models import config, tiny

CONFIG = config("t5")


@pytest.fixture(scope="module")
def model() -> T5:
  return tiny("t5")


@pytest.fixture
def folder(model, tmp_path):
  return huggingface.write_hf(tmp_path / "hf", paths.named_leaves(model), CONFIG)


def edit_json(path, **changes) -> None:
  content = json.loads(path.read_text())
  content.update(changes)
  path.write_text(json.dumps(content))


def rewrite(folder, change) -> None:
  """Writes the folder's arrays again after `change(dict of numpy arrays)`."""
  file = folder / "model.safetensors"
  arrays = {name: np.array(array) for name, array in safetensors_file.open_file(file).items()}
  change(arrays)
  file.unlink()
  safetensors_file.write_file(
    file, {name: writer.as_stored(name, array) for name, array in arrays.items()}
  )


def test_the_safetensors_package_reads_what_is_written(folder, model):
  safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="needs the [torch] extra")
  stored = safetensors_numpy.load_file(folder / "model.safetensors")
  leaves = paths.named_leaves(model)
  np.testing.assert_array_equal(stored["shared.weight"], leaves["token_embedder/embedding"])
  np.testing.assert_array_equal(
    stored["decoder.block.1.layer.2.DenseReluDense.wi_1.weight"],
    np.asarray(leaves["decoder/layers/1/mlp/wi_1/kernel"]).T,
  )


def test_a_scanned_model_is_written_and_restored_like_an_unrolled_one(folder, tmp_path):
  scanned = tiny("t5", scanned=True)
  out = huggingface.write_hf(tmp_path / "scanned", paths.named_leaves(scanned), CONFIG)
  assert (out / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
  back = restore.restore_into(nnx.eval_shape(lambda: scanned), huggingface.open_hf(folder, CONFIG))
  for name, leaf in paths.named_leaves(scanned).items():
    np.testing.assert_array_equal(paths.named_leaves(back)[name], leaf)


def test_arrays_are_restored_straight_into_the_shards_of_a_mesh(folder, model):
  mesh = partitioning.make_mesh(data=4, model=2)
  abstract = partitioning.abstract(nnx.eval_shape(lambda: model), mesh)
  restored = paths.named_leaves(restore.restore_into(abstract, huggingface.open_hf(folder)))
  for name, leaf in paths.named_leaves(model).items():
    assert restored[name].sharding == paths.named_leaves(abstract)[name].sharding
    np.testing.assert_array_equal(restored[name], leaf)


def test_restored_arrays_do_not_share_memory_with_the_file(folder, model):
  restored = restore.restore_into(nnx.eval_shape(lambda: model), huggingface.open_hf(folder))
  before = np.array(paths.named_leaves(restored)["token_embedder/embedding"])
  with (folder / "model.safetensors").open("r+b") as file:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    file.write(b"\xff" * size)
  after = np.array(paths.named_leaves(restored)["token_embedder/embedding"])
  np.testing.assert_array_equal(after, before)


def test_aliases_of_old_files_are_read_and_must_be_equal(folder, model):
  def rename(arrays):
    arrays["encoder.embed_tokens.weight"] = arrays.pop("shared.weight")
    arrays["decoder.embed_tokens.weight"] = arrays["encoder.embed_tokens.weight"].copy()

  rewrite(folder, rename)
  found = huggingface.open_hf(folder, CONFIG)["token_embedder/embedding"]
  np.testing.assert_array_equal(
    np.asarray(found), paths.named_leaves(model)["token_embedder/embedding"]
  )
  rewrite(folder, lambda arrays: arrays["decoder.embed_tokens.weight"].__iadd__(1))
  with pytest.raises(ConfigError, match="must be equal"):
    np.asarray(huggingface.open_hf(folder, CONFIG)["token_embedder/embedding"])


# What is refused.


def cut(path):
  with path.open("r+b") as file:
    file.truncate(path.stat().st_size - 9)


@pytest.mark.parametrize(
  ("harm", "words"),
  [
    (cut, "is cut off: its arrays need"),
    (lambda path: path.write_bytes(b"version https://git-lfs..."), "no whole safetensors file"),
    (lambda path: path.write_bytes(b"\x02" + b"\0" * 7 + b"[]"), "not of the safetensors format"),
    (lambda path: path.write_bytes(b""), "no whole safetensors file"),
  ],
)
def test_a_broken_file_is_damage_with_exit_code_74(folder, harm, words):
  harm(folder / "model.safetensors")
  with pytest.raises(DamagedCheckpoint, match=words) as caught:
    huggingface.open_hf(folder, CONFIG)
  assert caught.value.exit_code == 74


def test_missing_and_extra_tensors_are_one_table(folder):
  def change(arrays):
    del arrays["encoder.block.0.layer.0.SelfAttention.q.weight"]
    arrays["encoder.block.0.adapter.weight"] = np.zeros((3, 4), np.float32)

  rewrite(folder, change)
  with pytest.raises(ConfigError) as caught:
    huggingface.open_hf(folder, CONFIG)
  text = str(caught.value)
  assert "1 are missing and 1 have no place; it looks like no published size: width 12" in text
  assert "encoder.block.0.layer.0.SelfAttention.q.weight  a tensor  nothing" in text
  assert "encoder.block.0.adapter.weight" in text
  assert "float32[3,4]" in text


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"d_model": None}, "a value that is none of a T5"),
    ({"num_layers": "six"}, "a value that is none of a T5"),
    ({"model_type": None}, "has no model_type"),
  ],
)
def test_a_config_json_that_describes_nothing_is_one_sentence(folder, changes, words):
  edit_json(folder / "config.json", **changes)
  with pytest.raises(ConfigError, match=words):
    huggingface.config(str(folder))


def test_heads_that_do_not_divide_the_width_of_a_gpt2_are_refused():
  content = {"n_embd": 16, "n_head": 3, "n_layer": 1, "vocab_size": 40}
  with pytest.raises(ConfigError, match="n_embd=16 and n_head=3"):
    gpt2.config_from(content, ())


def test_as_many_key_heads_as_heads_may_be_said_or_left_out(tmp_path):
  model = tiny("llama", tied_logits=True, bos=1, eos=2)
  config, leaves = model.config, paths.named_leaves(model)
  folder = huggingface.write_hf(tmp_path / "llama", leaves, config)
  assert huggingface.config(str(folder)).kv_heads == 2
  assert huggingface.open_hf(folder, config).keys() == leaves.keys()


def test_an_adapter_named_as_the_model_is_called_one(folder):
  (folder / "config.json").rename(folder / "adapter_config.json")
  with pytest.raises(ConfigError, match="is a PEFT adapter"):
    huggingface.config(f"hf:{folder}")


@pytest.mark.parametrize(
  ("name", "told"),
  [("bart_large", "bart_large"), ("gpt2_xl", "gpt2_xl"), ("llama_like_1b", ""), ("palm_8b", "")],
)
def test_a_size_is_guessed_and_taken_for_certain_only_where_shapes_tell_it(name, told):
  config = SIZES[name](scan_layers=True)
  shapes = paths.named_leaves(nnx.eval_shape(lambda: backbones.build(config, nnx.Rngs(0))))
  assert f"it looks like {name}, " in recognition.looks_like(shapes)
  assert recognition.size_of(shapes) == told


def test_another_size_is_a_table_of_the_fields_and_a_guess(folder):
  with pytest.raises(ConfigError) as caught:
    huggingface.open_hf(folder, sizes.t5_1_1_small())
  text = str(caught.value)
  assert "is of another model than MODEL" in text
  assert "width 12, layers 1 + 2, mlp width 20, vocabulary 40" in text
  for line in ("width           512       12", "vocab_size      32128     40"):
    assert line in text


def test_a_wrong_config_json_shows_in_the_shapes(folder, model):
  edit_json(folder / "config.json", d_ff=24)
  config = huggingface.config(str(folder))
  wrong = nnx.eval_shape(lambda: T5(config, nnx.Rngs(0)))
  with pytest.raises(ConfigError, match=r"mlp/wi_0/kernel +\[12, 24\] +\[12, 20\]"):
    restore.check_restorable(wrong, huggingface.open_hf(folder, config))


def test_a_checkpoint_of_a_published_size_is_named():
  shapes = {"token_embedder/embedding": (250_112, 768)}
  for stack in ("encoder", "decoder"):
    for layer in range(12):
      shapes[f"{stack}/layers/{layer}/mlp/wi_0/kernel"] = (768, 2048)
  leaves = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
  assert recognition.looks_like(leaves) == "it looks like mt5_base, vocabulary 250112"
  assert recognition.size_of(leaves) == "mt5_base"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_damage_unless_allowed(folder, model, value):
  def spoil(arrays):
    arrays["decoder.block.1.layer.2.DenseReluDense.wo.weight"][3, 4] = value

  rewrite(folder, spoil)
  leaves = huggingface.open_hf(folder, CONFIG)
  abstract = nnx.eval_shape(lambda: model)
  with pytest.raises(DamagedCheckpoint, match="decoder/layers/1/mlp/wo/kernel"):
    restore.restore_into(abstract, leaves, finite=True)
  with pytest.raises(DamagedCheckpoint, match="NaN or infinite"):
    restore.check_finite(leaves)
  restored = paths.named_leaves(restore.restore_into(abstract, leaves))
  assert np.isclose(restored["decoder/layers/1/mlp/wo/kernel"][4, 3], value, equal_nan=True)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"model_type": "longt5"}, "our networks lack the encoder's local attention"),
    ({"model_type": "yours"}, "which cannot be read. Take a checkpoint of bart, bert, gpt2"),
    ({"feed_forward_proj": "gated-swiglu9"}, "our T5 has relu, gelu"),
    ({"layer_norm_epsilon": 1e-5}, "computes with 1e-06 only"),
  ],
)
def test_networks_that_we_do_not_compute_are_refused_in_one_sentence(folder, changes, words):
  edit_json(folder / "config.json", **changes)
  with pytest.raises(ConfigError, match=words) as caught:
    huggingface.config(str(folder))
  assert caught.value.exit_code == 2
  assert len(str(caught.value).splitlines()) == 1


def test_pickled_weights_are_refused_with_the_command_that_converts_them_safely(folder):
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  with pytest.raises(ConfigError, match="weights_only=True"):
    huggingface.open_hf(folder, CONFIG)


def test_the_command_for_pickled_weights_works(folder, model):
  torch = pytest.importorskip("torch", reason="needs the [torch] extra")
  import re
  import subprocess
  import sys

  from safetensors.torch import load_file

  weights = load_file(folder / "model.safetensors")
  weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
  torch.save(weights, folder / "pytorch_model.bin")
  (folder / "model.safetensors").unlink()
  with pytest.raises(ConfigError) as caught:
    huggingface.open_hf(folder, CONFIG)
  code = re.search(r'python -c "(.*)"', str(caught.value))[1]
  subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
  restored = restore.restore_into(
    nnx.eval_shape(lambda: model), huggingface.open_hf(folder, CONFIG), finite=True
  )
  for name, leaf in paths.named_leaves(model).items():
    np.testing.assert_array_equal(paths.named_leaves(restored)[name], leaf)


def test_an_index_must_find_all_of_its_files_in_its_own_folder(model, tmp_path):
  folder = huggingface.write_hf(tmp_path / "hf", paths.named_leaves(model), CONFIG, file_bytes=3000)
  index = folder / "model.safetensors.index.json"
  content = json.loads(index.read_text())
  assert len(set(content["weight_map"].values())) > 3
  first = sorted(set(content["weight_map"].values()))[0]
  (folder / first).rename(folder / "away")
  with pytest.raises(DamagedCheckpoint, match=first):
    huggingface.open_hf(folder, CONFIG)
  shutil.move(folder / "away", tmp_path / first)
  content["weight_map"]["shared.weight"] = f"../{first}"
  index.write_text(json.dumps(content))
  with pytest.raises(DamagedCheckpoint, match="outside of its folder"):
    huggingface.open_hf(folder, CONFIG)


# What is written.


def test_a_failed_write_leaves_nothing(model, tmp_path, monkeypatch):
  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(writer, "_write_json", full)
  with pytest.raises(CannotWrite, match="No space left"):
    huggingface.write_hf(tmp_path / "hf", paths.named_leaves(model), CONFIG)
  assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_overwritten(folder, model):
  with pytest.raises(ConfigError, match="not overwritten"):
    huggingface.write_hf(folder, paths.named_leaves(model), CONFIG)


def test_a_models_prompt_has_no_place_in_the_folder(model, tmp_path):
  leaves = {**paths.named_leaves(model), "encoder/prompt/prompt": np.zeros((4, 12), np.float32)}
  with pytest.raises(ConfigError, match=r"encoder/prompt/prompt +nothing +float32\[4,12\]"):
    huggingface.write_hf(tmp_path / "hf", leaves, CONFIG)
  assert not list(tmp_path.iterdir())


def test_values_beyond_float16_are_refused_when_writing_it(model, tmp_path):
  leaves = dict(paths.named_leaves(model))
  leaves["decoder/decoder_norm/scale"] = leaves["decoder/decoder_norm/scale"] + 1e5
  with pytest.raises(ConfigError, match="float16's largest"):
    huggingface.write_hf(tmp_path / "hf", leaves, CONFIG, dtype="float16")
  assert not list(tmp_path.iterdir())


def test_float16_activations_of_a_t5_are_refused():
  with pytest.raises(ConfigError, match="65504"):
    sizes.t5_1_1_small(dtype="float16")
