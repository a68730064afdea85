"""T5X's parameter names and layouts against ours.

Unrolled models differ in the spelling of layers (`layers_3` is our `layers/3`) and of the prompt.
T5X's scanned models put the layer axis second, keep heads apart and live one level deeper; our
scanned models put the layer axis first.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import stored
from promot_jax.checkpoints.stored import LastRead, StoredArray

Derive = Callable[[list[Any], tuple[int, ...], Callable[..., np.ndarray]], Any]
"""(source arrays, resulting shape, function of the read sources) -> lazy array."""

_SCANNED = re.compile(r"(encoder/encoder|decoder/decoder)/(.*)")
# A number behind 'layers/' is one layer; without one the array holds all of them, stacked.
_NUMBERED = re.compile(r"(.*/)?layers/(\d+)/(.*)")
_STACKED = re.compile(r"(.*/)?layers/(?!\d+/)(.*)")
_BIAS = "relpos_bias/rel_embedding"
# A list of what is allowed: another method's parameters have no place in T5X's network.
_T5 = re.compile(
  r"token_embedder/embedding|decoder/logits_dense/kernel|(encoder|decoder)/("
  r"relpos_bias/rel_embedding|(encoder|decoder)_norm/scale|prompt/prompt|layers/\d+/("
  r"relpos_bias/rel_embedding|pre_\w+_layer_norm/scale|mlp/(wi|wi_0|wi_1|wo)/kernel|"
  r"(attention|self_attention|encoder_decoder_attention)/(query|key|value|out)/kernel))"
)


def our_name(name: str) -> str:
  """Our name of an unrolled T5X parameter."""
  name = re.sub(r"(?<=/)layers_(\d+)(?=/)", r"layers/\1", name)
  # Theirs is the parameter of a module inside of a module, all three of one name; ours has no inner
  # module.
  return re.sub(r"/prompt/prompt/prompt$", "/prompt/prompt", name)


def their_name(name: str) -> str:
  """The name of our parameter in an unrolled T5X model; the inverse of `our_name`."""
  name = re.sub(r"(?<=/)layers/(\d+)(?=/)", r"layers_\1", name)
  return re.sub(r"/prompt/prompt$", "/prompt/prompt/prompt", name)


def is_scanned(name: str) -> bool:
  """Whether a T5X name belongs to a scanned stack."""
  return _SCANNED.fullmatch(name) is not None


def to_ours(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """T5X's parameters by our names, one layer at a time.

  In T5X's scanned stacks every layer owns a table of position biases.  Where all tables of a stack
  are equal they are those of a T5 whose layers share one, and are given as that one.
  """
  result = {}
  # The layers of a stack are cut from one array, which is read once for all of them.
  last = LastRead()
  for name, leaf in leaves.items():
    scanned = _SCANNED.fullmatch(name)
    if scanned is None:
      result[our_name(name)] = leaf
      continue
    stack, rest = scanned[1].split("/")[0], scanned[2]
    if rest == _BIAS and (shared := _shared_bias(leaf)) is not None:
      result[f"{stack}/{rest}"] = shared
      continue
    # T5X's scan puts the layers on axis 1.
    for layer in range(leaf.shape[1]):
      shape = (leaf.shape[0], *leaf.shape[2:])
      result[f"{stack}/layers/{layer}/{rest}"] = _layer(
        leaf, layer, _joined_shape(rest, shape), last
      )
  return result


def _layer(leaf: Any, layer: int, shape: tuple[int, ...], last: LastRead) -> StoredArray:
  """One layer of a scanned array, whose chunks hold all layers: a part costs as much as the whole."""
  return StoredArray(
    name=getattr(leaf, "name", ""),
    shape=shape,
    dtype=np.dtype(leaf.dtype),
    # A copy: a view would keep the array of all layers in memory.
    read=lambda: np.ascontiguousarray(last(leaf)[:, layer]).reshape(shape),
  )


def to_t5x(leaves: Mapping[str, Any], derive: Derive, *, scanned: bool = False) -> dict[str, Any]:
  """Our parameters, unrolled or stacked, by T5X's names and in its layout; inverse of `to_ours`.

  Raises:
    ConfigError: they are not those of a T5, mT5 or umT5, or hold prompts of several tasks.
  """
  # One form on the way in: a stacked model is taken apart first.
  leaves = unrolled(leaves, derive)
  _check_is_t5(leaves)
  if not scanned:
    return {their_name(name): leaf for name, leaf in leaves.items()}
  result: dict[str, Any] = {}
  layers: dict[tuple[str, str], dict[int, Any]] = {}
  for name, leaf in leaves.items():
    numbered = _NUMBERED.fullmatch(name)
    if numbered is None:
      result[their_name(name)] = leaf
    else:
      stack = numbered[1].rstrip("/")
      layers.setdefault((stack, numbered[3]), {})[int(numbered[2])] = leaf
  for (stack, rest), members in layers.items():
    # A kernel [E J] does not tell its heads; the table of position biases [H buckets] does.
    heads = _bias(leaves, stack).shape[0]
    ordered = _ordered(f"{stack}/layers/{rest}", members)
    apart = _apart_shape(rest, tuple(ordered[0].shape), heads)

    # The default binds `apart` now: this is called when the array is read, after the loop.
    def stacked(*arrays: np.ndarray, apart: tuple[int, ...] = apart) -> np.ndarray:
      return np.stack([array.reshape(apart) for array in arrays], axis=1)

    shape = (apart[0], len(ordered), *apart[1:])
    result[f"{stack}/{stack}/{rest}"] = derive(ordered, shape, stacked)
    bias = result.pop(f"{stack}/{_BIAS}", None)
    if bias is not None:  # in T5X's scanned layers each owns one
      result[f"{stack}/{stack}/{_BIAS}"] = _repeated(bias, len(ordered), derive)
  return result


def unrolled(leaves: Mapping[str, Any], derive: Derive) -> dict[str, Any]:
  """Our leaves with one entry for each layer, whether they came stacked or not."""
  result: dict[str, Any] = {}
  for name, leaf in leaves.items():
    layers = stacked_layers(name, leaf)
    if not layers:
      result[name] = leaf
    for layer, own in enumerate(layers):
      result[own] = derive([leaf], tuple(leaf.shape[1:]), lambda array, layer=layer: array[layer])
  return result


def stacked_layers(name: str, leaf: Any) -> list[str]:
  """The names that the layers of a stacked array have when they are unrolled; of another array none."""
  stacked = _STACKED.fullmatch(name)
  if stacked is None:
    return []
  return [_name(stacked[1], f"{layer}/", stacked[2]) for layer in range(leaf.shape[0])]


def to_layout_of(
  leaves: Mapping[str, Any], wanted: Mapping[str, Any], derive: Derive
) -> dict[str, Any]:
  """Our leaves with their layers stacked or unrolled as in `wanted`; names that fit stay.

  Where `wanted` has a table of position biases in every layer, a shared one is given to each.

  Raises:
    ConfigError: layers cannot be stacked, or have tables of their own where `wanted` has one.
  """
  # First, because a table may have to go under other names, not only into another layout.
  leaves = _with_biases_of(leaves, wanted)
  stacked_wanted = {name for name in wanted if _STACKED.fullmatch(name)}
  result: dict[str, Any] = {}
  layers: dict[str, dict[int, Any]] = {}
  for name, leaf in leaves.items():
    numbered, stacked = _NUMBERED.fullmatch(name), _STACKED.fullmatch(name)
    # Before the layouts are compared: what fits already must not be turned.
    if name in wanted:
      result[name] = leaf
    elif numbered and (target := _name(numbered[1], "", numbered[3])) in stacked_wanted:
      layers.setdefault(target, {})[int(numbered[2])] = leaf
    elif stacked and _name(stacked[1], "0/", stacked[2]) in wanted:
      for layer in range(leaf.shape[0]):
        result[_name(stacked[1], f"{layer}/", stacked[2])] = derive(
          [leaf], tuple(leaf.shape[1:]), lambda array, layer=layer: array[layer]
        )
    # No place in the model: it stays, and the caller's table of differences shows it.
    else:
      result[name] = leaf
  for name, members in layers.items():
    ordered = _ordered(name, members)
    result[name] = stored.stacked(ordered)
  return result


def _ordered(name: str, members: Mapping[int, Any]) -> list[Any]:
  """The leaves of all layers from the first to the last."""
  ordered = [members[layer] for layer in sorted(members)]
  shapes = {tuple(member.shape) for member in ordered}
  if sorted(members) != list(range(len(members))) or len(shapes) > 1:
    raise errors.ConfigError(
      f"The layers of '{name}' cannot be stacked: layers {sorted(members)} of shapes"
      f" {sorted(shapes)}."
    )
  return ordered


def _name(prefix: str | None, layer: str, rest: str) -> str:
  return f"{prefix or ''}layers/{layer}{rest}"


def _joined_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """[E H K] -> [E J] and [H K E] -> [J E] for attention kernels, with J = H K."""
  if len(shape) != 3:
    return shape
  if name.endswith("out/kernel"):
    return (shape[0] * shape[1], shape[2])
  return (shape[0], shape[1] * shape[2])


def _apart_shape(name: str, shape: tuple[int, ...], heads: int) -> tuple[int, ...]:
  """[E J] -> [E H K] and [J E] -> [H K E] for attention kernels: the inverse of `_joined_shape`."""
  if "attention/" not in name:
    return shape
  if name.endswith("out/kernel"):
    return (heads, shape[0] // heads, shape[1])
  return (shape[0], heads, shape[1] // heads)


def _repeated(bias: Any, layers: int, derive: Derive) -> Any:
  """[H buckets] -> [H layers buckets]."""
  shape = (bias.shape[0], layers, bias.shape[1])
  return derive([bias], shape, lambda array: np.repeat(array[:, None], layers, axis=1))


def _check_is_t5(leaves: Mapping[str, Any]) -> None:
  unknown = [name for name in leaves if not _T5.fullmatch(name)]
  if unknown:
    raise errors.ConfigError(
      f"T5X's format has no place for '{unknown[0]}' ({len(unknown)} such parameters): it holds T5"
      " 1.0, T5 1.1, mT5 and umT5 models with at most a soft prompt; detach other methods, or export to"
      " Hugging Face's format."
    )
  for stack in ("encoder", "decoder"):
    has_layers = any(name.startswith(f"{stack}/layers/") for name in leaves)
    if has_layers and _bias(leaves, stack) is None:
      raise errors.ConfigError(
        f"The {stack} has no '{_BIAS}', so this is no T5 and T5X's format does not fit; export to"
        " Hugging Face's format."
      )
    prompt = leaves.get(f"{stack}/prompt/prompt")
    if prompt is not None and len(prompt.shape) != 2:
      raise errors.ConfigError(
        f"The model holds prompts of {prompt.shape[0]} tasks and T5X's format holds one prompt;"
        " choose the task whose prompt is written."
      )


def _shared_bias(leaf: Any) -> np.ndarray | None:
  """The table [H buckets] that all layers have in [H layers buckets]; None where they differ."""
  # The only arrays that are read here, and small ones: the names of the result depend on their
  # values.
  array = np.asarray(leaf)
  return array[:, 0] if (array == array[:, :1]).all() else None


def _bias(leaves: Mapping[str, Any], stack: str) -> Any:
  """The table of position biases of a stack, or of its first layer; None: it has none."""
  return leaves.get(f"{stack}/{_BIAS}", leaves.get(f"{stack}/layers/0/{_BIAS}"))


def _with_biases_of(leaves: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
  """The leaves with a stack's shared table under the names that the layers of `wanted` have."""
  result = dict(leaves)
  for stack in ("encoder", "decoder"):
    shared, own = f"{stack}/{_BIAS}", re.compile(rf"{stack}/layers/(\d+/)?{_BIAS}")
    places = [name for name in wanted if own.fullmatch(name)]
    # Refused in this direction only: many tables do not go into one, while one fills many.
    if shared in wanted and shared not in leaves and any(own.fullmatch(name) for name in leaves):
      raise errors.ConfigError(
        f"Each layer of the stored {stack} has relative position biases of its own, as in umT5 and in"
        " T5X's scanned models, and the model shares one table; set T5Config.relative_bias ="
        " 'per_layer'."
      )
    if places and shared not in wanted and shared in leaves:
      bias = result.pop(shared)
      for name in places:
        stacked = not _NUMBERED.fullmatch(name)
        result[name] = stored.stacked([bias] * wanted[name].shape[0]) if stacked else bias
  return result
