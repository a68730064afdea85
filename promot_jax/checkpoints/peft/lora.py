"""PEFT's LoRA against ours: W + (lora_alpha / r) (B A) in torch's orientation, s A B in ours.

`lora_A.weight` is [r, in] and `lora_B.weight` [out, r], of Conv1D layers (GPT-2) too.  GPT-2's fused
projection has one A and one B of all of query, key and value; ours have one each.  Reading gives all
three the same A and their rows of B.  Writing takes one A where the three are equal (what was read
comes back as it was), and otherwise stacks their ranks: A of all of them above each other, and B with
zeros outside of their blocks, which computes exactly the three updates.  Updates of smaller rank are
then filled up with zeros, because a plain adapter has one rank.

DoRA's `lora_magnitude_vector` [out] holds the lengths m of the columns of a kernel [in, out], those of
query, key and value of a fused projection one after the other.  There PEFT has a length for every
column, so an update of one of the three alone cannot be written.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import known_settings
from promot_jax.checkpoints.peft import known, reader, writer
from promot_jax.checkpoints.peft import modules as modules_lib
from promot_jax.checkpoints.stored import StoredArray

TYPES = {reader.LORA: known.LORA}
"""`peft_type` -> its settings."""
_A, _B, _MAGNITUDES = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
_LEAF = re.compile(r"(.*)/lora/(down|up|magnitude)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRAAdapter:
  """Updates of linear layers, to be used with LoRA(rank, alpha, targets, decomposed).

  arrays: our name of the layer (unrolled) -> (A [in, R], B [R, out]), float32.
  magnitudes: of DoRA: the same names -> m [out], float32; else empty.
  rank: R, the largest that occurs; smaller ones are filled up with zeros.
  alpha: the update is s A B with s = alpha / R.
  dropout_rate: that it was trained with.
  targets: patterns that select these layers.
  base_model, revision: of the model, as far as the adapter says.
  """

  arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]
  magnitudes: Mapping[str, np.ndarray]
  rank: int
  alpha: float
  dropout_rate: float
  targets: tuple[str, ...]
  base_model: str | None = None
  revision: str | None = None


def read_lora_adapter(path: str | os.PathLike, config: Any) -> LoRAAdapter:
  """Reads an adapter of type LORA.

  Args:
    path: as `reader.open_adapter` takes it.
    config: of the backbone, which says what PEFT calls its layers.

  Raises:
    ConfigError: it is no such adapter, a variant that computes something else, or of another model.
    DamagedCheckpoint: its files are cut off or contradict each other.
  """
  adapter, found = modules_lib.open_adapter(path, TYPES, (_A, _B), config, further=[_MAGNITUDES])
  modules = modules_lib.of_config(config)
  # All shapes before any value is read.
  for name, arrays in found.items():
    shapes = [tuple(arrays[part].shape) for part in (_A, _B)]
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][0] != shapes[1][1]:
      raise errors.DamagedCheckpoint(
        f"'{adapter.path}' has {_A} {list(shapes[0])} and {_B} {list(shapes[1])} at '{name}', which"
        " are no product; copy it again."
      )
    _check_magnitudes(adapter, name, arrays)
  # A method here has one rank, and rows of zeros add nothing to an update.
  rank = max(arrays[_A].shape[0] for arrays in found.values())
  factors = {name: _scale(adapter, name, arrays[_A].shape) for name, arrays in found.items()}
  # One factor for all: what is left of another one goes into its B.
  scale = _reference(factors.values())
  updates: dict[str, tuple[np.ndarray, np.ndarray]] = {}
  magnitudes: dict[str, np.ndarray] = {}
  for name, arrays in found.items():
    down, up = (np.asarray(arrays[part]).astype(np.float32) for part in (_A, _B))
    for array in (down, up):
      reader.require_finite(adapter.path, array)
    if factors[name] != scale:  # one factor for all: the difference goes into B
      up = up * np.float32(factors[name] / scale)
    # Zeros for A's further rows and B's further columns: their product stays the same.
    room = rank - down.shape[0]
    down, up = np.pad(down, ((0, room), (0, 0))), np.pad(up, ((0, 0), (0, room)))
    where = f"'{adapter.path}' at '{name}'"
    for ours, part in _cut(up, modules[name], where=where).items():
      # PEFT has torch's orientation, [r in] and [out r]; ours is that of kernels.
      updates[ours] = np.ascontiguousarray(down.T), np.ascontiguousarray(part.T)
    if _MAGNITUDES in arrays:
      given = np.asarray(arrays[_MAGNITUDES]).astype(np.float32)
      reader.require_finite(adapter.path, given)
      magnitudes |= _cut(given, modules[name], where=where)
  return LoRAAdapter(
    arrays=updates,
    magnitudes=magnitudes,
    rank=rank,
    # Of the filled-up rank, so that alpha / rank is the factor again.
    alpha=scale * rank,
    dropout_rate=float(_number(adapter, adapter.config.get("lora_dropout") or 0.0, "lora_dropout")),
    targets=tuple(modules_lib.patterns(updates, config)),
    base_model=adapter.config.get("base_model_name_or_path"),
    revision=adapter.config.get("revision"),
  )


def write_lora_adapter(
  path: str | os.PathLike,
  leaves: Mapping[str, Any],
  config: Any,
  *,
  base_model: str,
  scale: float,
  dropout_rate: float = 0.0,
) -> pathlib.Path:
  """Writes updates as an adapter of type LORA, in float32 as PEFT does.

  Args:
    path: a new folder.
    leaves: the updates by their names in an unrolled network ('.../query/lora/down'); with
      '.../query/lora/magnitude' it is an adapter of DoRA.
    config: of the backbone they were trained with.
    base_model: folder or hub name of the same backbone for transformers; `hf:NAME@REVISION` too.
    scale: alpha / R.
    dropout_rate: only for PEFT to train on.

  Returns:
    The folder.

  Raises:
    ConfigError: transformers has no such backbone, the updates are a bank of several tasks, or PEFT
      cannot hold these magnitudes.
    CannotWrite: the disk refused.
  """
  modules = modules_lib.of_config(config)
  updates: dict[str, dict[str, np.ndarray]] = {}
  for leaf_name, leaf in leaves.items():
    match = _LEAF.fullmatch(leaf_name)
    assert match, leaf_name
    updates.setdefault(match[1], {})[match[2]] = np.asarray(leaf, np.float32)
  tasks = next(iter(updates.values()))["down"]
  if tasks.ndim != 2:
    raise errors.ConfigError(
      f"The LoRA updates are a bank of {tasks.shape[0]} tasks, and an adapter holds one; choose one"
      " of them."
    )
  # One layer of theirs may be several of ours, of which some have no update.
  joined = {
    name: _joined([updates.get(ours) for ours in module.ours])
    for name, module in modules.items()
    if any(ours in updates for ours in module.ours)
  }
  magnitudes = {
    name: _joined_magnitudes(modules[name], updates)
    for name in joined
    if any("magnitude" in updates.get(ours, {}) for ours in modules[name].ours)
  }
  # The largest: a plain adapter has one rank for all.
  rank = max(down.shape[0] for down, _ in joined.values())
  arrays: dict[str, StoredArray] = {}
  for name, (down, up) in joined.items():
    room = rank - down.shape[0]
    arrays |= modules_lib.stored(name, _A, np.pad(down, ((0, room), (0, 0))))
    arrays |= modules_lib.stored(name, _B, np.pad(up, ((0, 0), (0, room))))
    if name in magnitudes:
      arrays |= modules_lib.stored(name, _MAGNITUDES, magnitudes[name])
  # Also of that rank, for PEFT divides by it.
  alpha = scale * rank
  content = {
    **writer.common_config(
      reader.LORA, encoder_decoder="encoder" in config.stack_layers, base_model=base_model
    ),
    "bias": "none",
    "fan_in_fan_out": not all(modules[name].transposed for name in joined),
    # A whole number where it is one, as PEFT writes it.
    "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
    "lora_dropout": dropout_rate,
    "r": rank,
    "target_modules": modules_lib.targets(joined, modules),
    # Only where it is true, as PEFT before 0.9 has no such key.
    **({"use_dora": True} if magnitudes else {}),
  }
  return writer.write_adapter(path, content, arrays)


def _check_magnitudes(
  adapter: reader.Adapter, module: str, arrays: Mapping[str, StoredArray]
) -> None:
  """Raises unless a module has magnitudes of its size in an adapter of DoRA, and none in another one."""
  # The setting and the arrays say it both: one of the files may be of another adapter.
  decomposed = bool(adapter.config.get("use_dora"))
  if decomposed != (_MAGNITUDES in arrays):
    raise errors.DamagedCheckpoint(
      f"'{adapter.path}' has use_dora={adapter.config.get('use_dora')} and"
      f" {'no' if decomposed else 'a'} {_MAGNITUDES} at '{module}'; copy both files again."
    )
  shape, features = tuple(arrays[_MAGNITUDES].shape) if decomposed else (), arrays[_B].shape[0]
  if decomposed and shape != (features,):
    raise errors.DamagedCheckpoint(
      f"'{adapter.path}' has {_MAGNITUDES} {list(shape)} at '{module}', which has {features} output"
      " features; copy it again."
    )


def _scale(adapter: reader.Adapter, module: str, shape: tuple[int, ...]) -> float:
  """The factor of one update, as PEFT finds it; `shape` of its A.  It may be 0."""
  rank = _of_module(adapter, module, "r", "rank_pattern", 8)
  # The rank is said in the configuration, and the array has it, too: one may be of another adapter.
  if not shape or rank != shape[0] or rank < 1:
    raise errors.DamagedCheckpoint(
      f"'{adapter.path}' says that the update at '{module}' has rank {rank:g}, and its {_A} is"
      f" {list(shape)}; copy both files again."
    )
  # PEFT's own defaults where the file does not mention them.
  alpha = _of_module(adapter, module, "lora_alpha", "alpha_pattern", 8)
  # Rank-stabilized LoRA divides by the root of the rank.
  return alpha / math.sqrt(rank) if adapter.config.get("use_rslora") else alpha / rank


def _of_module(
  adapter: reader.Adapter, module: str, name: str, pattern_name: str, default: float
) -> float:
  """The number of one module: of the first pattern that its name ends with, or the general one."""
  value = adapter.config.get(name, default)
  patterns = adapter.config.get(pattern_name) or {}
  try:
    # The first that fits, as PEFT goes through its table.
    for pattern, other in patterns.items():
      if re.match(rf"(.*\.)?({pattern})$", module):
        value = other
        break
  except (AttributeError, re.error) as error:
    raise errors.DamagedCheckpoint(
      f"'{adapter.path}' has a {pattern_name} that is no table of patterns ({error}); copy it again."
    ) from None
  return _number(adapter, value, f"{name} of '{module}'")


def _number(adapter: reader.Adapter, value: Any, what: str) -> float:
  """The value, if it is a number; `what` it is, for the message."""
  try:
    if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
      return value
  except OverflowError:  # a whole number beyond every float
    pass
  raise errors.DamagedCheckpoint(
    f"'{adapter.path}' has {known_settings.text(value)} as {what}, which is no number that can be"
    " computed with; copy it again."
  )


def _reference(factors: Iterable[float]) -> float:
  """The one factor of all updates: that of the first one that has any; an alpha of 0 has none."""
  # An alpha of 0 switches an update off, and says nothing about the others.
  given = [abs(factor) for factor in factors if factor]
  return given[0] if given else 1.0


def _cut(rows: np.ndarray, module: modules_lib.Module, *, where: str) -> dict[str, np.ndarray]:
  """The rows of each of our layers in a layer of theirs: of B, or of the magnitudes."""
  if len(module.ours) == 1:
    return {module.ours[0]: rows}
  if rows.shape[0] % len(module.ours):
    raise errors.DamagedCheckpoint(
      f"{where} has {rows.shape[0]} output features, which are not {len(module.ours)} equal parts."
    )
  return dict(zip(module.ours, np.split(rows, len(module.ours))))


def _joined(updates: list[dict[str, np.ndarray] | None]) -> tuple[np.ndarray, np.ndarray]:
  """(lora_A [r, in], lora_B [out, r]) of one layer of theirs; parts without an update get zeros."""
  given = [update for update in updates if update is not None]
  if len(updates) == 1:
    return given[0]["down"].T, given[0]["up"].T
  features = given[0]["up"].shape[1]  # a fused layer has parts of equal size
  first = given[0]["down"]
  # What was read from PEFT has one A for all parts, and is written as it was.
  if all(np.array_equal(update["down"], first) for update in given):
    rank = first.shape[1]
    zeros = np.zeros((features, rank), np.float32)
    return first.T, np.concatenate([zeros if u is None else u["up"].T for u in updates])
  # Otherwise their ranks are stacked: A's above each other, B's in blocks of their own.
  down = np.concatenate([update["down"].T for update in given])
  up = np.zeros((features * len(updates), len(down)), np.float32)
  column = 0
  for number, update in enumerate(updates):
    if update is not None:
      rank = update["up"].shape[0]
      up[number * features : (number + 1) * features, column : column + rank] = update["up"].T
      column += rank
  return down, up


def _joined_magnitudes(
  module: modules_lib.Module, updates: Mapping[str, Mapping[str, np.ndarray]]
) -> np.ndarray:
  """lora_magnitude_vector [out] of one layer of theirs."""
  without = [ours for ours in module.ours if ours not in updates]
  # Its kernel's own lengths would do, but what is written holds no kernels.
  if without:
    raise errors.ConfigError(
      f"transformers computes {', '.join(module.ours)} as one layer '{module.theirs}', of which PEFT's"
      f" DoRA has all magnitudes, and {', '.join(without)} has none; train with LoRA.targets"
      " that select all of them, or write the merged model (--to=hf --merge)."
    )
  return np.concatenate([updates[ours]["magnitude"] for ours in module.ours])
