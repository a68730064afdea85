"""PEFT's prompt adapters as files; tests/parity has the proof that both compute the same."""

import json

import ml_dtypes
import numpy as np
import pytest

from promot_jax import errors
from promot_jax.checkpoints.huggingface import safetensors_file
from promot_jax.checkpoints.peft import prompt_tuning, reader
from promot_jax.checkpoints.stored import StoredArray
from tiny_models import config

LENGTH, WIDTH = 5, 6
CONFIG = config("t5", width=WIDTH, encoder_layers=3)
# as PEFT 0.21 writes it for a T5, keys that no reader needs included
WRITTEN_BY_PEFT = {
  "auto_mapping": None,
  "base_model_name_or_path": "google/t5-v1_1-small",
  "inference_mode": True,
  "num_attention_heads": 2,
  "num_layers": 3,
  "num_transformer_submodules": 2,
  "num_virtual_tokens": LENGTH,
  "peft_type": "PROMPT_TUNING",
  "prompt_tuning_init": "RANDOM",
  "revision": "main",
  "task_type": "SEQ_2_SEQ_LM",
  "token_dim": WIDTH,
}


def values(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def write(folder, arrays, **changes):
  folder.mkdir()
  stored = {
    name: StoredArray(
      name=name, shape=array.shape, dtype=array.dtype, read=lambda array=array: array
    )
    for name, array in arrays.items()
  }
  safetensors_file.write_file(folder / "adapter_model.safetensors", stored)
  content = {key: value for key, value in (WRITTEN_BY_PEFT | changes).items() if value != "-"}
  (folder / "adapter_config.json").write_text(json.dumps(content))
  return folder


def test_rows_that_peft_never_uses_are_left_out(tmp_path):
  rows = values(2 * LENGTH, WIDTH)
  adapter = prompt_tuning.read_prompt_adapter(write(tmp_path / "a", {"prompt_embeddings": rows}))
  np.testing.assert_array_equal(adapter.prompt, rows[:LENGTH])
  assert (adapter.unused, adapter.encoder_decoder) == (LENGTH, True)
  assert (adapter.base_model, adapter.revision) == ("google/t5-v1_1-small", "main")


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_one_submodule_and_all_float_types_are_read(tmp_path, dtype):
  rows = values(LENGTH, WIDTH).astype(dtype)
  folder = write(tmp_path / "a", {"prompt_embeddings": rows}, num_transformer_submodules=1)
  found = prompt_tuning.read_prompt_adapter(folder, CONFIG)
  assert found.prompt.dtype == dtype and found.unused == 0
  np.testing.assert_array_equal(found.prompt, rows)


def test_what_is_written_has_minimal_keys_and_is_read_back(tmp_path):
  rows = values(LENGTH, WIDTH)
  folder = prompt_tuning.write_prompt_adapter(
    tmp_path / "new", rows, CONFIG, base_model="hf:google/t5-v1_1-small@v2"
  )
  assert json.loads((folder / "adapter_config.json").read_text()) == {
    "base_model_name_or_path": "google/t5-v1_1-small",
    "inference_mode": True,
    "num_attention_heads": 2,
    "num_layers": 3,
    "num_transformer_submodules": 1,
    "num_virtual_tokens": LENGTH,
    "peft_type": "PROMPT_TUNING",
    "revision": "v2",
    "task_type": "SEQ_2_SEQ_LM",
    "token_dim": WIDTH,
  }
  found = prompt_tuning.read_prompt_adapter(folder, CONFIG)
  np.testing.assert_array_equal(found.prompt, rows)
  assert (found.base_model, found.revision) == ("google/t5-v1_1-small", "v2")
  with pytest.raises(errors.ConfigError, match="not overwritten"):
    prompt_tuning.write_prompt_adapter(folder, rows, CONFIG, base_model="x")


@pytest.mark.parametrize(
  "changes, shape, error, words",
  [
    ({"peft_type": "OFT"}, (10, 6), errors.ConfigError, "type OFT, and PROMPT_TUNING"),
    ({"peft_type": "LORA"}, (10, 6), errors.ConfigError, "one of type PROMPT_TUNING or P_TUNING"),
    ({"peft_type": "-"}, (10, 6), errors.ConfigError, "type None"),
    ({"task_type": "SEQ_CLS"}, (10, 6), errors.ConfigError, "SEQ_CLS"),
    ({"task_type": "CAUSAL_LM"}, (10, 6), errors.ConfigError, "2 submodules of a decoder-only"),
    ({"num_transformer_submodules": 1}, (10, 6), errors.DamagedCheckpoint, r"\[10, 6\]"),
    ({}, (9, 6), errors.DamagedCheckpoint, r"\[9, 6\]"),
    ({}, (10, 7), errors.DamagedCheckpoint, r"\[10, 7\]"),
    ({"num_virtual_tokens": "-"}, (10, 6), errors.DamagedCheckpoint, "None vectors"),
    ({"token_dim": 8}, (10, 8), errors.ConfigError, "width 8.*width is 6"),
    (
      {"task_type": "CAUSAL_LM", "num_transformer_submodules": 1},
      (5, 6),
      errors.ConfigError,
      "a decoder-only model and this model is an encoder-decoder",
    ),
  ],
)
def test_adapters_that_cannot_be_applied_are_refused(tmp_path, changes, shape, error, words):
  folder = write(tmp_path / "a", {"prompt_embeddings": values(*shape)}, **changes)
  with pytest.raises(error, match=words):
    prompt_tuning.read_prompt_adapter(folder, CONFIG)


def test_other_arrays_nan_and_a_missing_prompt_are_refused(tmp_path):
  rows = values(10, WIDTH)
  extra = write(tmp_path / "extra", {"prompt_embeddings": rows, "lm_head.weight": rows})
  with pytest.raises(errors.ConfigError, match="lm_head"):
    prompt_tuning.read_prompt_adapter(extra)
  rows[7, 1] = np.nan  # also in a row that is not used: something went wrong in that run
  with pytest.raises(errors.DamagedCheckpoint, match="NaN"):
    prompt_tuning.read_prompt_adapter(write(tmp_path / "nan", {"prompt_embeddings": rows}))
  with pytest.raises(errors.DamagedCheckpoint, match="no array"):
    prompt_tuning.read_prompt_adapter(write(tmp_path / "none", {"other": rows}))


def test_folders_that_are_no_whole_adapter_are_refused(tmp_path):
  with pytest.raises(errors.ConfigError, match="no adapter_config"):
    reader.open_adapter(tmp_path)
  folder = write(tmp_path / "a", {"prompt_embeddings": values(10, WIDTH)})
  arrays = folder / "adapter_model.safetensors"
  arrays.write_bytes(arrays.read_bytes()[:-9])
  with pytest.raises(errors.DamagedCheckpoint, match="cut off"):
    reader.open_adapter(folder)
  arrays.unlink()
  with pytest.raises(errors.DamagedCheckpoint, match="no adapter_model"):
    reader.open_adapter(folder)
  (folder / "adapter_model.bin").write_bytes(b"pickle")
  with pytest.raises(errors.ConfigError, match="pickled"):
    reader.open_adapter(folder)
  (folder / "adapter_config.json").write_text("{")
  with pytest.raises(errors.DamagedCheckpoint, match="adapter_config"):
    reader.open_adapter(folder)


def test_a_bank_or_another_width_is_not_written(tmp_path):
  for rows, words in [
    (values(2, LENGTH, WIDTH), "prompts of 2 tasks"),
    (values(LENGTH, WIDTH + 1), r"\[5, 7\]"),
  ]:
    with pytest.raises(errors.ConfigError, match=words):
      prompt_tuning.write_prompt_adapter(tmp_path / "new", rows, CONFIG, base_model="x")
  assert not (tmp_path / "new").exists()
