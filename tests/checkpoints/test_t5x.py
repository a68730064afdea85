"""Checkpoints that T5X wrote, old and new format, against the values T5X exported as .npz."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx, serialization

from promot_jax import errors, paths
from promot_jax.checkpoints import restore, t5x, t5x_names
from promot_jax.checkpoints.stored import StoredArray, derive, in_stored_order
from promot_jax.models import T5, T5Config

FORMATS = [
  ("t5_1_1_tiny", "legacy"),
  ("t5_1_1_tiny", "orbax"),
  ("t5_1_1_tiny_bf16", "legacy"),
  ("prompt_t5_1_1_tiny", "legacy"),
]


def ours(name):
  """Our name of an unrolled T5X parameter, spelled out independently of the reader."""
  parts = []
  for part in name.split("/"):
    parts += part.split("_") if part.startswith("layers_") else [part]
  return "/".join(parts[:-1] if parts[-2:] == ["prompt", "prompt"] else parts)


def expected_state(shared_data, checkpoint, prefix):
  with np.load(shared_data / "t5x_checkpoint" / checkpoint / "expected_state.npz") as file:
    return {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}


@pytest.mark.parametrize("checkpoint, kind", FORMATS)
def test_parameters_equal_what_t5x_exported(shared_data, checkpoint, kind):
  read = t5x.read_t5x(shared_data / "t5x_checkpoint" / checkpoint / kind)
  expected = expected_state(shared_data, checkpoint, "target/")
  assert read.keys() == {ours(name) for name in expected}
  for name, array in expected.items():
    found = read[ours(name)]
    if checkpoint.endswith("bf16"):
      assert found.dtype == ml_dtypes.bfloat16
      array = array.astype(ml_dtypes.bfloat16)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array, err_msg=name)


@pytest.mark.parametrize("checkpoint, kind", FORMATS)
def test_optimizer_statistics_equal_what_t5x_exported(shared_data, checkpoint, kind):
  folder = shared_data / "t5x_checkpoint" / checkpoint
  read = t5x.read_t5x_optimizer(folder / kind)
  assert int(read.pop("count")) == json.loads((folder / "manifest.json").read_text())["step"]
  expected = expected_state(shared_data, checkpoint, "state/param_states/")
  assert len(read) == len(expected)
  for name, array in expected.items():
    parameter, statistic = name.rsplit("/", 1)
    np.testing.assert_array_equal(read[f"{statistic}/{ours(parameter)}"], array, err_msg=name)


def test_shapes_are_known_before_anything_is_read(shared_data):
  opened = t5x.open_t5x(shared_data / "t5x_checkpoint" / "t5_1_1_tiny" / "legacy")
  leaf = opened["encoder/layers/1/attention/query/kernel"]
  assert (leaf.shape, leaf.dtype) == ((128, 32), np.float32)


def write_legacy(folder, target, *, version=3):
  """A T5X checkpoint with all leaves inline, by flax's own msgpack writer."""
  folder.mkdir(parents=True)
  tree = {"version": version, "optimizer": {"target": target, "state": {"step": np.int32(7)}}}
  (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))
  return folder


def nested(leaves):
  tree = {}
  for name, leaf in leaves.items():
    *parents, last = name.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def test_the_last_finished_step_of_a_folder_is_taken(tmp_path):
  for step in (9, 10):
    write_legacy(tmp_path / f"checkpoint_{step}", {"a": np.full(2, step, np.float32)})
  (tmp_path / "checkpoint_11.tmp-1234").mkdir()
  np.testing.assert_array_equal(t5x.read_t5x(tmp_path)["a"], [10, 10])
  np.testing.assert_array_equal(t5x.read_t5x(tmp_path / "checkpoint_9")["a"], [9, 9])


