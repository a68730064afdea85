"""PEFT's prompt adapters against ours: either side loads what the other wrote and gives its logits.

Weights are random and drawn by transformers; adapters go through their files.  Tolerances are those
of test_t5_transformers.py and for its reasons: a prompt at the wrong place, of the wrong rows or with
other positions changes logits by 1e-2 or more of the largest, which the last test shows.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax.checkpoints import huggingface, restore
from promot_jax.checkpoints.peft import prompt_tuning
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Greedy
from promot_jax.methods.prompt import FromArray, FromFile, SoftPrompt
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

LENGTH, VOCABULARY, WIDTH, NEW = 4, 31, 24, 5
NETWORKS = {T5Config: T5, BartConfig: Bart, DecoderLMConfig: DecoderLM}
T5_SHAPE = {
  "vocab_size": VOCABULARY,
  "d_model": WIDTH,
  "num_heads": 3,
  "d_kv": 10,
  "d_ff": 36,
  "num_layers": 2,
  "num_decoder_layers": 1,
  "decoder_start_token_id": 0,
}
MODELS = {
  "t5": lambda: transformers.T5ForConditionalGeneration(
    transformers.T5Config(**T5_SHAPE, feed_forward_proj="relu", scale_decoder_outputs=True)
  ),
  "mt5": lambda: transformers.MT5ForConditionalGeneration(
    transformers.MT5Config(**T5_SHAPE, feed_forward_proj="gated-gelu")
  ),
  "bart": lambda: transformers.BartForConditionalGeneration(
    transformers.BartConfig(
      vocab_size=VOCABULARY,
      d_model=WIDTH,
      encoder_layers=2,
      decoder_layers=1,
      encoder_attention_heads=3,
      decoder_attention_heads=3,
      encoder_ffn_dim=36,
      decoder_ffn_dim=36,
      max_position_embeddings=20,
      scale_embedding=True,  # the prompt is not scaled
      forced_eos_token_id=None,
    )
  ),
  "gpt2": lambda: transformers.GPT2LMHeadModel(
    transformers.GPT2Config(
      vocab_size=VOCABULARY,
      n_embd=WIDTH,
      n_head=3,
      n_layer=2,
      n_inner=36,
      n_positions=24,
      eos_token_id=7,
      bos_token_id=7,
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
      eos_token_id=7,
    )
  ),
}
ENCODER_DECODERS = ("t5", "mt5", "bart")


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
    if kind in ENCODER_DECODERS
    else transformers.AutoModelForCausalLM
  )
  return auto.from_pretrained(folder, attn_implementation="eager").eval()


def prompt_values():
  return (np.random.default_rng(5).normal(size=(LENGTH, WIDTH)) * 0.5).astype(np.float32)


def tokens(length, seed):
  draw = np.random.default_rng(seed).integers(8, VOCABULARY, (2, length))
  return draw.astype(np.int32)


def our_logits(kind, model):
  """[2 NEW V]: what predicts each of NEW targets; the second input has two tokens less."""
  source, target = tokens(6, 2), tokens(NEW, 3)
  source[1, 4:] = model.config.pad
  batch = {"encoder_input_tokens": source, "decoder_target_tokens": target}
  if kind in ENCODER_DECODERS:
    start = np.full((2, 1), model.config.decoder_start, np.int32)
    batch["decoder_input_tokens"] = np.concatenate([start, target[:, :-1]], 1)
  return np.asarray(jax.jit(lambda m, b: m.logits(m.hidden(b)))(model, batch))


@torch.no_grad()
def their_logits(kind, model):
  rows = []
  target = torch.tensor(tokens(NEW, 3)).long()
  for row, length in enumerate((6, 4)):  # one by one, without padding
    source = torch.tensor(tokens(6, 2)[row : row + 1, :length]).long()
    y = target[row : row + 1]
    if kind in ENCODER_DECODERS:
      start = torch.full((1, 1), model.config.decoder_start_token_id)
      logits = model(
        input_ids=source,
        attention_mask=torch.ones_like(source),
        decoder_input_ids=torch.cat([start, y[:, :-1]], 1),
      ).logits
    else:
      joined = torch.cat([source, y], 1)
      logits = model(input_ids=joined, attention_mask=torch.ones_like(joined)).logits
      logits = logits[:, LENGTH + length - 1 : -1]
    rows.append(logits.numpy())
  return np.concatenate(rows)


def assert_close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", MODELS)
def test_peft_loads_our_adapter_and_gives_our_logits(folders, tmp_path, kind):
  ours = ours_of(folders(kind))
  values = prompt_values()
  adapter = prompt_tuning.write_prompt_adapter(
    tmp_path / "adapter", values, ours.config, base_model=str(folders(kind))
  )
  ours = SoftPrompt(length=LENGTH, initializer=FromArray(array=values)).attach(ours, nnx.Rngs(0))
  base = peft.PeftConfig.from_pretrained(adapter).base_model_name_or_path
  theirs = peft.PeftModel.from_pretrained(theirs_of(kind, base), adapter).eval()
  assert_close(their_logits(kind, theirs), our_logits(kind, ours))


@pytest.mark.parametrize("submodules", [None, 1])
@pytest.mark.parametrize("kind", MODELS)
def test_we_load_an_adapter_of_peft_and_give_its_logits(folders, tmp_path, kind, submodules):
  task = "SEQ_2_SEQ_LM" if kind in ENCODER_DECODERS else "CAUSAL_LM"
  settings = peft.PromptTuningConfig(
    task_type=task, num_virtual_tokens=LENGTH, num_transformer_submodules=submodules
  )
  torch.manual_seed(4)
  theirs = peft.get_peft_model(theirs_of(kind, folders(kind)), settings).eval()
  theirs.save_pretrained(tmp_path)
  ours = ours_of(folders(kind))
  adapter = prompt_tuning.read_prompt_adapter(tmp_path, ours.config)
  assert adapter.base_model == str(folders(kind))
  assert adapter.unused == (LENGTH if task == "SEQ_2_SEQ_LM" and submodules is None else 0)
  ours = SoftPrompt(length=LENGTH, initializer=FromFile(path=tmp_path)).attach(ours, nnx.Rngs(0))
  assert_close(our_logits(kind, ours), their_logits(kind, theirs))


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_peft_generates_the_tokens_that_we_generate(folders, tmp_path, kind):
  ours = ours_of(folders(kind))
  values = prompt_values()
  adapter = prompt_tuning.write_prompt_adapter(
    tmp_path / "adapter", values, ours.config, base_model=str(folders(kind))
  )
  theirs = peft.PeftModel.from_pretrained(theirs_of(kind, folders(kind)), adapter).eval()
  ours = SoftPrompt(length=LENGTH, initializer=FromArray(array=values)).attach(ours, nnx.Rngs(0))
  source = tokens(6, 2)
  found = generate(ours, {"encoder_input_tokens": source}, strategy=Greedy(), max_length=NEW).tokens
  wanted = theirs.generate(
    input_ids=torch.tensor(source).long(),
    attention_mask=torch.ones(source.shape, dtype=torch.long),
    max_new_tokens=NEW,
    do_sample=False,
    num_beams=1,
    pad_token_id=0,
  ).numpy()
  wanted = wanted[:, 1:] if kind == "t5" else wanted[:, -NEW:]
  found = np.asarray(found)[:, 0]
  for ours_row, theirs_row in zip(found, wanted):
    stop = list(ours_row).index(ours.config.eos) + 1 if ours.config.eos in ours_row else NEW
    np.testing.assert_array_equal(ours_row[:stop], theirs_row[:stop])


@pytest.mark.parametrize("kind", MODELS)
def test_other_rows_would_be_noticed(folders, kind):
  ours = ours_of(folders(kind))
  values = prompt_values()
  logits = [
    our_logits(
      kind,
      SoftPrompt(length=LENGTH, initializer=FromArray(array=rows)).attach(ours, nnx.Rngs(0)),
    )
    for rows in (values, values[::-1])
  ]
  assert np.abs(logits[0] - logits[1]).max() > 1e-3 * np.abs(logits[0]).max()
