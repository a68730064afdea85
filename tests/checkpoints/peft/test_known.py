"""Settings of adapters that this version does not know: refused unless they switch nothing on."""

import json

import numpy as np
import pytest

from promot_jax.checkpoints import known_settings
from promot_jax.checkpoints.huggingface import safetensors_file
from promot_jax.checkpoints.peft import known, lora, reader
from promot_jax.checkpoints.stored import as_stored
from promot_jax.errors import ConfigError, DamagedCheckpoint
from tiny_models import config

T5 = config("t5")
MODULE = "encoder.block.0.layer.0.SelfAttention.q"


def written(folder, *, arrays=None, **content):
  """An adapter of one update; `content` changes its settings."""
  given = arrays or {"A": np.ones((2, 12), np.float32), "B": np.ones((10, 2), np.float32)}
  safetensors_file.write_file(
    folder / reader.ARRAYS,
    {
      f"base_model.model.{MODULE}.lora_{part}.weight": as_stored(part, array)
      for part, array in given.items()
    },
  )
  settings = {"peft_type": "LORA", "task_type": "SEQ_2_SEQ_LM", "r": 2, "lora_alpha": 6, **content}
  (folder / reader.CONFIG).write_text(json.dumps(settings))
  return folder


@pytest.mark.parametrize("kind", known.OF_TYPE)
@pytest.mark.parametrize("value", [True, 0, 1, 0.0, "yes", [1], {"a": None}])
def test_an_unknown_setting_that_may_count_is_refused(kind, value):
  content = {"peft_type": kind, "use_tomorrow": value}
  with pytest.raises(ConfigError, match=r"it has use_tomorrow=.* not known here") as caught:
    known_settings.require_known(content, known.OF_TYPE[kind], where="it")
  assert "delete it from adapter_config.json" in str(caught.value)


@pytest.mark.parametrize("kind", known.OF_TYPE)
@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_an_unknown_setting_that_switches_nothing_on_is_read_over(kind, value):
  content = {"peft_type": kind, "use_tomorrow": value}
  known_settings.require_known(content, known.OF_TYPE[kind], where="it")


def test_a_long_value_is_cut_in_the_message():
  with pytest.raises(ConfigError) as caught:
    known_settings.require_known({"x": list(range(1000))}, known.LORA, where="it")
  assert len(str(caught.value)) < 400


def test_a_setting_with_one_value_takes_no_number_for_a_truth_value():
  with pytest.raises(ConfigError, match="use_dora=1"):
    known_settings.require_known({"use_dora": 1}, known.LORA, where="it")


def test_an_alpha_of_zero_is_an_update_of_zero(tmp_path):
  update = lora.read_lora_adapter(written(tmp_path, lora_alpha=0), T5)
  down, up = update.arrays["encoder/layers/0/attention/query"]
  assert update.alpha > 0
  assert down.any()
  assert not up.any()


@pytest.mark.parametrize(
  ("content", "words"),
  [
    ({"r": 3}, r"says that the update at '.*' has rank 3, and its lora_A.weight is \[2, 12\]"),
    ({"rank_pattern": {"q": 1}}, "has rank 1"),
    ({"lora_alpha": "six"}, "'six' as lora_alpha"),
    ({"lora_alpha": None}, "None as lora_alpha"),
    ({"lora_alpha": 10**400}, r"as lora_alpha of '.*', which is no number"),
    ({"lora_dropout": 10**400}, "as lora_dropout, which is no number"),
    ({"r": 10**400}, r"as r of '.*', which is no number"),
    ({"rank_pattern": {"q": 10**400}}, r"as r of '.*', which is no number"),
    ({"alpha_pattern": {"q": None}}, "None as lora_alpha"),
    ({"alpha_pattern": ["q"]}, "no table of patterns"),
    ({"alpha_pattern": {"(": 1}}, "no table of patterns"),
  ],
)
def test_numbers_that_contradict_the_arrays_or_are_none_are_damage(tmp_path, content, words):
  with pytest.raises(DamagedCheckpoint, match=words):
    lora.read_lora_adapter(written(tmp_path, **content), T5)


def test_magnitudes_that_contradict_the_setting_or_the_kernel_are_damage(tmp_path):
  plain = written(tmp_path)
  safetensors = plain / reader.ARRAYS
  settings = json.loads((plain / reader.CONFIG).read_text())
  for use_dora, length, words in (
    (True, None, "use_dora=True and no lora_magnitude_vector at"),
    (False, 10, "use_dora=False and a lora_magnitude_vector at"),
    (True, 9, r"lora_magnitude_vector \[9\] at .*, which has 10 output features"),
  ):
    arrays = dict(safetensors_file.open_file(safetensors))
    arrays = {name: array for name, array in arrays.items() if "magnitude" not in name}
    if length:
      name = f"base_model.model.{MODULE}.lora_magnitude_vector"
      arrays[name] = as_stored(name, np.ones(length, np.float32))
    other = tmp_path / f"{use_dora}{length}"
    other.mkdir()
    safetensors_file.write_file(other / reader.ARRAYS, arrays)
    (other / reader.CONFIG).write_text(json.dumps({**settings, "use_dora": use_dora}))
    with pytest.raises(DamagedCheckpoint, match=words):
      lora.read_lora_adapter(other, T5)


def test_whole_numbers_are_no_factors(tmp_path):
  arrays = {"A": np.ones((2, 12), np.int8), "B": np.ones((10, 2), np.float32)}
  with pytest.raises(ConfigError, match="of type int8"):
    lora.read_lora_adapter(written(tmp_path, arrays=arrays), T5)