def test_scanned_t5x_layers_become_single_layers(tmp_path):
  embed, layers, heads, kv, mlp = 5, 3, 2, 4, 7
  draw = np.random.default_rng(0).normal
  query = draw(size=(embed, layers, heads, kv)).astype(np.float32)
  out = draw(size=(heads, layers, kv, embed)).astype(np.float32)
  wo = draw(size=(mlp, layers, embed)).astype(np.float32)
  scale = draw(size=(embed, layers)).astype(np.float32)
  bias = np.repeat(draw(size=(heads, 1, 32)).astype(np.float32), layers, axis=1)
  target = nested(
    {
      "encoder/encoder/attention/query/kernel": query,
      "encoder/encoder/attention/out/kernel": out,
      "encoder/encoder/mlp/wo/kernel": wo,
      "encoder/encoder/pre_mlp_layer_norm/scale": scale,
      "encoder/encoder/relpos_bias/rel_embedding": bias,
      "encoder/encoder_norm/scale": scale[:, 0],
    }
  )
  read = t5x.read_t5x(write_legacy(tmp_path / "checkpoint_1", target))
  assert len(read) == 4 * layers + 2
  x = draw(size=embed).astype(np.float32)
  for layer in range(layers):
    prefix = f"encoder/layers/{layer}"
    # the joined kernel must give the heads side by side, head-major
    joined = x @ read[f"{prefix}/attention/query/kernel"]
    np.testing.assert_allclose(
      joined.reshape(heads, kv), np.einsum("e,ehk->hk", x, query[:, layer]), rtol=1e-5
    )
    np.testing.assert_allclose(
      joined @ read[f"{prefix}/attention/out/kernel"],
      np.einsum("hk,hke->e", joined.reshape(heads, kv), out[:, layer]),
      rtol=1e-4,
      atol=1e-5,
    )
    np.testing.assert_array_equal(read[f"{prefix}/mlp/wo/kernel"], wo[:, layer])
    np.testing.assert_array_equal(read[f"{prefix}/pre_mlp_layer_norm/scale"], scale[:, layer])
  np.testing.assert_array_equal(read["encoder/relpos_bias/rel_embedding"], bias[:, 0])
  np.testing.assert_array_equal(read["encoder/encoder_norm/scale"], scale[:, 0])


def test_an_array_of_scanned_layers_is_read_once_for_all_layers():
  reads = []

  def scanned(name):
    def read():
      reads.append(name)
      return np.zeros((5, 3), np.float32)

    return StoredArray(name=name, shape=(5, 3), dtype=np.dtype("f4"), read=read)

  names = [f"encoder/encoder/pre_{part}_layer_norm/scale" for part in ("attention", "mlp")]
  leaves = t5x_names.to_ours({name: scanned(name) for name in names})
  assert len(leaves) == 6
  for name in in_stored_order(leaves):
    assert np.asarray(leaves[name]).shape == (5,)
  assert sorted(reads) == names


def test_position_biases_that_differ_between_layers_belong_to_the_layers(tmp_path):
  bias = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32)
  target = nested({"decoder/decoder/relpos_bias/rel_embedding": bias})
  read = t5x.read_t5x(write_legacy(tmp_path / "checkpoint_1", target))
  assert read.keys() == {f"decoder/layers/{i}/relpos_bias/rel_embedding" for i in range(3)}
  for layer in range(3):  # the layer axis is the second one, as transformers' converter reads it
    found = read[f"decoder/layers/{layer}/relpos_bias/rel_embedding"]
    np.testing.assert_array_equal(found, bias[:, layer])


def of_decoder(config, **changes):
  """Abstract decoder parameters of a small T5."""
  model = nnx.eval_shape(lambda: T5(dataclasses.replace(config, **changes), nnx.Rngs(0)))
  return nnx.state(model)["decoder"]


SMALL = T5Config(
  vocab_size=6, width=4, heads=2, head_width=3, mlp_width=5, encoder_layers=1, decoder_layers=3
)


