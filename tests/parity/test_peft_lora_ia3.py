"""PEFT's LoRA, DoRA and IA3 against ours: either side loads what the other wrote, and logits are equal.

Models and tolerances are those of peft_pairs.py: an update at another layer or a wrong factor changes
logits by a thousand times as much.
"""

import dataclasses
import json

import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints.peft import reader
from promot_jax.methods import files, lora
from promot_jax.methods.formats import Context, Trained
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.lora import FromFile, LoRA
from promot_jax.networks import trained_methods

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
peft = pytest.importorskip("peft", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

KINDS = ("t5", "bart", "gpt2", "llama")


def changed(model, method):
  """Own parameters moved from their start, so that every one of them counts."""
  leaves = paths.named_leaves(model)
  random = np.random.default_rng(5)
  own = {
    name: np.asarray(leaves[name]) + random.normal(size=leaves[name].shape).astype(np.float32) * 0.3
    for name in paths.match(method.parameters, leaves)
  }
  return paths.replace_leaves(model, {**leaves, **own})


def write_adapter(folder, model, method, config, *, base_model):
  context = Context(config=config, base_model=base_model)
  return files.write(folder, Trained.of(model, method), "peft", context, where="run")


def attached(ours, adapter):
  place, file = files.open_method(adapter, ours.config)
  return trained_methods.attached(ours, file, where=str(place))


LORA = {
  "t5": {},  # PEFT's own choice: q and v of every attention
  "bart": {"target_modules": ["q_proj", "fc1"], "lora_alpha": 5},
  "gpt2": {"target_modules": ["c_attn", "mlp.c_proj"], "lora_alpha": 6, "use_rslora": True},
  "llama": {
    "target_modules": ["k_proj", "gate_proj"],
    "rank_pattern": {"gate_proj": 2},
    "alpha_pattern": {"gate_proj": 3},
    "layers_to_transform": [1],
  },
}


@pytest.mark.parametrize(
  "kind,decomposed", [*((kind, False) for kind in KINDS), ("t5", True), ("gpt2", True)]
)
def test_we_load_lora_of_peft_and_give_its_logits(pairs, peft_pairs, tmp_path, kind, decomposed):
  backbone = pairs.theirs(kind)
  fields = {**LORA[kind], "use_dora": decomposed}
  settings = peft.LoraConfig(task_type=peft_pairs.task(kind), r=3, **fields)
  theirs = peft.get_peft_model(backbone, settings).eval()
  torch.manual_seed(4)
  peft_pairs.randomize(
    (name, weight) for name, weight in theirs.named_parameters() if "lora_" in name
  )
  theirs.save_pretrained(tmp_path)
  expected = peft_pairs.their_logits(theirs)
  peft_pairs.assert_differs(expected, peft_pairs.our_logits(pairs.ours(kind)))
  ours, method = attached(pairs.ours(kind), tmp_path)
  peft_pairs.assert_close(peft_pairs.our_logits(ours), expected)
  peft_pairs.assert_close(peft_pairs.our_logits(lora.merge(ours)), expected)
  assert method.decomposed == decomposed
  start = dataclasses.replace(method, initializer=FromFile(path=tmp_path))
  again = start.attach(pairs.ours(kind), nnx.Rngs(0))
  np.testing.assert_array_equal(peft_pairs.our_logits(again), peft_pairs.our_logits(ours))


@pytest.mark.parametrize(
  "kind,targets,decomposed",
  [
    ("t5", ".*/(query|value)", False),
    ("t5", "encoder/.*/attention/key", False),
    ("bart", [".*/self_attention/out", ".*/wo"], False),
    ("gpt2", [".*/(query|value)", ".*/mlp/wi"], False),
    ("gpt2", ".*", False),
    ("gpt2", ".*/(query|key|value|wi)", True),
    ("llama", "decoder/layers/1/.*", False),
    ("llama", "decoder/layers/1/.*", True),
  ],
)
def test_peft_loads_our_lora_and_gives_our_logits(
  pairs, peft_pairs, tmp_path, kind, targets, decomposed
):
  method = LoRA(rank=2, alpha=3, targets=targets, decomposed=decomposed)
  ours = changed(method.attach(pairs.ours(kind), nnx.Rngs(0)), method)
  path = write_adapter(
    tmp_path / "adapter", ours, method, ours.config, base_model=str(pairs.folder(kind))
  )
  theirs = peft.PeftModel.from_pretrained(pairs.theirs(kind), path).eval()
  peft_pairs.assert_close(peft_pairs.their_logits(theirs), peft_pairs.our_logits(ours))
  again, _ = attached(pairs.ours(kind), path)
  peft_pairs.assert_close(peft_pairs.our_logits(again), peft_pairs.our_logits(ours))
  merged = theirs.merge_and_unload()
  peft_pairs.assert_close(peft_pairs.their_logits(merged), peft_pairs.our_logits(lora.merge(ours)))


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_gradients_of_dora_are_those_of_peft(pairs, peft_pairs, tmp_path, kind):
  settings = peft.LoraConfig(
    task_type=peft_pairs.task(kind), r=3, lora_alpha=5, use_dora=True, layers_to_transform=[1]
  )
  theirs = peft.get_peft_model(pairs.theirs(kind), settings).eval()
  torch.manual_seed(4)
  peft_pairs.randomize((n, weight) for n, weight in theirs.named_parameters() if "lora_" in n)
  theirs.save_pretrained(tmp_path / "values")
  ours, method = attached(pairs.ours(kind), tmp_path / "values")
  found = peft_pairs.our_gradients(ours, method.parameters)
  peft_pairs.put_their_gradients(theirs)
  theirs.save_pretrained(tmp_path / "gradients")
  expected = files.open_method(tmp_path / "gradients", ours.config)[1].leaves
  assert set(found) == set(expected) and any(name.endswith("magnitude") for name in found)
  for name, gradient in expected.items():
    peft_pairs.assert_close(found[name], gradient)


def test_magnitudes_of_a_part_of_a_fused_layer_cannot_be_written(pairs, tmp_path):
  method = LoRA(decomposed=True)
  model = method.attach(pairs.ours("gpt2"), nnx.Rngs(0))
  with pytest.raises(
    errors.ConfigError, match=r"c_attn', of which .*attention/key has none; train"
  ):
    write_adapter(tmp_path / "a", model, method, model.config, base_model="x")
  assert not (tmp_path / "a").exists()


def test_a_fused_update_of_peft_comes_back_bit_for_bit(pairs, peft_pairs, tmp_path):
  settings = peft.LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["c_attn"])
  theirs = peft.get_peft_model(pairs.theirs("gpt2"), settings)
  peft_pairs.randomize(
    (name, weight) for name, weight in theirs.named_parameters() if "lora_" in name
  )
  theirs.save_pretrained(tmp_path / "theirs")
  ours, method = attached(pairs.ours("gpt2"), tmp_path / "theirs")
  path = write_adapter(tmp_path / "ours", ours, method, ours.config, base_model="x")
  files = [reader.open_adapter(folder).arrays for folder in (tmp_path / "theirs", path)]
  assert set(files[0]) == set(files[1])
  for name, array in files[0].items():
    np.testing.assert_array_equal(files[1][name], array)
  content = json.loads((path / "adapter_config.json").read_text())
  assert (content["r"], content["lora_alpha"], content["fan_in_fan_out"]) == (3, 8, True)


