"""PEFT's prefix and P-tuning adapters against ours: either side loads what the other wrote.

Weights are random and drawn by transformers; adapters go through their files.  Both sides compute in
float32 on the CPU and sum in other orders: 2e-5 of the largest logit is some fifty times their
rounding, and a slot of another layer or a shifted position changes logits by a thousand times that.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints import huggingface, method_files, restore
from promot_jax.checkpoints.peft import prefix_tuning, prompt_tuning
from promot_jax.methods.prefix import FromArrays, FromFile, NormalPrefix, PrefixTuning
from promot_jax.methods.prompt import FromArray, PromptNetwork, SoftPrompt
from promot_jax.methods.prompt import FromFile as PromptFromFile
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

LENGTH, VOCABULARY, WIDTH, NEW = 3, 31, 24, 5
NETWORKS = {T5Config: T5, BartConfig: Bart, DecoderLMConfig: DecoderLM}


def t5(layers):
  return transformers.T5ForConditionalGeneration(
    transformers.T5Config(
      vocab_size=VOCABULARY,
      d_model=WIDTH,
      num_heads=3,
      d_kv=10,
      d_ff=36,
      num_layers=layers,
      num_decoder_layers=layers,
      decoder_start_token_id=0,
      feed_forward_proj="relu",
      scale_decoder_outputs=True,
    )
  )


MODELS = {
  "t5_of_4_layers": lambda: t5(4),
  "t5_of_3_layers": lambda: t5(3),
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
      vocab_size=VOCABULARY, n_embd=WIDTH, n_head=3, n_layer=3, n_inner=36, n_positions=24
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

SIZES = {
  "t5_of_4_layers": {"token_dim": 30, "num_attention_heads": 3},
  "t5_of_3_layers": {"token_dim": 30, "num_attention_heads": 3},
  "llama": {"token_dim": 20, "num_attention_heads": 2},
}


def is_encoder_decoder(kind):
  return kind not in ("gpt2", "llama")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """kind -> the folder of a random model that transformers saved, made when first asked for."""

  @functools.cache
  def make(kind):
    torch.manual_seed(1)
    model = MODELS[kind]()
    with torch.no_grad():
      for name, weight in model.named_parameters():
        if weight.ndim == 1 and name.endswith("weight"):  # norms: 1 would hide mistakes
          weight.copy_(torch.randn_like(weight) * 0.3 + 1)
        else:
          weight.copy_(torch.randn_like(weight) * 0.3)
    folder = tmp_path_factory.mktemp(kind)
    model.save_pretrained(folder)
    return folder

  return make


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
  """[2 NEW V]: what predicts each of NEW targets; the second input has two tokens less."""
  source, target = tokens(6, 2), tokens(NEW, 3)
  source[1, 4:] = model.config.pad
  batch = {"encoder_input_tokens": source, "decoder_target_tokens": target}
  if is_encoder_decoder(kind):
    start = np.full((2, 1), model.config.decoder_start, np.int32)
    batch["decoder_input_tokens"] = np.concatenate([start, target[:, :-1]], 1)
  return np.asarray(jax.jit(lambda m, b: m.logits(m.hidden(b)))(model, batch))


@torch.no_grad()
def their_logits(kind, model, *, inserted=0):
  """`inserted`: positions that the adapter puts before the input and returns logits of."""
  rows = []
  target = torch.tensor(tokens(NEW, 3)).long()
  for row, length in enumerate((6, 4)):  # one by one, without padding
    source = torch.tensor(tokens(6, 2)[row : row + 1, :length]).long()
    y = target[row : row + 1]
    if is_encoder_decoder(kind):
      start = torch.full((1, 1), model.config.decoder_start_token_id)
      logits = model(
        input_ids=source,
        attention_mask=torch.ones_like(source),
        decoder_input_ids=torch.cat([start, y[:, :-1]], 1),
      ).logits
    else:
      joined = torch.cat([source, y], 1)
      logits = model(input_ids=joined, attention_mask=torch.ones_like(joined)).logits
      logits = logits[:, inserted + length - 1 : -1]
    rows.append(logits.numpy())
  return np.concatenate(rows)


def assert_close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def peft_method(**fields):
  return PrefixTuning(length=LENGTH, sites=["decoder"], positions="peft", **fields)


def prefix_leaves(model):
  leaves = paths.named_leaves(model)
  return {name: leaves[name] for name in paths.match(PrefixTuning.parameters, leaves)}


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_we_load_a_prefix_of_peft_and_give_its_logits(folders, tmp_path, kind, projected):
  if projected and kind != "gpt2":
    pytest.skip("what PEFT saves does not depend on the model here")
  settings = peft.PrefixTuningConfig(
    task_type="SEQ_2_SEQ_LM" if is_encoder_decoder(kind) else "CAUSAL_LM",
    num_virtual_tokens=LENGTH,
    prefix_projection=projected,
    encoder_hidden_size=7,
    # PEFT takes the width of the model, which is not that of all heads together here.
    **(SIZES.get(kind) or {}),
  )
  torch.manual_seed(4)
  theirs = peft.get_peft_model(theirs_of(kind, folders(kind)), settings).eval()
  theirs.save_pretrained(tmp_path)
  ours = ours_of(folders(kind))
  adapter = prefix_tuning.read_prefix_adapter(tmp_path, ours.config)
  dead = {"t5_of_4_layers": 4, "t5_of_3_layers": 0, "bart": 2, "gpt2": 0, "llama": 0}
  assert adapter.unused == dead[kind]
  arrays = {"decoder": (adapter.keys, adapter.values)}
  ours = peft_method(initializer=FromArrays(arrays=arrays)).attach(ours, nnx.Rngs(0))
  assert_close(our_logits(kind, ours), their_logits(kind, theirs))


@pytest.mark.parametrize("kind", ["t5_of_3_layers", "gpt2", "llama"])
def test_peft_loads_our_prefix_and_gives_our_logits(folders, tmp_path, kind):
  ours = ours_of(folders(kind))
  ours = peft_method(initializer=NormalPrefix(std=1.0)).attach(ours, nnx.Rngs(5))
  adapter = prefix_tuning.write_prefix_adapter(
    tmp_path / "adapter",
    prefix_leaves(ours),
    ours.config,
    base_model=str(folders(kind)),
    counted=True,
  )
  theirs = peft.PeftModel.from_pretrained(theirs_of(kind, folders(kind)), adapter).eval()
  assert_close(their_logits(kind, theirs), our_logits(kind, ours))
  again = peft_method(initializer=FromFile(path=adapter)).attach(
    ours_of(folders(kind)), nnx.Rngs(0)
  )
  for name, leaf in prefix_leaves(ours).items():
    np.testing.assert_array_equal(prefix_leaves(again)[name], leaf)


def test_what_peft_cannot_compute_is_not_written(folders, tmp_path):
  kind = "t5_of_3_layers"
  model = ours_of(folders(kind))

  def refused(method, counted):
    leaves = method_files.unrolled(prefix_leaves(method.attach(model, nnx.Rngs(0))))
    with pytest.raises(errors.ConfigError) as caught:
      prefix_tuning.write_prefix_adapter(
        tmp_path / "a", leaves, model.config, base_model="x", counted=counted
      )
    return str(caught.value)

  assert "decoder/encoder_decoder_attention, encoder/attention" in refused(PrefixTuning(), True)
  assert "takes no positions" in refused(PrefixTuning(sites=["decoder"]), False)
  assert "bank of 2 tasks" in refused(peft_method(tasks=2), True)
  model = ours_of(folders("bart"))
  assert "same keys in layers 0 and 1" in refused(peft_method(), True)


def test_a_prefix_of_peft_with_shared_layers_is_written_again(folders, tmp_path):
  settings = peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=LENGTH)
  theirs = peft.get_peft_model(theirs_of("bart", folders("bart")), settings)
  theirs.save_pretrained(tmp_path / "theirs")
  start = FromFile(path=tmp_path / "theirs")
  ours = peft_method(initializer=start).attach(ours_of(folders("bart")), nnx.Rngs(0))
  again = prefix_tuning.write_prefix_adapter(
    tmp_path / "ours", prefix_leaves(ours), ours.config, base_model="x", counted=True
  )
  found, wanted = (
    prefix_tuning.read_prefix_adapter(path, ours.config) for path in (again, tmp_path / "theirs")
  )
  np.testing.assert_array_equal(found.keys, wanted.keys)
  np.testing.assert_array_equal(found.values, wanted.values)


@pytest.mark.parametrize("kind", ["t5_of_3_layers", "gpt2"])
def test_p_tuning_goes_both_ways(folders, tmp_path, kind):
  settings = peft.PromptEncoderConfig(
    task_type="SEQ_2_SEQ_LM" if is_encoder_decoder(kind) else "CAUSAL_LM",
    num_virtual_tokens=LENGTH,
    encoder_hidden_size=7,
  )
  torch.manual_seed(4)
  theirs = peft.get_peft_model(theirs_of(kind, folders(kind)), settings).eval()
  theirs.save_pretrained(tmp_path / "theirs")
  backbone = ours_of(folders(kind))
  start = PromptFromFile(path=tmp_path / "theirs")
  ours = SoftPrompt(length=LENGTH, initializer=start).attach(backbone, nnx.Rngs(0))
  assert_close(our_logits(kind, ours), their_logits(kind, theirs, inserted=LENGTH))

  network = PromptNetwork(hidden=7, hidden_layers=2, activation="relu")
  rows = np.random.default_rng(5).normal(size=(LENGTH, WIDTH)).astype(np.float32)
  method = SoftPrompt(length=LENGTH, initializer=FromArray(array=rows), network=network)
  ours = method.fold(method.attach(backbone, nnx.Rngs(3)))
  (name,) = paths.match(SoftPrompt.parameters, paths.named_leaves(ours))
  adapter = prompt_tuning.write_prompt_adapter(
    tmp_path / "ours",
    paths.named_leaves(ours)[name],
    backbone.config,
    base_model=str(folders(kind)),
    kind="P_TUNING",
  )
  theirs = peft.PeftModel.from_pretrained(theirs_of(kind, folders(kind)), adapter).eval()
  assert_close(their_logits(kind, theirs, inserted=LENGTH), our_logits(kind, ours))