@pytest.mark.parametrize("scanned", [False, True])
def test_a_shared_table_fills_the_layers_of_a_model_that_has_one_in_each(scanned):
  state = of_decoder(SMALL)
  draw = np.random.default_rng(0).normal
  leaves = {n: draw(size=leaf.shape) for n, leaf in paths.named_leaves(state).items()}
  own = of_decoder(SMALL, relative_bias="per_layer", scan_layers=scanned)
  wanted = paths.named_leaves(own)
  found = t5x_names.to_layout_of(
    {f"decoder/{name}": leaf for name, leaf in leaves.items()},
    {f"decoder/{name}": leaf for name, leaf in wanted.items()},
    derive,
  )
  assert {name.removeprefix("decoder/") for name in found} == set(wanted)
  for name, leaf in found.items():
    if "relpos_bias" in name:
      shape = wanted[name.removeprefix("decoder/")].shape
      table = leaves["relpos_bias/rel_embedding"]
      np.testing.assert_array_equal(np.asarray(leaf), np.broadcast_to(table, shape))


def test_tables_of_layers_are_refused_by_a_model_that_shares_one():
  leaves = {f"decoder/layers/{i}/relpos_bias/rel_embedding": np.zeros((2, 32)) for i in range(3)}
  wanted = {f"decoder/{name}": leaf for name, leaf in paths.named_leaves(of_decoder(SMALL)).items()}
  with pytest.raises(errors.ConfigError, match="relative_bias = 'per_layer'"):
    t5x_names.to_layout_of(leaves, wanted, derive)


class Layer(nnx.Module):
  def __init__(self, shape, dtype):
    self.scale = nnx.Param(jnp.zeros(shape, dtype))


class Stack(nnx.Module):
  def __init__(self, *, scanned, dtype=jnp.float32):
    self.layers = Layer((3, 5), dtype) if scanned else nnx.List([Layer(5, dtype) for _ in range(3)])
    self.norm = nnx.Param(jnp.zeros(5, dtype))


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("given_scanned", [False, True])
def test_leaves_fill_scanned_and_unrolled_models_alike(scanned, given_scanned):
  values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
  if given_scanned:
    leaves = {"layers/scale": values[:3], "norm": values[3]}
  else:
    leaves = {f"layers/{i}/scale": values[i] for i in range(3)} | {"norm": values[3]}
  model = restore.restore_into(Stack(scanned=scanned), leaves)
  restored = paths.named_leaves(model)
  stacked = (
    restored["layers/scale"]
    if scanned
    else np.stack([restored[f"layers/{i}/scale"] for i in range(3)])
  )
  np.testing.assert_array_equal(stacked, values[:3])
  np.testing.assert_array_equal(restored["norm"], values[3])


