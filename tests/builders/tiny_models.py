"""Backbones small enough for every test, and what tests do with them again and again.

The folder is on the path of imports while tests run.  Sizes are small, can be divided by 2 for a
mesh that splits `model`, and differ from one another where the formats allow, so that swapped axes
fail.  A test whose point is a size or a setting gives it as a change.
"""

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax import paths
from promot_jax.models.bart_config import BartConfig
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.scanning import stack_layers
from promot_jax.models.t5_config import T5Config
from promot_jax.networks import backbones

_SIZES = {"vocab_size": 40, "width": 12, "mlp_width": 20}
_PAIR = {**_SIZES, "heads": 2, "encoder_layers": 1, "decoder_layers": 2}
# The published starts are so narrow that an untrained decoder gives nearly equal logits to all.
_WIDE = {"init_std": 0.3}
_ONE = {**_SIZES, **_WIDE, "layers": 2, "max_positions": 24, "eos": 1, "embedding_std": 0.3}
_ROTARY = {"positions": "rotary", "use_bias": False, "mlp_activations": ("silu", "linear")}
_GATED = {**_ONE, **_ROTARY, "heads": 4, "head_width": 6}
_PALM = {"kv_heads": 1, "parallel": True, "scale_logits": True, "source_attention": "full"}
_KINDS: dict[str, tuple[type, dict[str, Any]]] = {
  "t5": (T5Config, {**_PAIR, "head_width": 5}),
  "umt5": (T5Config, {**_PAIR, "head_width": 5, "relative_bias": "per_layer"}),
  "bart": (BartConfig, {**_PAIR, **_WIDE, "max_positions": 16}),
  "gpt2": (DecoderLMConfig, {**_ONE, "heads": 2, "head_width": 6}),
  "llama": (DecoderLMConfig, {**_GATED, "norm": "rms", "kv_heads": 2}),
  "palm": (DecoderLMConfig, {**_GATED, **_PALM}),
}

# of the checkpoints that T5X wrote for the tests
_T5X = {"head_width": 8, "encoder_layers": 2, "decoder_layers": 1}
_T5X_SMALL = {**_T5X, "vocab_size": 64, "width": 16, "heads": 2, "mlp_width": 24}
T5X_SIZES = {
  "t5_1_1_tiny": {**_T5X, "vocab_size": 192, "width": 128, "heads": 4, "mlp_width": 128},
  "t5_1_1_tiny_bf16": _T5X_SMALL,
  "prompt_t5_1_1_tiny": _T5X_SMALL,
}


def config(kind: str, **changes) -> Any:
  """The configuration of a tiny 't5', 'umt5', 'bart', 'gpt2', 'llama' or 'palm'."""
  made, fields = _KINDS[kind]
  return made(**{**fields, **changes})


@functools.cache
def tiny(kind: str, *, seed: int = 0, scanned: bool = False, **changes) -> Any:
  """A freshly initialized backbone, made once: copy it (`paths.copy`) before it is changed."""
  if scanned:
    return stack_layers(tiny(kind, seed=seed, **changes))
  return backbones.build(config(kind, **changes), nnx.Rngs(seed))


def tokens(model: Any, rows: int, length: int, *, seed: int) -> np.ndarray:
  """Words [rows length] of the model's vocabulary, no special ones (ids below 3) among them."""
  draw = np.random.default_rng(seed).integers
  return draw(3, model.config.vocab_size, (rows, length)).astype(np.int32)


def batch_of(
  model: Any, *, rows: int = 2, source: int = 5, target: int = 4, seed: int = 2
) -> dict[str, np.ndarray]:
  """A batch of random words; the second input is 2 shorter, and rows take turns among 2 tasks."""
  inputs = tokens(model, rows, source, seed=seed)
  inputs[1:2, source - 2 :] = model.config.pad
  ids = np.arange(1, rows + 1, dtype=np.int32) % 2  # of banks; what is no bank ignores them
  return batch_from(model, inputs, tokens(model, rows, target, seed=seed + 1), prompt_ids=ids)


def batch_from(
  model: Any, source: np.ndarray, target: np.ndarray, **features
) -> dict[str, np.ndarray]:
  """The batch of given ids [B S] and [B T], shifted for the decoder of an encoder-decoder."""
  batch = {"encoder_input_tokens": source, "decoder_target_tokens": target, **features}
  if model.config.decoder_start is not None:
    first = np.full((len(target), 1), model.config.decoder_start, np.int32)
    batch["decoder_input_tokens"] = np.concatenate([first, target[:, :-1]], axis=1)
  return batch