def test_a_fused_update_that_was_trained_further_is_written_at_three_times_its_rank(
  pairs, peft_pairs, tmp_path
):
  settings = peft.LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["c_attn"])
  theirs = peft.get_peft_model(pairs.theirs("gpt2"), settings)
  peft_pairs.randomize((n, weight) for n, weight in theirs.named_parameters() if "lora_" in n)
  theirs.save_pretrained(tmp_path / "theirs")
  start, method = attached(pairs.ours("gpt2"), tmp_path / "theirs")
  ours = changed(start, method)  # query, key and value have an A each now
  folder = str(pairs.folder("gpt2"))
  path = write_adapter(tmp_path / "ours", ours, method, ours.config, base_model=folder)
  content = json.loads((path / "adapter_config.json").read_text())
  assert (content["r"], content["lora_alpha"], content["target_modules"]) == (9, 24, ["c_attn"])
  found = peft_pairs.their_logits(peft.PeftModel.from_pretrained(pairs.theirs("gpt2"), path).eval())
  peft_pairs.assert_close(found, peft_pairs.our_logits(ours))
  peft_pairs.assert_differs(found, peft_pairs.our_logits(start))
  again, _ = attached(pairs.ours("gpt2"), path)
  peft_pairs.assert_close(peft_pairs.our_logits(again), found)


