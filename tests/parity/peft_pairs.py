"""Tiny random models of transformers and the same ones of ours, for comparisons with PEFT.

Weights are drawn by transformers and go through its files.  All sizes differ; rows are of unequal
length, padded on our side and one by one on theirs.
"""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import torch
import transformers
from flax import nnx

from promot_jax.checkpoints import huggingface, restore
from promot_jax.models.bart import Bart
from promot_jax.models.bart_config import BartConfig
from promot_jax.models.decoder_lm import DecoderLM
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.t5 import T5
from promot_jax.models.t5_config import T5Config

VOCABULARY, WIDTH, NEW, LENGTHS = 31, 24, 5, (6, 4)
NETWORKS = {T5Config: T5, BartConfig: Bart, DecoderLMConfig: DecoderLM}
_T5 = {
  "vocab_size": VOCABULARY,
  "d_model": WIDTH,
  "num_heads": 3,
  "d_kv": 10,
  "d_ff": 36,
  "decoder_start_token_id": 0,
}


def _t5(layers, **fields):
  shape = {**_T5, "num_layers": layers, "num_decoder_layers": layers}
  return transformers.T5ForConditionalGeneration(transformers.T5Config(**shape, **fields))


MODELS = {
  "t5": lambda: _t5(2, feed_forward_proj="gated-gelu"),
  "t5_of_3_layers": lambda: _t5(3, feed_forward_proj="relu", scale_decoder_outputs=True),
  "t5_of_4_layers": lambda: _t5(4, feed_forward_proj="relu", scale_decoder_outputs=True),
  "mt5": lambda: transformers.MT5ForConditionalGeneration(
    transformers.MT5Config(
      **_T5, num_layers=2, num_decoder_layers=1, feed_forward_proj="gated-gelu"
    )
  ),
  "umt5": lambda: transformers.UMT5ForConditionalGeneration(
    transformers.UMT5Config(**_T5, num_layers=2, num_decoder_layers=2)
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
      scale_embedding=True,  # a prompt is not scaled
      forced_eos_token_id=None,
    )
  ),
  "gpt2": lambda: transformers.GPT2LMHeadModel(
    transformers.GPT2Config(
      vocab_size=VOCABULARY,
      n_embd=WIDTH,
      n_head=3,
      n_layer=3,
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


class Pairs:
  """The models by kind, made when first asked for."""

  def __init__(self, root: pathlib.Path):
    self._root = root
    self.folder = functools.cache(self._folder)
    self.ours = functools.cache(self._ours)

  def _folder(self, kind):
    """Where transformers saved the model of a kind."""
    torch.manual_seed(1)
    model = MODELS[kind]()
    randomize(model.named_parameters())
    model.save_pretrained(self._root / kind)
    return self._root / kind

  def _ours(self, kind):
    """Our model of these files."""
    folder = self.folder(kind)
    config = dataclasses.replace(huggingface.config(str(folder)), dropout_rate=0.0)
    network = NETWORKS[type(config)]
    model = nnx.eval_shape(lambda: network(config, nnx.Rngs(0)))
    return restore.restore_into(model, huggingface.open_hf(folder, config))

  def theirs(self, kind):
    """Their model of these files, a new one at each call, because PEFT changes it."""
    auto = (
      transformers.AutoModelForSeq2SeqLM
      if task(kind) == "SEQ_2_SEQ_LM"
      else transformers.AutoModelForCausalLM
    )
    return auto.from_pretrained(self.folder(kind), attn_implementation="eager").eval()


def task(kind):
  """PEFT's `task_type`."""
  return "CAUSAL_LM" if kind in ("gpt2", "llama") else "SEQ_2_SEQ_LM"


@torch.no_grad()
def randomize(parameters):
  """Draws (name, parameter) pairs anew, in place."""
  for name, weight in parameters:
    # norms and factors: 1 would hide mistakes
    one = (weight.ndim == 1 and name.endswith("weight")) or "ia3" in name
    weight.copy_(torch.randn_like(weight) * 0.3 + (1 if one else 0))


def tokens(length, seed):
  return np.random.default_rng(seed).integers(8, VOCABULARY, (2, length)).astype(np.int32)


def our_logits(model):
  """[2 NEW V]: what predicts each of NEW targets; the second input has two tokens less."""
  source, target = tokens(LENGTHS[0], 2), tokens(NEW, 3)
  source[1, LENGTHS[1] :] = model.config.pad
  batch = {"encoder_input_tokens": source, "decoder_target_tokens": target}
  if model.config.decoder_start is not None:
    start = np.full((2, 1), model.config.decoder_start, np.int32)
    batch["decoder_input_tokens"] = np.concatenate([start, target[:, :-1]], 1)
  return np.asarray(jax.jit(lambda m, b: m.logits(m.hidden(b)))(model, batch))


@torch.no_grad()
def their_logits(model, *, inserted=0):
  """The same of theirs.

  `inserted`: positions that an adapter puts before the input of a decoder-only model and returns
  logits of.
  """
  rows = []
  target = torch.tensor(tokens(NEW, 3)).long()
  for row, length in enumerate(LENGTHS):  # one by one, without padding
    source = torch.tensor(tokens(LENGTHS[0], 2)[row : row + 1, :length]).long()
    y = target[row : row + 1]
    if model.config.is_encoder_decoder:
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
  """2e-5 of the largest: float32 in another order is some fifty times less, mistakes far more."""
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def assert_differs(found, expected):
  assert np.abs(found - expected).max() > 1e-2 * np.abs(expected).max()
