"""Files of weights that are damaged, or made to do harm: one sentence, and never another exception."""

import io
import json
import random
import zipfile

import msgpack
import numpy as np
import pytest

from promot_jax.checkpoints import json_file, method_files, npz, prompt_files, t5x
from promot_jax.checkpoints.huggingface import importer, safetensors_file
from promot_jax.checkpoints.peft import lora
from promot_jax.checkpoints.stored import as_stored
from promot_jax.errors import ConfigError, DamagedCheckpoint, PromotError
from tiny_models import config

TIMES = 300


def safetensors(header, body=b"\0" * 24):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return len(text).to_bytes(8, "little") + text + body


def entry(dtype="F32", shape=(6,), offsets=(0, 24)):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


NESTED = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
HEADERS = {
  "nested": NESTED,
  "nested lists": b'{"a":{"dtype":"F32","shape":' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
  "a list": b"[]",
  "a number of many digits": b'{"a": ' + b"9" * 5000 + b"}",
  "not UTF-8": b'{"\xff": 1}',
  "a name twice": b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2),
  "overlap": {"a": entry(shape=(4,), offsets=(0, 16)), "b": entry(shape=(4,), offsets=(8, 24))},
  "a gap": {"a": entry(shape=(2,), offsets=(0, 8)), "b": entry(shape=(2,), offsets=(16, 24))},
  "a gap in front": {"a": entry(shape=(4,), offsets=(8, 24))},
  "two arrays in one place": {"a": entry(), "b": entry()},
  "a negative size": {"a": entry(shape=(-2, -3))},
  "a negative offset": {"a": entry(offsets=(-24, 0))},
  "offsets in reverse": {"a": entry(offsets=(24, 0))},
  "a huge size beside none": {"a": entry(shape=(0, 10**30), offsets=(0, 0)), "b": entry()},
  "huge sizes": {"a": entry(shape=(10**12, 10**12))},
  "too many axes": {"a": entry(shape=(1,) * 99 + (6,))},
  "a broken size": {"a": entry(shape=(6.0,))},
  "a true size": {"a": entry(shape=(True,), offsets=(0, 24))},
  "a size in words": {"a": entry(shape=("6",))},
  "a size too small": {"a": entry(shape=(5,))},
  "three offsets": {"a": {**entry(), "data_offsets": [0, 8, 24]}},
  "beyond the file": {"a": entry(shape=(10**9,), offsets=(0, 4 * 10**9))},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_contradicts_itself_is_damage(tmp_path, kind):
  file = tmp_path / "model.safetensors"
  file.write_bytes(safetensors(HEADERS[kind]))
  with pytest.raises(DamagedCheckpoint, match=r"Copy it again|cannot have") as caught:
    safetensors_file.open_file(file)
  assert len(str(caught.value)) < 500


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 200_000_000, 40])
def test_a_header_that_is_longer_than_the_file_is_damage(tmp_path, length):
  file = tmp_path / "model.safetensors"
  file.write_bytes(length.to_bytes(8, "little") + b"{}")
  with pytest.raises(DamagedCheckpoint, match="no whole safetensors file"):
    safetensors_file.open_file(file)


@pytest.mark.parametrize("kind", ["F8_E4M3", "U64", "I4", "C64", ""])
def test_a_type_that_is_not_read_is_said(tmp_path, kind):
  file = tmp_path / "model.safetensors"
  file.write_bytes(safetensors({"a": entry(dtype=kind)}))
  with pytest.raises(ConfigError, match="which is not read"):
    safetensors_file.open_file(file)


def test_a_file_that_changes_after_it_was_opened_is_damage(tmp_path):
  file = tmp_path / "model.safetensors"
  file.write_bytes(safetensors({"a": entry()}))
  array = safetensors_file.open_file(file)["a"]
  file.write_bytes(b"")
  with pytest.raises(DamagedCheckpoint, match="was changed while it was read"):
    array.read()


