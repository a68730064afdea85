"""PEFT's LoRA and IA3 against ours: either side loads what the other wrote, and logits are equal.

Weights are random and drawn by transformers; adapters go through their files.  Both sides compute in
float32 on the CPU and sum in other orders: 2e-5 of the largest logit is some fifty times their
rounding, and an update at another layer or a wrong factor changes logits by a thousand times that.
"""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints import huggingface, restore
from promot_jax.checkpoints.peft import reader
from promot_jax.experiments import adapters, method_files
from promot_jax.methods import lora
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.lora import FromFile, LoRA
from promot_jax.models.bart import Bart
from promot_jax.models.bart_config import BartConfig
from promot_jax.models.decoder_lm import DecoderLM
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.t5 import T5
from promot_jax.models.t5_config import T5Config

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")
peft = pytest.importorskip("peft", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

VOCABULARY, WIDTH, NEW = 31, 24, 4
NETWORKS = {T5Config: T5, BartConfig: Bart, DecoderLMConfig: DecoderLM}
MODELS = {
  "t5": lambda: transformers.T5ForConditionalGeneration(
    transformers.T5Config(
      vocab_size=VOCABULARY,
      d_model=WIDTH,
      num_heads=3,
      d_kv=10,
      d_ff=36,
      num_layers=2,
      num_decoder_layers=2,
      decoder_start_token_id=0,
      feed_forward_proj="gated-gelu",
    )
  ),
  "bart": lambda: transformers.BartForConditionalGeneration(
    transformers.BartConfig(
      vocab_size=VOCABULARY,
      d_model=WIDTH,
      encoder_layers=2,
      decoder_layers=2,
      encoder_attention_heads=3,
      decoder_attention_heads=3,
      encoder_ffn_dim=36,
      decoder_ffn_dim=36,
      max_position_embeddings=20,
      forced_eos_token_id=None,
    )
  ),
  "gpt2": lambda: transformers.GPT2LMHeadModel(
    transformers.GPT2Config(
      vocab_size=VOCABULARY, n_embd=WIDTH, n_head=3, n_layer=2, n_inner=36, n_positions=24
    )
  ),
  "llama": lambda: transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=VOCABULARY,
      hidden_size=WIDTH,
      intermediate_size=36,
      num_hidden_layers=2,
      num_attention_heads=6,
      num_key_value_heads=2,
      head_dim=10,
    )
  ),
}


def is_encoder_decoder(kind):
  return kind not in ("gpt2", "llama")


def task(kind):
  return "SEQ_2_SEQ_LM" if is_encoder_decoder(kind) else "CAUSAL_LM"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """kind -> the folder of a random model that transformers saved, made when first asked for."""

  @functools.cache
  def make(kind):
    torch.manual_seed(1)
    model = MODELS[kind]()
    randomize(model.named_parameters())
    folder = tmp_path_factory.mktemp(kind)
    model.save_pretrained(folder)
    return folder

  return make


@torch.no_grad()
def randomize(parameters):
  for name, weight in parameters:
    one = weight.ndim == 1 and name.endswith("weight")  # norms: 1 would hide mistakes
    weight.copy_(torch.randn_like(weight) * 0.3 + (1 if one or "ia3" in name else 0))


@functools.cache
def ours_of(folder):
  config = dataclasses.replace(huggingface.config(str(folder)), dropout_rate=0.0)
  network = NETWORKS[type(config)]
  model = nnx.eval_shape(lambda: network(config, nnx.Rngs(0)))
  return restore.restore_into(model, huggingface.open_hf(folder, config))


def theirs_of(kind, folder):
  auto = (
    transformers.AutoModelForSeq2SeqLM
    if is_encoder_decoder(kind)
    else transformers.AutoModelForCausalLM
  )
  return auto.from_pretrained(folder, attn_implementation="eager").eval()