def test_restored_leaves_take_the_type_and_place_of_the_model():
  abstract = nnx.eval_shape(lambda: Stack(scanned=True, dtype=jnp.bfloat16))
  leaves = {"layers/scale": np.full((3, 5), 1 + 2**-10, np.float32), "norm": np.ones(5)}
  restored = paths.named_leaves(restore.restore_into(abstract, leaves))
  assert isinstance(restored["layers/scale"], jax.Array)
  assert restored["layers/scale"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(restored["layers/scale"], np.ones((3, 5)))


def test_a_wrong_model_is_refused_with_a_table_before_anything_is_read():
  def refuse():
    raise AssertionError("was read")

  leaves = {
    "layers/0/scale": t5x.StoredArray(name="x", shape=(6,), dtype=np.dtype("f4"), read=refuse),
    "layers/1/scale": np.zeros(5),
    "norm": np.zeros(5),
    "bias": np.zeros(2),
  }
  with pytest.raises(errors.ConfigError) as caught:
    restore.restore_into(Stack(scanned=False), leaves)
  rows = [line.split() for line in str(caught.value).splitlines()[1:]]
  assert rows == [
    ["name", "expected", "found"],
    ["bias", "nothing", "[2]"],
    ["layers/0/scale", "[5]", "[6]"],
    ["layers/2/scale", "[5]", "nothing"],
  ]


def test_named_parameters_may_be_kept_or_ignored():
  model = Stack(scanned=True)
  leaves = {"layers/scale": np.ones((3, 5)), "prompt": np.ones(2)}
  restored = restore.restore_into(model, leaves, keep="norm", ignore="prompt")
  assert restored.norm[...] is model.norm[...]
  np.testing.assert_array_equal(restored.layers.scale[...], np.ones((3, 5)))


def test_the_t5x_prompt_fills_our_prompt(shared_data):
  folder = shared_data / "t5x_checkpoint" / "prompt_t5_1_1_tiny" / "legacy"
  saved = np.load(
    folder / "numpy_checkpoints" / "checkpoint_1234567" / "encoder.prompt.prompt.prompt"
  )
  np.testing.assert_array_equal(t5x.read_t5x(folder)["encoder/prompt/prompt"], saved)


def copied(shared_data, tmp_path, kind="legacy"):
  source = shared_data / "t5x_checkpoint" / "t5_1_1_tiny" / kind / "checkpoint_1234567"
  return shutil.copytree(source, tmp_path / source.name, copy_function=shutil.copyfile)


def writable(path):
  for entry in [path, *path.rglob("*")]:
    entry.chmod(0o755)
  return path


def test_missing_and_broken_chunks_are_damage_and_not_zeros(shared_data, tmp_path):
  folder = writable(copied(shared_data, tmp_path))
  chunk = folder / "target.encoder.encoder_norm.scale" / "0"
  content = chunk.read_bytes()
  chunk.write_bytes(content[: len(content) // 2])
  with pytest.raises(errors.DamagedCheckpoint, match="encoder_norm"):
    t5x.read_t5x(folder)
  chunk.unlink()
  with pytest.raises(errors.DamagedCheckpoint, match="encoder_norm"):
    t5x.read_t5x(folder)


def test_contradicting_shapes_and_missing_folders_are_damage(shared_data, tmp_path):
  folder = writable(copied(shared_data, tmp_path))
  array = folder / "target.encoder.encoder_norm.scale" / ".zarray"
  array.write_text(array.read_text().replace("128", "64"))
  with pytest.raises(errors.DamagedCheckpoint, match=r"\[128\].*\[64\]"):
    t5x.open_t5x(folder)
  shutil.rmtree(array.parent)
  with pytest.raises(errors.DamagedCheckpoint, match="cannot be opened"):
    t5x.open_t5x(folder)


def test_cut_files_are_damage(shared_data, tmp_path):
  folder = writable(copied(shared_data, tmp_path, "legacy"))
  content = (folder / "checkpoint").read_bytes()
  (folder / "checkpoint").write_bytes(content[:-100])
  with pytest.raises(errors.DamagedCheckpoint):
    t5x.open_t5x(folder)
  orbax = writable(copied(shared_data, tmp_path / "orbax", "orbax"))
  (orbax / "state" / "_METADATA").write_text("{")
  with pytest.raises(errors.DamagedCheckpoint):
    t5x.open_t5x(orbax)


def test_folders_that_hold_something_else_are_config_errors(tmp_path):
  with pytest.raises(errors.ConfigError, match="not a folder"):
    t5x.read_t5x(tmp_path / "absent")
  with pytest.raises(errors.ConfigError, match="no T5X checkpoint"):
    t5x.read_t5x(tmp_path)
  (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1000000"')
  with pytest.raises(errors.ConfigError, match="TensorFlow"):
    t5x.read_t5x(tmp_path)
  with pytest.raises(errors.ConfigError, match="version 2"):
    t5x.read_t5x(write_legacy(tmp_path / "old", {"a": np.ones(1)}, version=2))


def test_a_path_inside_of_a_checkpoint_cannot_point_elsewhere(shared_data, tmp_path):
  reference = {
    "driver": "zarr",
    "dtype": "float32",
    "kvstore": {"driver": "file", "path": "../../elsewhere/secret/"},
    "metadata": {"shape": [2], "chunks": [2]},
  }
  folder = tmp_path / "checkpoint_1"
  (tmp_path.parent / "elsewhere").mkdir(exist_ok=True)
  with pytest.raises(errors.DamagedCheckpoint) as caught:
    t5x.open_t5x(write_legacy(folder, {"a": reference}))
  assert "elsewhere" not in str(caught.value)
