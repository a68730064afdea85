"""PEFT's IA3 against ours: one vector `ia3_l` for each layer.

It is [out, 1] where it multiplies the output, bias included, and [1, in] in layers that
`feedforward_modules` selects, where it multiplies the input.  GPT-2's fused projection has one vector
of all of query, key and value, of which each of ours takes its part.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints.peft import known, reader, writer
from promot_jax.checkpoints.peft import modules as modules_lib
from promot_jax.checkpoints.stored import StoredArray

TYPES = {reader.IA3: known.IA3}
"""`peft_type` -> its settings."""
_ARRAY = "ia3_l"
_LEAF = re.compile(r"(.*)/ia3/(inputs|outputs)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IA3Adapter:
  """Factors of linear layers, to be used with IA3(outputs, inputs).

  arrays: '.../ia3/outputs' or '.../ia3/inputs' of an unrolled network -> factors, float32.
  outputs, inputs: patterns that select the layers of either kind; None: there are none.
  base_model, revision: of the model, as far as the adapter says.
  """

  arrays: Mapping[str, np.ndarray]
  outputs: tuple[str, ...] | None
  inputs: tuple[str, ...] | None
  base_model: str | None = None
  revision: str | None = None


def read_ia3_adapter(path: str | os.PathLike, config: Any) -> IA3Adapter:
  """Reads an adapter of type IA3.

  Args:
    path: as `reader.open_adapter` takes it.
    config: of the backbone, which says what PEFT calls its layers.

  Raises:
    ConfigError: it is no such adapter, or of another model.
    DamagedCheckpoint: its files are cut off or contradict each other.
  """
  adapter, found = modules_lib.open_adapter(path, TYPES, (_ARRAY,), config)
  modules = modules_lib.of_config(config)
  arrays: dict[str, np.ndarray] = {}
  sides: dict[str, list[str]] = {"outputs": [], "inputs": []}
  for name, stored in found.items():
    # In float32, as PEFT keeps and multiplies them.
    factors = np.asarray(stored[_ARRAY]).astype(np.float32)
    ours = modules[name].ours
    # A fused layer's vector has one part for each of ours.
    if factors.ndim != 2 or 1 not in factors.shape or factors.size % len(ours):
      raise errors.DamagedCheckpoint(
        f"'{adapter.path}' has an array of shape {list(factors.shape)} at '{name}', which is no vector"
        f" of factors of {len(ours)} layer(s); copy it again."
      )
    reader.require_finite(adapter.path, factors)
    # The side is in the shape: torch multiplies a column with outputs and a row with inputs.
    side = "inputs" if factors.shape[0] == 1 else "outputs"
    # Inputs of a fused layer are the same for all of its parts, outputs are one behind the other.
    parts = [factors.reshape(-1)] * len(ours)
    if side == "outputs" and len(ours) > 1:
      parts = np.split(parts[0], len(ours))
    for our_name, part in zip(ours, parts):
      arrays[f"{our_name}/ia3/{side}"] = np.ascontiguousarray(part)
      sides[side].append(our_name)
  patterns = {
    side: tuple(modules_lib.patterns(names, config)) or None for side, names in sides.items()
  }
  return IA3Adapter(
    arrays=arrays,
    **patterns,
    base_model=adapter.config.get("base_model_name_or_path"),
    revision=adapter.config.get("revision"),
  )


def write_ia3_adapter(
  path: str | os.PathLike, leaves: Mapping[str, Any], config: Any, *, base_model: str
) -> pathlib.Path:
  """Writes factors as an adapter of type IA3, in float32 as PEFT does.

  Args:
    path: a new folder.
    leaves: the factors by their names in an unrolled network ('.../key/ia3/outputs').
    config: of the backbone they were trained with.
    base_model: folder or hub name of the same backbone for transformers; `hf:NAME@REVISION` too.

  Returns:
    The folder.

  Raises:
    ConfigError: transformers has no such backbone, or PEFT cannot hold these factors.
    CannotWrite: the disk refused.
  """
  modules = modules_lib.of_config(config)
  given: dict[str, tuple[str, np.ndarray]] = {}
  for leaf_name, leaf in leaves.items():
    match = _LEAF.fullmatch(leaf_name)
    assert match, leaf_name
    # In float32, as PEFT saves them.
    given[match[1]] = match[2], np.asarray(leaf, np.float32)
  arrays: dict[str, StoredArray] = {}
  used: dict[str, list[str]] = {"outputs": [], "inputs": []}
  # In the order of transformers' layers, of which one may be several of ours.
  for name, module in modules.items():
    found = {ours: given[ours] for ours in module.ours if ours in given}
    if found:
      side, factors = _joined(name, module, found)
      used[side].append(name)
      # [1 in] or [out 1], by which PEFT tells the sides apart.
      factors = factors[None, :] if side == "inputs" else factors[:, None]
      arrays |= modules_lib.stored(name, _ARRAY, factors)
  every = [*used["outputs"], *used["inputs"]]
  targets = modules_lib.targets(every, modules)
  feedforward = modules_lib.targets(used["inputs"], modules) if used["inputs"] else []
  if isinstance(targets, str) or isinstance(feedforward, str):  # PEFT wants both of one kind
    targets = "|".join(re.escape(name) for name in sorted(every))
    feedforward = "|".join(re.escape(name) for name in sorted(used["inputs"])) or "none"
  # PEFT refuses a list of feed-forward modules that is not a part of the targets.
  elif not set(feedforward) <= set(targets):
    targets = sorted({*modules_lib.targets(used["outputs"], modules), *feedforward})
  content = {
    **writer.common_config(
      reader.IA3, encoder_decoder="encoder" in config.stack_layers, base_model=base_model
    ),
    # Conv1D, GPT-2's linear layer, stores [in, out], which PEFT calls fan-in fan-out.
    "fan_in_fan_out": not all(modules[name].transposed for name in every),
    "feedforward_modules": feedforward,
    "target_modules": targets,
  }
  return writer.write_adapter(path, content, arrays)


def _joined(
  name: str, module: modules_lib.Module, found: Mapping[str, tuple[str, np.ndarray]]
) -> tuple[str, np.ndarray]:
  """(side, factors) of one layer of theirs; outputs without factors get ones."""
  # One layer of theirs has one vector, on one side.
  sides = {side for side, _ in found.values()}
  first = next(iter(found.values()))[1]
  if first.ndim != 1:
    raise errors.ConfigError(
      f"The IA3 factors are a bank of {first.shape[0]} tasks, and an adapter holds one set; choose one"
      " of them."
    )
  if len(sides) > 1 or (sides == {"inputs"} and len(module.ours) > 1):
    raise errors.ConfigError(
      f"transformers computes {', '.join(module.ours)} as one layer '{name}', whose inputs PEFT"
      " scales all alike or not at all; scale their outputs."
    )
  # Where only some of the fused parts are scaled, the others are multiplied by one.
  ones = np.ones_like(first)
  return sides.pop(), np.concatenate(
    [found[ours][1] if ours in found else ones for ours in module.ours]
  )
