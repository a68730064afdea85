"""Tiny random models of transformers and the same ones of ours, for comparisons with PEFT.

Weights are drawn by transformers and go through its files.  All sizes differ; rows are of unequal
length, padded on our side and one by one on theirs.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx

import tiny_transformers
from promot_jax import paths
from promot_jax.checkpoints import huggingface, restore
from promot_jax.networks import backbones

VOCABULARY, NEW, LENGTHS = 31, 5, (6, 4)
_GATED = {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0}
_RELU = {
  "feed_forward_proj": "relu",
  "scale_decoder_outputs": True,
  "decoder_start_token_id": 0,
}
_BART = {"decoder_layers": 2, "max_position_embeddings": 20, "forced_eos_token_id": None}
_MODELS = {
  "t5": ("t5", _GATED),
  "t5_of_3_layers": ("t5", {**_RELU, "num_layers": 3, "num_decoder_layers": 3}),
  "t5_of_4_layers": ("t5", {**_RELU, "num_layers": 4, "num_decoder_layers": 4}),
  "mt5": ("mt5", {**_GATED, "num_decoder_layers": 1}),
  "umt5": ("umt5", {}),
  "bart": ("bart", {**_BART, "scale_embedding": True}),  # a prompt is not scaled
  "gpt2": ("gpt2", {"n_layer": 3, "n_positions": 24, "bos_token_id": 7, "eos_token_id": 7}),
  "llama": ("llama", {"eos_token_id": 7}),
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
    family, fields = _MODELS[kind]
    model = tiny_transformers.build(family, vocab_size=VOCABULARY, **fields)
    randomize(model.named_parameters())
    model.save_pretrained(self._root / kind)
    return self._root / kind

  def _ours(self, kind):
    """Our model of these files."""
    folder = self.folder(kind)
    config = dataclasses.replace(huggingface.config(str(folder)), dropout_rate=0.0)
    model = nnx.eval_shape(lambda: backbones.build(config, nnx.Rngs(0)))
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
  return np.asarray(jax.jit(lambda m, b: m.logits(m.hidden(b)))(model, our_batch(model)))


def our_batch(model):
  """What `our_logits` reads."""
  source, target = tokens(LENGTHS[0], 2), tokens(NEW, 3)
  source[1, LENGTHS[1] :] = model.config.pad
  batch = {"encoder_input_tokens": source, "decoder_target_tokens": target}
  if model.config.decoder_start is not None:
    start = np.full((2, 1), model.config.decoder_start, np.int32)
    batch["decoder_input_tokens"] = np.concatenate([start, target[:, :-1]], 1)
  return batch


@torch.no_grad()
def their_logits(model, *, inserted=0):
  """The same of theirs.

  `inserted`: positions that an adapter puts before the input of a decoder-only model and returns
  logits of.
  """
  return _their_logits(model, inserted).numpy()


def _their_logits(model, inserted=0):
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
    rows.append(logits)
  return torch.cat(rows)


def our_gradients(model, names):
  """Gradients of the sum of squares of `our_logits`, by the names of some of the model's parameters."""
  graphdef, trainable, frozen = paths.split(model, names)
  batch = our_batch(model)

  @jax.jit
  def gradients(trainable, frozen):
    def loss(trainable):
      whole = nnx.merge(graphdef, trainable, frozen)
      return jnp.sum(jnp.square(whole.logits(whole.hidden(batch))))

    return jax.grad(loss)(trainable)

  found = paths.named_leaves(gradients(trainable, frozen))
  return {name: np.asarray(leaf) for name, leaf in found.items()}


def put_their_gradients(model):
  """The gradients of the same sum take the places of the parameters of an adapter, which can be saved."""
  torch.sum(torch.square(_their_logits(model))).backward()
  with torch.no_grad():
    for weight in model.parameters():
      if weight.requires_grad:
        weight.copy_(weight.grad)


def assert_close(found, expected):
  """2e-5 of the largest: float32 in another order is some fifty times less, mistakes far more."""
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def assert_differs(found, expected):
  assert np.abs(found - expected).max() > 1e-2 * np.abs(expected).max()