@pytest.mark.parametrize("kind", KINDS)
def test_we_load_ia3_of_peft_and_give_its_logits(pairs, peft_pairs, tmp_path, kind):
  # PEFT's own choice of layers: in BART q and v, not k and v; in GPT-2 all of the fused projection
  settings = peft.IA3Config(task_type=peft_pairs.task(kind))
  theirs = peft.get_peft_model(pairs.theirs(kind), settings).eval()
  torch.manual_seed(4)
  peft_pairs.randomize(
    (name, weight) for name, weight in theirs.named_parameters() if "ia3_" in name
  )
  theirs.save_pretrained(tmp_path)
  expected = peft_pairs.their_logits(theirs)
  peft_pairs.assert_differs(expected, peft_pairs.our_logits(pairs.ours(kind)))
  ours, method = attached(pairs.ours(kind), tmp_path)
  peft_pairs.assert_close(peft_pairs.our_logits(ours), expected)
  peft_pairs.assert_close(peft_pairs.our_logits(method.merge(ours)), expected)


@pytest.mark.parametrize(
  "kind,fields",
  [
    ("t5", {}),
    ("bart", {}),
    ("gpt2", {}),
    ("gpt2", {"outputs": ".*/value", "inputs": ".*/(out|wo)"}),
    ("llama", {"outputs": "decoder/layers/1/.*/key", "inputs": None}),
  ],
)
def test_peft_loads_our_ia3_and_gives_our_logits(pairs, peft_pairs, tmp_path, kind, fields):
  method = IA3(**fields)
  ours = changed(method.attach(pairs.ours(kind), nnx.Rngs(0)), method)
  path = write_adapter(
    tmp_path / "adapter", ours, method, ours.config, base_model=str(pairs.folder(kind))
  )
  theirs = peft.PeftModel.from_pretrained(pairs.theirs(kind), path).eval()
  peft_pairs.assert_close(peft_pairs.their_logits(theirs), peft_pairs.our_logits(ours))
  again, _ = attached(pairs.ours(kind), path)
  np.testing.assert_array_equal(peft_pairs.our_logits(again), peft_pairs.our_logits(ours))


def test_an_adapter_of_an_encoder_decoder_is_none_of_a_decoder(pairs, peft_pairs, tmp_path):
  settings = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2)
  peft.get_peft_model(pairs.theirs("t5"), settings).save_pretrained(tmp_path)
  with pytest.raises(errors.ConfigError, match="task_type 'SEQ_2_SEQ_LM'"):
    attached(pairs.ours("gpt2"), tmp_path)


def test_one_layer_of_theirs_cannot_have_inputs_scaled_in_part(pairs, peft_pairs, tmp_path):
  method = IA3(outputs=None, inputs=".*/query")
  model = method.attach(pairs.ours("gpt2"), nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match=r"as one layer 'transformer.h.0.attn.c_attn'"):
    write_adapter(tmp_path / "a", model, method, model.config, base_model="x")
