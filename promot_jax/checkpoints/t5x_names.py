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

Derive = Callable[[list[Any], tuple[int, ...], Callable[..., np.ndarray]], Any]
"""(source arrays, resulting shape, function of the read sources) -> lazy array."""

_SCANNED = re.compile(r"(encoder/encoder|decoder/decoder)/(.*)")
_NUMBERED = re.compile(r"(.*/)?layers/(\d+)/(.*)")
_STACKED = re.compile(r"(.*/)?layers/(?!\d+/)(.*)")


def our_name(name: str) -> str:
  """Our name of an unrolled T5X parameter."""
  name = re.sub(r"(?<=/)layers_(\d+)(?=/)", r"layers/\1", name)
  return re.sub(r"/prompt/prompt/prompt$", "/prompt/prompt", name)


def is_scanned(name: str) -> bool:
  """Whether a T5X name belongs to a scanned stack."""
  return _SCANNED.fullmatch(name) is not None


def to_ours(leaves: Mapping[str, Any], derive: Derive) -> dict[str, Any]:
  """T5X's parameters by our names, one layer at a time.

  Raises:
    ConfigError: layers of a scanned stack have position biases of their own.
  """
  result = {}
  for name, leaf in leaves.items():
    scanned = _SCANNED.fullmatch(name)
    if scanned is None:
      result[our_name(name)] = leaf
      continue
    stack, rest = scanned[1].split("/")[0], scanned[2]
    if rest == "relpos_bias/rel_embedding":
      result[f"{stack}/{rest}"] = _shared_bias(name, leaf)
      continue
    for layer in range(leaf.shape[1]):
      shape = (leaf.shape[0], *leaf.shape[2:])
      joined = _joined_shape(rest, shape)
      result[f"{stack}/layers/{layer}/{rest}"] = derive(
        [leaf], joined, lambda array, layer=layer, joined=joined: array[:, layer].reshape(joined)
      )
  return result


def to_layout_of(
  leaves: Mapping[str, Any], wanted: Mapping[str, Any], derive: Derive
) -> dict[str, Any]:
  """Our leaves with their layers stacked or unrolled as in `wanted`; names that fit stay."""
  stacked_wanted = {name for name in wanted if _STACKED.fullmatch(name)}
  result: dict[str, Any] = {}
  layers: dict[str, dict[int, Any]] = {}
  for name, leaf in leaves.items():
    numbered, stacked = _NUMBERED.fullmatch(name), _STACKED.fullmatch(name)
    if name in wanted:
      result[name] = leaf
    elif numbered and (target := _name(numbered[1], "", numbered[3])) in stacked_wanted:
      layers.setdefault(target, {})[int(numbered[2])] = leaf
    elif stacked and _name(stacked[1], "0/", stacked[2]) in wanted:
      for layer in range(leaf.shape[0]):
        result[_name(stacked[1], f"{layer}/", stacked[2])] = derive(
          [leaf], tuple(leaf.shape[1:]), lambda array, layer=layer: array[layer]
        )
    else:
      result[name] = leaf
  for name, members in layers.items():
    ordered = [members[layer] for layer in sorted(members)]
    shapes = {tuple(member.shape) for member in ordered}
    if sorted(members) != list(range(len(members))) or len(shapes) > 1:
      raise errors.ConfigError(
        f"The layers of '{name}' cannot be stacked: layers {sorted(members)} of shapes"
        f" {sorted(shapes)}."
      )
    result[name] = derive(ordered, (len(ordered), *shapes.pop()), lambda *arrays: np.stack(arrays))
  return result


def _name(prefix: str | None, layer: str, rest: str) -> str:
  return f"{prefix or ''}layers/{layer}{rest}"


def _joined_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """[E H K] -> [E J] and [H K E] -> [J E] for attention kernels, with J = H K."""
  if len(shape) != 3:
    return shape
  if name.endswith("out/kernel"):
    return (shape[0] * shape[1], shape[2])
  return (shape[0], shape[1] * shape[2])


def _shared_bias(name: str, leaf: Any) -> np.ndarray:
  array = np.asarray(leaf)  # [H, layers, buckets]
  if not (array == array[:, :1]).all():
    raise errors.ConfigError(
      f"Each layer of '{name}' has position biases of its own, as in umT5; a T5 shares one for all"
      " layers, so this checkpoint cannot be taken over."
    )
  return array[:, 0]