def tokens(length, seed):
  return np.random.default_rng(seed).integers(8, VOCABULARY, (2, length)).astype(np.int32)


def our_logits(kind, model):
  """[2 NEW V]: what predicts each of NEW targets."""
  source, target = tokens(5, 2), tokens(NEW, 3)
  batch = {"encoder_input_tokens": source, "decoder_target_tokens": target}
  if is_encoder_decoder(kind):
    start = np.full((2, 1), model.config.decoder_start, np.int32)
    batch["decoder_input_tokens"] = np.concatenate([start, target[:, :-1]], 1)
  return np.asarray(jax.jit(lambda m, b: m.logits(m.hidden(b)))(model, batch))


@torch.no_grad()
def their_logits(kind, model):
  source, target = (torch.tensor(tokens(*given)).long() for given in ((5, 2), (NEW, 3)))
  if is_encoder_decoder(kind):
    start = torch.full((2, 1), model.config.decoder_start_token_id)
    inputs = torch.cat([start, target[:, :-1]], 1)
    return model(input_ids=source, decoder_input_ids=inputs).logits.numpy()
  return model(input_ids=torch.cat([source, target], 1)).logits[:, 4:-1].numpy()


def assert_close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def assert_differs(found, expected):
  assert np.abs(found - expected).max() > 1e-2 * np.abs(expected).max()


def changed(model, method):
  """Own parameters moved from their start, so that every one of them counts."""
  leaves = paths.named_leaves(model)
  random = np.random.default_rng(5)
  own = {
    name: np.asarray(leaves[name]) + random.normal(size=leaves[name].shape).astype(np.float32) * 0.3
    for name in paths.match(method.parameters, leaves)
  }
  return paths.replace_leaves(model, {**leaves, **own})


def attached(folder, adapter):
  ours = ours_of(folder)
  place, file = adapters.open_method(adapter, ours.config)
  return method_files.attached(ours, file, where=str(place))


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


@pytest.mark.parametrize("kind", MODELS)
def test_we_load_lora_of_peft_and_give_its_logits(folders, tmp_path, kind):
  backbone = theirs_of(kind, folders(kind))
  settings = peft.LoraConfig(task_type=task(kind), r=3, **LORA[kind])
  theirs = peft.get_peft_model(backbone, settings).eval()
  torch.manual_seed(4)
  randomize((name, weight) for name, weight in theirs.named_parameters() if "lora_" in name)
  theirs.save_pretrained(tmp_path)
  expected = their_logits(kind, theirs)
  assert_differs(expected, our_logits(kind, ours_of(folders(kind))))
  ours, method = attached(folders(kind), tmp_path)
  assert_close(our_logits(kind, ours), expected)
  assert_close(our_logits(kind, lora.merge(ours)), expected)
  start = dataclasses.replace(method, initializer=FromFile(path=tmp_path))
  again = start.attach(ours_of(folders(kind)), nnx.Rngs(0))
  np.testing.assert_array_equal(our_logits(kind, again), our_logits(kind, ours))


@pytest.mark.parametrize(
  "kind,targets",
  [
    ("t5", ".*/(query|value)"),
    ("t5", "encoder/.*/attention/key"),
    ("bart", [".*/self_attention/out", ".*/wo"]),
    ("gpt2", [".*/(query|value)", ".*/mlp/wi"]),
    ("gpt2", ".*"),
    ("llama", "decoder/layers/1/.*"),
  ],
)
def test_peft_loads_our_lora_and_gives_our_logits(folders, tmp_path, kind, targets):
  method = LoRA(rank=2, alpha=3, targets=targets)
  ours = changed(method.attach(ours_of(folders(kind)), nnx.Rngs(0)), method)
  path = adapters.write_adapter(
    tmp_path / "adapter", ours, method, ours.config, base_model=str(folders(kind))
  )
  theirs = peft.PeftModel.from_pretrained(theirs_of(kind, folders(kind)), path).eval()
  assert_close(their_logits(kind, theirs), our_logits(kind, ours))
  again, _ = attached(folders(kind), path)
  assert_close(our_logits(kind, again), our_logits(kind, ours))
  merged = theirs.merge_and_unload()
  assert_close(their_logits(kind, merged), our_logits(kind, lora.merge(ours)))


