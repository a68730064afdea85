"""Settings of PEFT's adapters: every one of the installed PEFT is classified, by what PEFT does."""

import dataclasses
import json

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.checkpoints import known_settings
from promot_jax.checkpoints.peft import known, reader
from promot_jax.methods import files
from promot_jax.networks import trained_methods

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
peft = pytest.importorskip("peft", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

CONFIGS = {
  reader.LORA: peft.LoraConfig,
  reader.IA3: peft.IA3Config,
  reader.PROMPT_TUNING: peft.PromptTuningConfig,
  reader.PREFIX_TUNING: peft.PrefixTuningConfig,
  reader.P_TUNING: peft.PromptEncoderConfig,
}


def attached(ours, adapter):
  place, file = files.open_method(adapter, ours.config)
  return trained_methods.attached(ours, file, where=str(place))[0]


def lora(pairs, peft_pairs, kind, **fields):
  """A model of theirs with random factors on top of whatever its adapter begins with."""
  settings = peft.LoraConfig(
    **{"task_type": peft_pairs.task(kind), "r": 2, "target_modules": ["q_proj", "v_proj"], **fields}
  )
  torch.manual_seed(3)
  model = peft.get_peft_model(pairs.theirs(kind), settings).eval()
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if "lora_" in name:
        weight.add_(torch.randn_like(weight) * 0.2)
  return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_setting_of_the_installed_peft_is_classified_and_its_default_accepted(kind, tmp_path):
  fields = {field.name for field in dataclasses.fields(CONFIGS[kind])}
  assert fields - known.OF_TYPE[kind].names == set()
  config = CONFIGS[kind](task_type="CAUSAL_LM")
  config.save_pretrained(tmp_path)
  content = json.loads((tmp_path / reader.CONFIG).read_text())
  assert len(content) > 10
  known_settings.require_known(content, known.OF_TYPE[kind], where="it")


VARIANTS = {
  "bias": {"bias": "lora_only"},
  "modules_to_save": {"modules_to_save": ["lm_head"]},
  "use_bdlora": {"use_bdlora": {"target_modules_bd_a": ["q_proj"], "nblocks": 2}},
  "layer_replication": {"layer_replication": [[0, 2], [1, 2]]},
  "lora_bias": {"lora_bias": True},
  "trainable_token_indices": {"trainable_token_indices": [1, 2]},
  "target_parameters": {"target_parameters": ["mlp.gate_proj.weight"]},
  "alora_invocation_tokens": {"alora_invocation_tokens": [9, 12]},
  "use_qalora": {"use_qalora": True},
  "kasa_config": {"kasa_config": {}},
  "arrow_config": {"arrow_config": {}},
  "velora_config": {"velora_config": {}},
  "init_lora_weights": {"init_lora_weights": "pissa_niter_4"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_refused_by_its_setting_and_with_advice_before_its_arrays(name, tmp_path):
  peft.LoraConfig(task_type="CAUSAL_LM", r=2, **VARIANTS[name]).save_pretrained(tmp_path)
  with pytest.raises(errors.ConfigError, match=rf"type LORA, has {name}=") as caught:
    reader.open_adapter(tmp_path)  # which has no arrays at all
  text = str(caught.value)
  assert "\n" not in text
  assert "merge_and_unload" in text or "use it in PEFT" in text


@pytest.mark.parametrize("kind", [k for k in CONFIGS if k != reader.LORA])
def test_replaced_modules_are_refused_with_every_type(kind, tmp_path):
  CONFIGS[kind](task_type="CAUSAL_LM", modules_to_save=["lm_head"]).save_pretrained(tmp_path)
  with pytest.raises(
    errors.ConfigError, match=r"has modules_to_save=\['lm_head'\], which replaces"
  ):
    reader.open_adapter(tmp_path)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_changes_the_model_works_once_it_is_converted(
  pairs, peft_pairs, tmp_path, start
):
  settings = peft.LoraConfig(
    task_type="CAUSAL_LM",
    r=2,
    lora_alpha=3,
    target_modules=["q_proj", "v_proj"],
    init_lora_weights=start,
  )
  theirs = peft.get_peft_model(pairs.theirs("llama"), settings).eval()
  theirs.peft_config["default"].init_lora_weights = True  # as PEFT's documentation says
  theirs.save_pretrained(tmp_path / "start")
  theirs.peft_config["default"].init_lora_weights = start
  with torch.no_grad():
    for name, weight in theirs.named_parameters():
      if "lora_" in name:
        weight.add_(torch.randn_like(weight) * 0.2)
  expected = peft_pairs.their_logits(theirs)
  theirs.save_pretrained(tmp_path / "as_it_is")
  theirs.save_pretrained(
    tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "start")
  )
  ours = pairs.ours("llama")
  with pytest.raises(
    errors.ConfigError, match=f"init_lora_weights='{start}', a start that changes"
  ):
    attached(ours, tmp_path / "as_it_is")
  peft_pairs.assert_differs(peft_pairs.our_logits(ours), expected)
  peft_pairs.assert_close(peft_pairs.our_logits(attached(ours, tmp_path / "converted")), expected)


@pytest.mark.parametrize("start", [False, "gaussian", "orthogonal", "mica", "eva"])
def test_starts_that_touch_the_factors_only_give_pefts_logits(pairs, peft_pairs, tmp_path, start):
  model = lora(pairs, peft_pairs, "llama", init_lora_weights=start)
  model.save_pretrained(tmp_path)
  theirs = peft.PeftModel.from_pretrained(pairs.theirs("llama"), tmp_path).eval()
  found = peft_pairs.our_logits(attached(pairs.ours("llama"), tmp_path))
  peft_pairs.assert_close(found, peft_pairs.their_logits(theirs))


@pytest.mark.parametrize(
  "fields",
  [
    {"alpha_pattern": {r"model.layers.0.self_attn.q_proj": 0}},
    {"alpha_pattern": {"q_proj": 0, "v_proj": 5}, "use_rslora": True},
    {"alpha_pattern": {"q_proj": -3, "v_proj": 5}},
    {"lora_alpha": 0},
    {"lora_alpha": 0, "alpha_pattern": {"v_proj": 2}},
  ],
)
def test_an_alpha_of_zero_gives_pefts_logits(pairs, peft_pairs, tmp_path, fields):
  lora(pairs, peft_pairs, "llama", **fields).save_pretrained(tmp_path)
  theirs = peft.PeftModel.from_pretrained(pairs.theirs("llama"), tmp_path).eval()
  ours = attached(pairs.ours("llama"), tmp_path)
  peft_pairs.assert_close(peft_pairs.our_logits(ours), peft_pairs.their_logits(theirs))
  assert np.isfinite(peft_pairs.our_logits(ours)).all()
