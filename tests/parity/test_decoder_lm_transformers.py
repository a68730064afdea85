"""Our decoder-only model against transformers' GPT-2 and LLaMA, with weights they were made with.

The weights come over by the name tables of `checkpoints.huggingface`, and gradients go back by
them, so that the tables are tested too.  transformers reads each row by itself, without any padding.

Tolerances: both sides add up float32 products in different orders, so a result can differ by about
sqrt(n) * 6e-8 of its largest term for n terms; over a handful of layers 2e-5 of the largest logit
and, with the backward pass behind it, 1e-4 of a parameter's largest gradient are a few times that.
Any wrong position, mask, scale or activation is off by 1e-2 or more.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tiny_transformers
from promot_jax import paths
from promot_jax.checkpoints.huggingface import gpt2, llama, translation
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Beam, Greedy
from promot_jax.models import stack_layers
from promot_jax.models.decoder_lm import DecoderLM

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

VOCABULARY, EOS = 53, 7
SCALED_ROPE = {
  "rope_type": "llama3",
  "rope_theta": 500.0,
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 64,
}
VARIANTS = {
  "gpt2": ("gpt2", {}),
  "llama": ("llama", {}),
  "llama_tied_scaled_rope": (
    "llama",
    {"num_key_value_heads": 1, "tie_word_embeddings": True, "rope_parameters": SCALED_ROPE},
  ),
}
FAMILIES = {"gpt2": gpt2.FAMILY, "llama": llama.FAMILY}
LENGTHS = ((6, 4), (3, 5), (1, 2), (4, 1))  # of x and y, in each row
SOURCE, TARGET = 7, 5


def _stored(name, array):
  array = np.asarray(array)
  return StoredArray(name=name, shape=array.shape, dtype=array.dtype, read=lambda: array)


@functools.cache
def _pair(variant):
  """The same random model here and in transformers, and the table between them."""
  torch.manual_seed(3)
  kind, fields = VARIANTS[variant]
  fields = {**fields, "vocab_size": VOCABULARY, "eos_token_id": EOS}
  other = tiny_transformers.build(kind, **fields).eval()
  with torch.no_grad():
    for parameter in other.parameters():  # biases are 0 otherwise, and logits too close to 0
      parameter += 0.2 * torch.randn(parameter.shape)
  parameters = dict(other.named_parameters())  # shared ones once
  family = FAMILIES[kind]
  config = family.config_from(other.config.to_dict(), list(parameters))
  config = dataclasses.replace(config, dropout_rate=0.0)
  pairs = family.names(config)
  tensors = {name: _stored(name, tensor.detach().numpy()) for name, tensor in parameters.items()}
  leaves = translation.to_ours(tensors, family, pairs, vocabulary=VOCABULARY)
  abstract = nnx.eval_shape(lambda: DecoderLM(config, nnx.Rngs(0)))
  named = {name: jnp.asarray(np.asarray(leaf)) for name, leaf in leaves.items()}
  return paths.replace_leaves(abstract, named), other, pairs


def _rows(seed=0):
  draw = np.random.default_rng(seed)
  return [tuple(draw.integers(8, VOCABULARY, size=n) for n in lengths) for lengths in LENGTHS]


def _batch(rows, *, left):
  source = np.full((len(rows), SOURCE), -1, np.int32)
  target = np.full((len(rows), TARGET), -1, np.int32)
  for i, (x, y) in enumerate(rows):
    source[i, slice(SOURCE - len(x), None) if left else slice(len(x))] = x
    target[i, : len(y)] = y
  weights = (target >= 0).astype(np.float32)
  return {
    "encoder_input_tokens": source,
    "decoder_target_tokens": target,
    "decoder_loss_weights": weights,
  }


def _their_logits(other, x, y):
  """[len(y) V]: what predicts y."""
  tokens = torch.tensor(np.concatenate([x, y]))[None]
  return other(tokens).logits[0, len(x) - 1 : -1]


def _loss(model, batch):
  logits = model.logits(model.hidden(batch))
  targets = jnp.maximum(batch["decoder_target_tokens"], 0)
  taken = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
  weights = batch["decoder_loss_weights"]
  return -(taken * weights).sum() / weights.sum()


@pytest.mark.parametrize("left", [True, False], ids=["left_padded", "right_padded"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_logits_of_padded_rows_equal_those_of_transformers_without_padding(kind, left):
  model, other, _ = _pair(kind)
  rows = _rows()
  logits = np.asarray(
    jax.jit(lambda model, batch: model.logits(model.hidden(batch)))(model, _batch(rows, left=left))
  )
  with torch.no_grad():
    expected = [_their_logits(other, x, y).numpy() for x, y in rows]
  largest = max(np.abs(row).max() for row in expected)
  for ours, theirs in zip(logits, expected):
    np.testing.assert_allclose(ours[: len(theirs)], theirs, rtol=0, atol=2e-5 * largest)


@pytest.mark.parametrize("scanned", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_loss_and_gradients_of_all_parameters_equal_those_of_transformers(kind, scanned):
  model, other, pairs = _pair(kind)
  rows = _rows(seed=1)
  if scanned:
    model = stack_layers(model)
  loss, gradients = jax.jit(jax.value_and_grad(_loss))(model, _batch(rows, left=True))
  logits = torch.cat([_their_logits(other, x, y) for x, y in rows])
  targets = torch.tensor(np.concatenate([y for _, y in rows]))
  their_loss = torch.nn.functional.cross_entropy(logits, targets)
  other.zero_grad()
  their_loss.backward()
  np.testing.assert_allclose(loss, their_loss.item(), rtol=2e-5)
  named = paths.named_leaves(gradients)
  leaves = {}
  for name, leaf in named.items():
    if scanned and name.startswith("decoder/layers/"):
      rest = name.removeprefix("decoder/layers/")
      leaves.update({f"decoder/layers/{i}/{rest}": part for i, part in enumerate(leaf)})
    else:
      leaves[name] = leaf
  ours = translation.to_theirs({name: _stored(name, leaf) for name, leaf in leaves.items()}, pairs)
  expected = {name: tensor.grad.numpy() for name, tensor in other.named_parameters()}
  assert ours.keys() == expected.keys()
  # A bias of keys shifts all scores of a query alike, so its gradient is 0 but for rounding: it is
  # compared on the scale of the fused bias that it is a part of.
  for name, gradient in expected.items():
    atol = 1e-4 * np.abs(gradient).max()
    np.testing.assert_allclose(np.asarray(ours[name]), gradient, rtol=0, atol=atol, err_msg=name)


def _their_outputs(other, rows, length, **options):
  width = max(len(x) for x, _ in rows)
  tokens = np.zeros((len(rows), width), np.int64)
  seen = np.zeros((len(rows), width), np.int64)
  for i, (x, _) in enumerate(rows):
    tokens[i, width - len(x) :], seen[i, width - len(x) :] = x, 1
  with torch.no_grad():
    result = other.generate(
      torch.tensor(tokens),
      attention_mask=torch.tensor(seen),
      max_new_tokens=length,
      do_sample=False,
      pad_token_id=0,
      return_dict_in_generate=True,
      output_scores=True,
      **options,
    )
  return result.sequences[:, width:].numpy(), result


@pytest.mark.parametrize("left", [True, False], ids=["left_padded", "right_padded"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_greedy_outputs_of_unequal_prompts_are_those_of_generate(kind, left):
  model, other, _ = _pair(kind)
  rows = _rows(seed=2)
  batch = _batch(rows, left=left)
  free = generate(model, batch, strategy=Greedy(), max_length=9, eos=VOCABULARY, pad=0)
  # An end in the middle of some row's output.
  eos = int(np.asarray(free.tokens)[0, 0, 4])
  ours = generate(model, batch, strategy=Greedy(), max_length=9, eos=eos, pad=0)
  expected, _ = _their_outputs(other, rows, 9, eos_token_id=eos)
  expected = np.pad(expected, ((0, 0), (0, 9 - expected.shape[1])))
  np.testing.assert_array_equal(np.asarray(ours.tokens)[:, 0], expected)


@pytest.mark.parametrize("kind", VARIANTS)
def test_four_beams_of_unequal_prompts_are_those_of_generate(kind):
  model, other, _ = _pair(kind)
  rows = _rows(seed=3)
  # Without an end the two searches have the same rules: see test_decoding_transformers.py.
  ours = generate(
    model,
    _batch(rows, left=False),
    strategy=Beam(width=4, alpha=0.0),
    max_length=8,
    eos=VOCABULARY,
    pad=0,
  )
  other.generation_config.eos_token_id = None
  expected, result = _their_outputs(
    other, rows, 8, num_beams=4, num_return_sequences=4, length_penalty=0.0
  )
  np.testing.assert_array_equal(np.asarray(ours.tokens), expected.reshape(len(rows), 4, 8))
  scores = result.sequences_scores.numpy().reshape(len(rows), 4)
  np.testing.assert_allclose(ours.scores, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", VARIANTS)
def test_an_exported_configuration_is_read_back_and_gives_transformers_the_same_model(kind):
  model, other, pairs = _pair(kind)
  family = FAMILIES[VARIANTS[kind][0]]
  assert family.writes(model.config)
  content = family.config_to(model.config)
  assert family.config_from(content, ()) == model.config
  content.pop("architectures")
  again = type(other)(type(other.config)(**content)).eval()
  leaves = {
    name: _stored(name, np.asarray(leaf)) for name, leaf in paths.named_leaves(model).items()
  }
  tensors = translation.to_theirs(leaves, pairs)
  missing, unexpected = again.load_state_dict(
    {name: torch.tensor(np.asarray(tensor)) for name, tensor in tensors.items()}, strict=False
  )
  assert not unexpected and set(missing) <= {"lm_head.weight"}  # tied to the embedding
  tokens = torch.tensor([[9, 30, 11, 8, 50]])
  with torch.no_grad():
    assert torch.equal(again(tokens).logits, other(tokens).logits)


def test_a_fused_kernel_is_cut_and_joined_bitwise():
  model, other, pairs = _pair("gpt2")
  leaves = paths.named_leaves(model)
  fused = other.transformer.h[1].attn.c_attn
  kernels = [
    leaves[f"decoder/layers/1/self_attention/{p}/kernel"] for p in ("query", "key", "value")
  ]
  np.testing.assert_array_equal(np.concatenate(kernels, axis=1), fused.weight.detach().numpy())
  stored = {name: _stored(name, np.asarray(leaf)) for name, leaf in leaves.items()}
  joined = translation.to_theirs(stored, pairs)
  for name, tensor in other.named_parameters():
    np.testing.assert_array_equal(np.asarray(joined[name]), tensor.detach().numpy())
