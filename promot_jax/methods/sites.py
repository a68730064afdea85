"""Where a backbone attends: the places at which a method may add keys and values.

Found by attribute, not by type of model: a network that names its parts as T5, BART and the
decoder-only model do has these sites.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import errors
from promot_jax.models import scanning, stack
from promot_jax.models.kv_cache import KVCache

PLACES: Mapping[str, tuple[str, str]] = {
  "encoder": ("encoder", "attention"),
  "decoder": ("decoder", "self_attention"),
  "cross": ("decoder", "encoder_decoder_attention"),
}
"""Name of a site -> (stack, attribute of its layers)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
  """One kind of attention of a network, in all N layers of its stack."""

  name: str
  layers: int
  heads: int
  """G: heads of keys and values."""
  head_width: int

  def path(self, layer: int) -> str:
    """Name of its attention in a layer of an unrolled network."""
    stack_name, attribute = PLACES[self.name]
    return f"{stack_name}/layers/{layer}/{attribute}"

  def shape(self, length: int) -> tuple[int, int, int, int]:
    """[N G P K] of the keys (or values) of a prefix of P positions."""
    return (self.layers, self.heads, length, self.head_width)


def sites(model: nnx.Module) -> dict[str, Site]:
  """All sites of a network by name, those of the encoder first."""
  found = {}
  for name, (stack_name, attribute) in PLACES.items():
    part = model.stacks.get(stack_name)
    # A decoder without a memory has no attention to one.
    attention = part and vars(stack.members(part.layers)[0]).get(attribute)
    if attention is None:
      continue
    # The last axis, as kernels of scanned layers have one of layers in front.
    features = attention.key.kernel.shape[-1]
    found[name] = Site(
      name=name,
      layers=stack.count(part.layers),
      heads=attention.kv_heads,
      head_width=features // attention.kv_heads,
    )
  return found


def chosen(model: nnx.Module, names: Sequence[str] | None, *, method: str) -> dict[str, Site]:
  """The sites of the given names; None: all that there are.

  Raises:
    ConfigError: the network has no such site, or none at all.
  """
  found = sites(model)
  if not found:
    raise errors.ConfigError(
      f"{method} needs attention with a prefix slot, and {type(model).__name__} has none."
    )
  if names is None:
    return found
  for name in names:
    if name not in found:
      raise errors.ConfigError(
        f"{method} is asked for site '{name}', and {type(model).__name__} has {', '.join(found)};"
        " leave `sites` out for all of them."
      )
  return {name: found[name] for name in names}


def attentions(model: nnx.Module, site: str) -> list[nnx.Module]:
  """The attention of each layer; of scanned layers the modules that stand for all."""
  stack_name, attribute = PLACES[site]
  layers = model.stacks[stack_name].layers
  return [getattr(member, attribute) for member in stack.members(layers)]


def fill(model: nnx.Module, site: str, make: Callable[[Any], nnx.Module]) -> None:
  """Puts a module into the prefix slot of every layer, in place.

  Args:
    make: gives a module from a function that takes what belongs to the layer out of an array [N ...]
      (of scanned layers all of it).
  """
  stack_name, attribute = PLACES[site]
  layers = model.stacks[stack_name].layers
  unrolled = not stack.is_scanned(layers)
  for number, member in enumerate(stack.members(layers)):
    # Of split scans the second module is the last layers.
    own = number if unrolled else slice(-stack.count(member), None)
    getattr(member, attribute).prefix = make(lambda leaf, own=own: leaf[own])


def occupied(model: nnx.Module) -> list[str]:
  """Names of sites whose prefix slots are filled."""
  # The first layer tells: methods fill all layers of a site, or none.
  return [name for name in sites(model) if attentions(model, name)[0].prefix is not None]


def empty(model: nnx.Module) -> None:
  """Empties all prefix slots, in place."""
  for name in sites(model):
    for attention in attentions(model, name):
      attention.prefix = nnx.data(None)


def activations(model: nnx.Module, ids: Sequence[int]) -> dict[str, KVCache]:
  """Keys and values [N G L K] (float32) that the network computes of a text of L tokens, by site.

  An encoder-decoder reads the text in its encoder and in its decoder.

  Raises:
    ConfigError: an id is not in the vocabulary.
  """
  rows = model.token_embedder.embedding.shape[0]
  unknown = sorted({int(token) for token in ids if not 0 <= token < rows})
  if unknown or not len(ids):
    raise errors.ConfigError(
      f"Token ids {unknown or 'none'} cannot be run through the model, whose vocabulary has {rows};"
      " give those of a text in the model's own vocabulary."
    )
  # Unrolled, because a recorder inside of a scan would note a tracer of one layer only.
  model = scanning.unstack_layers(model)
  # Of the backbone alone: a prefix that is attached would be recorded with the text.
  empty(model)
  recorded: dict[str, list[KVCache]] = {name: [] for name in sites(model)}
  for part in model.stacks.values():
    part.remat = "none"  # what is recorded must not live inside a recomputed function
  model.reader.prompt = nnx.data(None)
  for name, caches in recorded.items():
    for attention in attentions(model, name):
      # The slot is given what attention reads: nothing of the network has to change to record it.
      attention.prefix = _Recorder(caches.append)
  tokens = jnp.asarray([list(ids)], jnp.int32)
  # A decoder-only model reads the text as its input and is asked for a single target.
  targets = tokens if "encoder" in recorded else jnp.zeros((1, 1), jnp.int32)
  model.hidden(
    {
      "encoder_input_tokens": tokens,
      "decoder_input_tokens": targets,
      "decoder_target_tokens": targets,
    }
  )
  return {
    name: jax.tree.map(lambda *leaves: jnp.concatenate(leaves).astype(jnp.float32), *caches)
    for name, caches in recorded.items()
  }


class _Recorder(nnx.Module):
  """Stands in a prefix slot, notes what attention reads, and changes nothing."""

  def __init__(self, note: Callable[[KVCache], None]):
    self.note = note

  def __call__(self, keys, values, bias, mask):
    self.note(KVCache(keys=keys, values=values))  # [1 G L K]
    return keys, values, bias, mask
