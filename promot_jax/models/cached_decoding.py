"""One step of an encoder-decoder's decoder at a time, whatever its layers compute.

A layer has `self_attention`, `encoder_decoder_attention` and a method `step` for one position.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax.models import stack
from promot_jax.models.attention import MASKED, displacement, prefix_positions
from promot_jax.models.kv_cache import DecodeCache, KVCache
from promot_jax.types import Array, Bool, Float, PyTree


def start(
  layers: stack.Layers,
  memory: Float[Array, "B S D"],
  memory_mask: Bool[Array, "B S"],
  *,
  max_length: int,
  position_bias: Callable[[np.ndarray], Array] | None = None,
  layer_bias: Callable[[nnx.Module], Callable[[np.ndarray], Array]] | None = None,
) -> DecodeCache:
  """An empty cache for `max_length` positions; projects the memory once for all steps.

  Args:
    layers: of the decoder.
    memory, memory_mask: of the encoder.
    max_length: the largest number of tokens that will be generated.
    position_bias: of key minus query positions [L], [H L], in all layers; None: there is none.
    layer_bias: layer -> its own function of that kind; None: layers have none of their own.
  """

  offset = prefix_positions(layers, "self_attention")
  # Every distance that a step will ask for, with its bias computed once: a step cuts out its own.
  relative = np.arange(1 - max_length - offset, max_length)
  moved = relative + displacement(layers, "self_attention")

  # Of each layer, in the loop that also runs them: scanned layers are projected in one scan.
  def project(layer, carry, _):
    projected = layer.encoder_decoder_attention.project(memory)
    # Self-attention has the same number of heads; only the length differs.
    *rows_and_heads, _, head_width = projected.keys.shape
    shape = (*rows_and_heads, max_length, head_width)
    empty = jnp.zeros(shape, projected.keys.dtype)
    own_bias = None if layer_bias is None else layer_bias(layer)(moved)
    return carry, (projected, KVCache(keys=empty, values=empty), own_bias)

  _, outputs = stack.run(layers, project, ())
  if stack.is_scanned(layers):
    cross_attention, self_attention, own_biases = outputs
  else:
    cross_attention, self_attention, own_biases = zip(*outputs)
  bias = jnp.zeros((1, relative.size)) if position_bias is None else position_bias(moved)
  return DecodeCache(
    self_attention=self_attention,
    cross_attention=cross_attention,
    memory_mask=memory_mask,
    layer_bias_by_distance=own_biases,
    # Keys ahead are hidden by distance, and with them the places that are not written yet.
    bias_by_distance=bias + np.where(relative <= 0, 0.0, MASKED).astype(np.float32),
    position=jnp.zeros((), jnp.int32),
  )


def step(
  layers: stack.Layers, embeddings: Float[Array, "R D"], cache: DecodeCache
) -> tuple[Float[Array, "R D"], DecodeCache]:
  """One position of every row through all layers, and the cache with it written."""
  caches = cache.self_attention
  max_length = jax.tree.leaves(caches)[0].shape[-2]
  assert cache.bias_by_distance is not None  # `start` sets it
  assert cache.memory_mask is not None

  def here(distances: Float[Array, "... H 2*L-1"]) -> Float[Array, "... H 1 L"]:
    """Seen from the position that is written now."""
    # Place 0 is the farthest distance back: the later the position, the earlier its slice begins.
    seen = distances.shape[-1] - (max_length - 1)
    start = max_length - 1 - cache.position
    return jax.lax.dynamic_slice_in_dim(distances, start, seen, axis=-1)[..., None, :]

  bias = here(cache.bias_by_distance)[None]
  own_biases = jax.tree.map(here, cache.layer_bias_by_distance)
  mask = cache.memory_mask[:, None, None, :]

  def one_layer(layer, x, layer_inputs):
    own, memory, own_bias = layer_inputs
    added = bias if own_bias is None else bias + own_bias
    return layer.step(x, own, memory, position=cache.position, bias=added, memory_mask=mask)

  inputs: PyTree = (caches, cache.cross_attention, own_biases)
  # Unrolled layers take one entry each, scanned ones trees with an axis of layers.
  if not stack.is_scanned(layers):
    inputs = tuple(zip(*inputs))
  x, written = stack.run(layers, one_layer, embeddings[:, None, :], inputs)
  cache = dataclasses.replace(cache, self_attention=written, position=cache.position + 1)
  return x[:, 0, :], cache