def test_a_fused_update_of_peft_comes_back_bit_for_bit(folders, tmp_path):
  settings = peft.LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["c_attn"])
  theirs = peft.get_peft_model(theirs_of("gpt2", folders("gpt2")), settings)
  randomize((name, weight) for name, weight in theirs.named_parameters() if "lora_" in name)
  theirs.save_pretrained(tmp_path / "theirs")
  ours, method = attached(folders("gpt2"), tmp_path / "theirs")
  path = adapters.write_adapter(tmp_path / "ours", ours, method, ours.config, base_model="x")
  files = [reader.open_adapter(folder).arrays for folder in (tmp_path / "theirs", path)]
  assert set(files[0]) == set(files[1])
  for name, array in files[0].items():
    np.testing.assert_array_equal(files[1][name], array)
  content = json.loads((path / "adapter_config.json").read_text())
  assert (content["r"], content["lora_alpha"], content["fan_in_fan_out"]) == (3, 8, True)


IA3_TARGETS = {
  "t5": {},
  "bart": {},  # PEFT's own choice: q and v, not k and v
  "gpt2": {},  # the fused projection, queries included
  "llama": {},
}


@pytest.mark.parametrize("kind", MODELS)
def test_we_load_ia3_of_peft_and_give_its_logits(folders, tmp_path, kind):
  settings = peft.IA3Config(task_type=task(kind), **IA3_TARGETS[kind])
  theirs = peft.get_peft_model(theirs_of(kind, folders(kind)), settings).eval()
  torch.manual_seed(4)
  randomize((name, weight) for name, weight in theirs.named_parameters() if "ia3_" in name)
  theirs.save_pretrained(tmp_path)
  expected = their_logits(kind, theirs)
  assert_differs(expected, our_logits(kind, ours_of(folders(kind))))
  ours, method = attached(folders(kind), tmp_path)
  assert_close(our_logits(kind, ours), expected)
  assert_close(our_logits(kind, method.merge(ours)), expected)


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
def test_peft_loads_our_ia3_and_gives_our_logits(folders, tmp_path, kind, fields):
  method = IA3(**fields)
  ours = changed(method.attach(ours_of(folders(kind)), nnx.Rngs(0)), method)
  path = adapters.write_adapter(
    tmp_path / "adapter", ours, method, ours.config, base_model=str(folders(kind))
  )
  theirs = peft.PeftModel.from_pretrained(theirs_of(kind, folders(kind)), path).eval()
  assert_close(their_logits(kind, theirs), our_logits(kind, ours))
  again, _ = attached(folders(kind), path)
  np.testing.assert_array_equal(our_logits(kind, again), our_logits(kind, ours))


def test_variants_that_compute_something_else_are_refused(folders, tmp_path):
  settings = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, use_dora=True)
  peft.get_peft_model(theirs_of("t5", folders("t5")), settings).save_pretrained(tmp_path)
  with pytest.raises(errors.ConfigError, match="lora_magnitude_vector"):
    attached(folders("t5"), tmp_path)
  with pytest.raises(errors.ConfigError, match="task_type 'SEQ_2_SEQ_LM'"):
    attached(folders("gpt2"), tmp_path)


def test_one_layer_of_theirs_cannot_have_inputs_scaled_in_part(folders, tmp_path):
  method = IA3(outputs=None, inputs=".*/query")
  model = method.attach(ours_of(folders("gpt2")), nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match=r"as one layer 'transformer.h.0.attn.c_attn'"):
    adapters.write_adapter(tmp_path / "a", model, method, model.config, base_model="x")