@functools.partial(jax.jit, static_argnames="graphdef")
def _logits(state, batch, graphdef):
  model = nnx.merge(graphdef, state)
  return model.logits(model.hidden(batch))


def logits(model: nnx.Module, batch: Mapping[str, Any] | None = None) -> np.ndarray:
  """Logits [B T V] of a batch, `batch_of(model)` by default, compiled once for each structure."""
  graphdef, state = nnx.split(model)
  return np.asarray(_logits(state, batch_of(model) if batch is None else batch, graphdef))


def program(model: nnx.Module, batch: Mapping[str, Any]) -> jax.stages.Compiled:
  """What `logits` runs for a model and batch as they lie on the devices; called with (state, batch)."""
  graphdef, state = nnx.split(model)
  return _logits.lower(state, batch, graphdef=graphdef).compile()


@functools.partial(jax.jit, static_argnames="graphdef")
def _logits_and_gradients(state, batch, key, graphdef):
  def loss(state):
    model = nnx.merge(graphdef, state)
    logits = model.logits(model.hidden(batch, key=key))
    return jnp.square(logits).mean(), logits

  gradients, logits = jax.grad(loss, has_aux=True)(state)
  return logits, gradients


def logits_and_gradients(
  model: nnx.Module, batch: Mapping[str, Any], key: jax.Array | None = None
) -> tuple[jax.Array, Any]:
  """Logits [B T V], and the gradients of their mean square in the form of the model."""
  graphdef, state = nnx.split(model)
  logits, gradients = _logits_and_gradients(state, batch, key, graphdef)
  return logits, nnx.merge(graphdef, gradients)


def reconfigured(model: Any, **changes) -> Any:
  """The same weights under another configuration."""
  config = dataclasses.replace(model.config, **changes)
  other = nnx.eval_shape(lambda: backbones.build(config, nnx.Rngs(1)))
  return paths.replace_leaves(other, paths.named_leaves(model))


def compilations() -> int:
  """How many programs `logits` has compiled."""
  return _logits._cache_size()


def moved(model: nnx.Module, method: Any, *, scale: float = 0.3, seed: int = 0) -> Any:
  """The model with normal noise on the method's own parameters, as many methods start as no change.

  A layer's noise is the same whether layers are stacked or not.
  """
  leaves = paths.named_leaves(model)
  changed = {
    name: leaves[name] + scale * _noise(name, leaves[name].shape, seed)
    for name in paths.match(method.parameters, leaves)
  }
  return paths.replace_leaves(model, {**leaves, **changed})


def _noise(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
  words = name.split("/")
  if "layers" not in words:
    return _normal(words, 0, seed, shape)
  number = words.index("layers") + 1
  if words[number].isdigit():
    return _normal(words[:number] + words[number + 1 :], int(words[number]), seed, shape)
  return np.stack([_normal(words, layer, seed, shape[1:]) for layer in range(shape[0])])


def _normal(words: list[str], layer: int, seed: int, shape: tuple[int, ...]) -> np.ndarray:
  draw = np.random.default_rng([seed, layer, zlib.crc32("/".join(words).encode())])
  return draw.normal(size=shape).astype(np.float32)


def close(found, expected, relative: float = 1e-5, *, largest: float | None = None) -> None:
  """Equal but for the order of float32 sums.

  A term is rounded by 6e-8 of itself; sums of some ten terms through a layer or two differ by some
  1e-6 of the largest value, and there are small values among the logits: `relative` is a share of
  the largest expected value, not of each.  `largest` is given where all of an array is small beside
  the terms that it is the sum of, as a gradient that is nearly 0.
  """
  expected = np.asarray(expected)
  largest = np.abs(expected).max() if largest is None else largest
  np.testing.assert_allclose(found, expected, rtol=0, atol=relative * largest)


def same_arrays(found: nnx.Module, expected: nnx.Module) -> None:
  """Equal structure and names, and every leaf is the very array of before, or equal bit for bit."""
  assert nnx.graphdef(found) == nnx.graphdef(expected)
  before, after = paths.named_leaves(expected), paths.named_leaves(found)
  assert list(before) == list(after)
  for name, leaf in before.items():
    assert leaf is after[name] or np.array_equal(leaf, after[name]), name