def npy(shape, dtype="<f4", body=b"\0" * 24):
  stream = io.BytesIO()
  described = {"descr": dtype, "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(stream, described)
  return stream.getvalue() + body


def test_a_npy_file_is_read(tmp_path):
  values = np.arange(12, dtype=np.float32).reshape(3, 4)
  np.save(tmp_path / "a.npy", values)
  np.testing.assert_array_equal(prompt_files.read_prompt(tmp_path / "a.npy"), values)
  np.save(tmp_path / "b.npy", np.asfortranarray(values))
  np.testing.assert_array_equal(prompt_files.read_prompt(tmp_path / "b.npy"), values)
  np.savez_compressed(tmp_path / "c.npz", a=np.zeros((300, 400)), b=np.asfortranarray(values))
  stored = npz.open_npz(tmp_path / "c.npz")
  np.testing.assert_array_equal(np.asarray(stored["b"]), values)
  np.testing.assert_array_equal(np.asarray(stored["a"]), np.zeros((300, 400)))


@pytest.mark.parametrize(
  "shape", [(10**12,), (10**6, 10**6), (2**40, 2**40), (5,), (7,), (-1,), (1,) * 40]
)
def test_a_declared_size_is_compared_with_the_file_before_memory_is_taken(tmp_path, shape):
  (tmp_path / "prompt.npy").write_bytes(npy(shape))
  with pytest.raises(DamagedCheckpoint, match=r"declares an array|no whole .npy file"):
    prompt_files.read_prompt(tmp_path / "prompt.npy")
  with zipfile.ZipFile(tmp_path / "prompt.npz", "w") as archive:
    archive.writestr("prompt.npy", npy(shape))
  for read in (npz.open_npz, prompt_files.read_prompt, method_files.read):
    with pytest.raises(DamagedCheckpoint, match=r"declares an array|no whole .npz file"):
      read(tmp_path / "prompt.npz")


def test_objects_are_not_read(tmp_path):
  np.save(tmp_path / "prompt.npy", np.array([{}], dtype=object), allow_pickle=True)
  np.savez(tmp_path / "prompt.npz", prompt=np.array([{}], dtype=object), allow_pickle=True)
  for name in ("prompt.npy", "prompt.npz"):
    with pytest.raises(ConfigError, match="Python objects, which are never read"):
      prompt_files.read_prompt(tmp_path / name)


@pytest.mark.parametrize("text", [NESTED, b"[1]", b"\xff", b"{", b"1" * 5000])
def test_json_that_is_no_object_is_damage(tmp_path, text):
  (tmp_path / "config.json").write_bytes(text)
  with pytest.raises(DamagedCheckpoint, match="Copy it again"):
    json_file.read_object(tmp_path / "config.json")


def mutated(content, numbers):
  """The bytes with some changes: bits, values, pieces cut out or doubled, an end cut off."""
  changed = bytearray(content)
  for _ in range(numbers.choice((1, 1, 2, 5))):
    place = numbers.randrange(len(changed))
    match numbers.randrange(5):
      case 0:
        changed[place] ^= 1 << numbers.randrange(8)
      case 1:
        changed[place] = numbers.choice(b'0129-{}[]",:e.\\u')
      case 2:
        del changed[place : place + numbers.randrange(1, 20)]
      case 3:
        changed[place:place] = changed[place : place + numbers.randrange(1, 20)]
      case _:
        del changed[place:]
    if not changed:
      return b""
  return bytes(changed)


def read_everything(arrays):
  for array in arrays.values():
    np.asarray(array)


def survives(file, content, read):
  """Reads mutations of a file; returns how many were refused."""
  numbers, refused = random.Random(5), 0
  for _ in range(TIMES):
    file.write_bytes(mutated(content, numbers))
    try:
      read(file)
    except PromotError:
      refused += 1
  return refused


def test_mutations_of_a_safetensors_file_raise_nothing_of_their_own(tmp_path):
  file = tmp_path / "model.safetensors"
  arrays = {
    "a.weight": np.ones((2, 3), np.float32),
    "b": np.ones((4,), np.float16),
    "c": np.ones((), np.float64),
    "none": np.ones((0, 2), np.float32),
  }
  safetensors_file.write_file(
    file, {name: as_stored(name, array) for name, array in arrays.items()}
  )
  content = file.read_bytes()
  refused = survives(file, content, lambda path: read_everything(safetensors_file.open_file(path)))
  assert TIMES / 3 < refused < TIMES


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_mutations_of_a_npz_file_raise_nothing_of_their_own(tmp_path, save):
  file = tmp_path / "file.npz"
  save(file, first=np.ones((2, 3), np.float32), second=np.arange(5))
  content = file.read_bytes()
  refused = survives(file, content, lambda path: read_everything(npz.open_npz(path)))
  assert TIMES / 3 < refused <= TIMES


def test_mutations_of_a_npy_file_raise_nothing_of_their_own(tmp_path):
  file = tmp_path / "prompt.npy"
  np.save(file, np.ones((2, 3), np.float32))
  assert TIMES / 5 < survives(file, file.read_bytes(), prompt_files.read_prompt) < TIMES


# Values of every type in place of settings.

JUNK = [True, -1, 10**30, 1e308, "x", [], [1], {"a": 1}, [[1]]]
CONFIGS = {
  "t5": {
    "model_type": "t5",
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 16,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "vocab_size": 32,
    "feed_forward_proj": "gated-gelu",
  },
  "llama": {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "rope_scaling": None,
  },
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_json_with_a_value_of_another_type_is_refused_or_read(tmp_path, kind):
  refused = 0
  for name in CONFIGS[kind]:
    for value in JUNK:
      (tmp_path / "config.json").write_text(json.dumps(CONFIGS[kind] | {name: value}))
      try:
        importer.config(str(tmp_path))
      except PromotError:
        refused += 1
  assert refused > 3 * len(JUNK)


@pytest.mark.parametrize("layers", [10**9, 10**30, -1])
@pytest.mark.parametrize("weights", [True, False])
def test_layers_that_no_tensor_can_be_of_are_not_made(tmp_path, layers, weights):
  (tmp_path / "config.json").write_text(json.dumps(CONFIGS["t5"] | {"num_layers": layers}))
  if weights:
    (tmp_path / "model.safetensors").write_bytes(safetensors({"shared.weight": entry()}))
  with pytest.raises(ConfigError, match=r"encoder.layers"):
    importer.config(str(tmp_path))


ADAPTER = {"peft_type": "LORA", "task_type": "SEQ_2_SEQ_LM", "r": 2, "lora_alpha": 4}
LAYER = "base_model.model.encoder.block.0.layer.0.SelfAttention.q"
SMALL = config("t5", width=8, head_width=4)


def write_adapter(folder, config, shapes=((2, 8), (8, 2))):
  arrays = {
    f"{LAYER}.lora_{part}.weight": as_stored(part, np.ones(shape, np.float32))
    for part, shape in zip("AB", shapes)
  }
  (folder / "adapter_config.json").write_text(json.dumps(config))
  safetensors_file.write_file(folder / "adapter_model.safetensors", arrays)


def test_an_adapter_with_a_value_of_another_type_is_refused_or_read(tmp_path):
  refused = 0
  for name in (*ADAPTER, "lora_dropout", "rank_pattern", "alpha_pattern", "target_modules"):
    for value in JUNK:
      write_adapter(tmp_path, ADAPTER | {name: value})
      try:
        lora.read_lora_adapter(tmp_path, SMALL)
      except PromotError:
        refused += 1
  assert refused > 3 * len(JUNK)


@pytest.mark.parametrize(
  "shapes", [((), (8, 2)), ((2, 8), (8, 2, 1)), ((2, 8), (8, 3)), ((2,), (2,))]
)
def test_matrices_that_are_no_product_are_damage(tmp_path, shapes):
  write_adapter(tmp_path, ADAPTER, shapes)
  with pytest.raises(DamagedCheckpoint, match="are no product"):
    lora.read_lora_adapter(tmp_path, SMALL)


def array(shape, dtype, content):
  return msgpack.ExtType(1, msgpack.packb([shape, dtype, content], use_bin_type=True))


ZARR = {"driver": "zarr", "kvstore": {"path": "x"}, "metadata": {"shape": [10**12]}}
LEAVES = {
  "chunks of another shape": {
    "__msgpack_chunked_array__": True,
    "shape": {"0": 10**9},
    "chunks": {"0": array([1], "float32", bytes(4))},
  },
  "no chunks": {"__msgpack_chunked_array__": True, "shape": 3, "chunks": 3},
  "a place that is no object": ZARR | {"kvstore": "x"},
  "a place that is no path": ZARR | {"kvstore": {"path": 3}},
  "no shape": ZARR | {"metadata": 3},
  "a shape beyond memory": ZARR,
}


@pytest.mark.parametrize("kind", LEAVES)
def test_leaves_of_a_t5x_checkpoint_that_contradict_themselves_are_damage(tmp_path, kind):
  tree = {"version": 3, "optimizer": {"target": {"encoder": {"x": LEAVES[kind]}}}}
  (tmp_path / "checkpoint").write_bytes(msgpack.packb(tree))
  (tmp_path / "x").mkdir()
  (tmp_path / "x" / ".zarray").write_text(json.dumps(HUGE))
  with pytest.raises(DamagedCheckpoint):
    for leaf in t5x.open_t5x(tmp_path).values():
      np.asarray(leaf)


HUGE = {
  "chunks": [10**12],
  "compressor": None,
  "dtype": "<f4",
  "fill_value": None,
  "filters": None,
  "order": "C",
  "shape": [10**12],
  "zarr_format": 2,
}


def test_a_zarr_array_beyond_memory_does_not_end_the_process(tmp_path):
  (tmp_path / ".zarray").write_text(json.dumps(HUGE))
  with pytest.raises(DamagedCheckpoint, match="more than this machine has memory"):
    prompt_files.read_prompt(tmp_path)


@pytest.mark.parametrize("dtype", ["M8[D]", "V8", "U4", "c8", "?"])
def test_a_prompt_of_no_numbers_is_refused(tmp_path, dtype):
  np.save(tmp_path / "prompt.npy", np.zeros((2, 3), dtype))
  with pytest.raises(ConfigError, match="a prompt is of numbers"):
    prompt_files.read_prompt(tmp_path / "prompt.npy")


BACKBONE = {"architecture": "T5", "shapes": "a", "fingerprint": "b", "parameters": 1}


@pytest.mark.parametrize(
  "backbone", [3, BACKBONE | {"parameters": "x"}, BACKBONE | {"sizes": [1]}, BACKBONE | {"a": "b"}]
)
def test_a_method_file_of_a_backbone_of_another_shape_is_damage(tmp_path, backbone):
  described = json.dumps({"method": {}, "backbone": backbone, "notes": {}}).encode()
  np.savez(tmp_path / "m.npz", **{"method.json": np.frombuffer(described, np.uint8)})
  with pytest.raises(DamagedCheckpoint, match="cannot be read as a method file"):
    method_files.read(tmp_path / "m.npz")


def test_a_method_file_that_declares_far_more_than_it_has_is_damage(tmp_path):
  described = json.dumps({"method": {}, "backbone": None, "notes": {}}).encode()
  arrays = {"method.json": np.frombuffer(described, np.uint8), "a": np.zeros(10**6, np.float32)}
  np.savez_compressed(tmp_path / "m.npz", **arrays)
  with pytest.raises(DamagedCheckpoint, match="its arrays would have"):
    method_files.read(tmp_path / "m.npz")
