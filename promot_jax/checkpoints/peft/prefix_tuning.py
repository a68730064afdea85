"""PEFT's prefix tuning against ours: keys and values before those of the decoder.

PEFT saves one array [n, 2 * L * token_dim]: for each position, the heads of 2 L slots one after the
other, also of a prefix that was trained through a network.  Its prefix is what a cache of earlier
tokens would be, so it has positions, and only self-attention of the decoder can have one.

| adapter | slots (key, value) of layer l of the decoder |
|---|---|
| decoder-only | 2l, 2l + 1 |
| encoder-decoder | 4l mod 2L, 4l + 1 mod 2L |

The second row is what PEFT 0.21 does: it puts the table behind itself, gives each layer four slots
and uses two of them.  For an even L half of the slots are never used, and the layers of the second
half share those of the first; for an odd L each layer has its own.  Reading reproduces that, and what
it cannot express is not written.  (With num_transformer_submodules = 1 PEFT takes the first row for
an encoder-decoder too, but hands it a cache in which attention to the encoder goes astray.)
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints.huggingface import families
from promot_jax.checkpoints.peft import known, reader, writer
from promot_jax.checkpoints.stored import StoredArray

TYPES = {reader.PREFIX_TUNING: known.PREFIX_TUNING}
"""`peft_type` -> its settings."""
_NAME = "prompt_embeddings"
_TASKS = {"SEQ_2_SEQ_LM": True, "CAUSAL_LM": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefixAdapter:
  """A prefix of the decoder's self-attention, to be used with PrefixTuning(positions='peft').

  keys, values: [N G P K], N layers of the decoder, in the stored type.
  encoder_decoder: whether it was trained with an encoder-decoder, or with a decoder-only model.
  base_model, revision: of the model, as far as the adapter says.
  unused: number of slots that PEFT never uses, which are left out.
  """

  keys: np.ndarray
  values: np.ndarray
  encoder_decoder: bool
  base_model: str | None = None
  revision: str | None = None
  unused: int = 0


def read_prefix_adapter(path: str | os.PathLike, config: Any = None) -> PrefixAdapter:
  """Reads an adapter of type PREFIX_TUNING.

  Args:
    path: as `reader.open_adapter` takes it.
    config: configuration of the backbone that will take the prefix; None: its decoder has as many
      layers as the adapter says.

  Raises:
    ConfigError: it is no such adapter, or does not fit the backbone.
    DamagedCheckpoint: its files are cut off or contradict each other.
  """
  adapter = reader.open_adapter(path, TYPES)
  # The task tells which of the two tables of slots PEFT uses; the array's shape is the same.
  task = adapter.config.get("task_type")
  if task not in _TASKS:
    raise errors.ConfigError(
      f"'{adapter.path}' has task_type {task!r}; prefixes are read of {' and '.join(_TASKS)} models."
    )
  encoder_decoder = _TASKS[task]
  slots = _slots(adapter)  # [2L G P K]
  layers = slots.shape[0] // 2
  wanted = layers
  if config is not None:
    wanted = _check_fits(adapter.path, slots, config, encoder_decoder=encoder_decoder)
  # Left out means PEFT's own choice, which is this one.
  given = adapter.config.get("num_transformer_submodules")
  submodules = 2 if encoder_decoder else 1
  if given not in (None, submodules):
    raise errors.ConfigError(
      f"'{adapter.path}' has num_transformer_submodules={given}, with which PEFT computes no prefix"
      f" tuning of such a model; only {submodules} can be read."
    )
  used = _used_slots(wanted, layers, encoder_decoder=encoder_decoder)
  # Only what is used: a slot that no layer takes is counted and left out.
  return PrefixAdapter(
    keys=np.stack([slots[key] for key, _ in used]),
    values=np.stack([slots[value] for _, value in used]),
    encoder_decoder=encoder_decoder,
    base_model=adapter.config.get("base_model_name_or_path"),
    revision=adapter.config.get("revision"),
    unused=len(slots) - len({slot for pair in used for slot in pair}),
  )


def write_prefix_adapter(
  path: str | os.PathLike,
  leaves: Mapping[str, Any],
  config: Any,
  *,
  base_model: str,
  counted: bool,
) -> pathlib.Path:
  """Writes the prefix of a decoder's self-attention as an adapter of type PREFIX_TUNING.

  Args:
    path: a new folder.
    leaves: the prefix by its names in an unrolled network, folded (without its network).
    config: of the backbone it was trained with.
    base_model: folder or hub name of the same backbone for transformers; `hf:NAME@REVISION` too.
    counted: whether the prefix takes positions (PrefixTuning.positions is 'peft', or 'paper' on a
      decoder-only model).

  Returns:
    The folder.

  Raises:
    ConfigError: PEFT would compute something else, or transformers has no such backbone.
    CannotWrite: the disk refused.
  """
  # Refuses a backbone that transformers lacks, whose adapter nobody could use.
  families.of_config(config)
  encoder_decoder = "encoder" in config.stack_layers
  layers = config.stack_layers["decoder"]
  # PEFT hands its prefix over as a cache of the decoder's self-attention; there is no other place.
  others = sorted({_site(name) for name in leaves} - {"decoder/self_attention"})
  if others:
    raise errors.ConfigError(
      f"The prefix has keys and values at {', '.join(others)}, and PEFT's prefix is only that of the"
      " decoder's self-attention, so the adapter would be another model; train with"
      " PrefixTuning(sites=['decoder'], positions='peft')."
    )
  # A cache has positions: what follows it is counted on.
  if not counted:
    raise errors.ConfigError(
      "The prefix takes no positions, and PEFT's does: its relative bias or position vectors would"
      " differ; train with PrefixTuning(positions='peft')."
    )
  total = config.encoder_layers if encoder_decoder else layers  # as PEFT counts layers
  # The table has a slot for each layer of the encoder; a deeper decoder would run out of them.
  if total < layers:
    raise errors.ConfigError(
      f"PEFT sizes its prefix by the {total} layers of the encoder, and the decoder has {layers};"
      " there is no adapter of such a model."
    )
  # In float32, in which PEFT keeps its adapters.
  stacked = {
    part: np.stack(
      [
        np.asarray(leaves[f"decoder/layers/{layer}/self_attention/prefix/{part}"], np.float32)
        for layer in range(layers)
      ]
    )
    for part in ("keys", "values")
  }
  if stacked["keys"].ndim != 4:
    raise errors.ConfigError(
      f"The prefix is a bank of {stacked['keys'].shape[1]} tasks, and an adapter holds one; choose"
      " one of them."
    )
  _, heads, length, head_width = stacked["keys"].shape
  # Slots that no layer uses stay zero.
  slots = np.zeros((2 * total, heads, length, head_width), np.float32)
  # Layers that share a slot must agree, or PEFT would compute with the values of the last one.
  taken: dict[int, int] = {}
  for layer, pair in enumerate(_used_slots(layers, total, encoder_decoder=encoder_decoder)):
    for slot, part in zip(pair, ("keys", "values")):
      earlier = taken.setdefault(slot, layer)
      if not np.array_equal(stacked[part][earlier], stacked[part][layer]):
        raise errors.ConfigError(
          f"In an encoder-decoder of {total} layers PEFT uses the same {part} in layers {earlier} and"
          f" {layer} of the decoder, and they differ in this prefix, so the adapter would be another"
          " model; PEFT can hold it for an odd number of layers only."
        )
      slots[slot] = stacked[part][layer]
  rows = slots.transpose(2, 0, 1, 3).reshape(length, -1)  # [2N G P K] -> [P (2N G K)]
  content = {
    **writer.common_config(
      reader.PREFIX_TUNING, encoder_decoder=encoder_decoder, base_model=base_model
    ),
    # transformers' models have no such width, but PEFT looks for it
    "encoder_hidden_size": heads * head_width,
    "num_attention_heads": heads,
    "num_layers": total,
    "num_transformer_submodules": 2 if encoder_decoder else 1,
    "num_virtual_tokens": length,
    "prefix_projection": False,
    "token_dim": heads * head_width,
  }
  array = StoredArray(
    name=_NAME, shape=rows.shape, dtype=np.dtype(np.float32), read=lambda: rows.copy()
  )
  return writer.write_adapter(path, content, {_NAME: array})


def _used_slots(layers: int, total: int, *, encoder_decoder: bool) -> list[tuple[int, int]]:
  """(slot of the keys, slot of the values) of each layer of the decoder; 2 * `total` slots."""
  step = 4 if encoder_decoder else 2
  # Modulo the table's length, for PEFT puts the table behind itself.
  return [(step * layer % (2 * total), (step * layer + 1) % (2 * total)) for layer in range(layers)]


def _slots(adapter: reader.Adapter) -> np.ndarray:
  """[2L G P K], compared with what the adapter says."""
  numbers = [
    adapter.config.get(key)
    for key in ("num_virtual_tokens", "num_layers", "num_attention_heads", "token_dim")
  ]
  if _NAME not in adapter.arrays:
    raise errors.DamagedCheckpoint(f"'{adapter.path}' has no array '{_NAME}'; copy it again.")
  shape = tuple(adapter.arrays[_NAME].shape)
  # Numbers of a file that anybody can have written, before anything is divided by them.
  if not all(isinstance(number, int) and number > 0 for number in numbers):
    raise errors.DamagedCheckpoint(
      f"'{adapter.path}' does not say its sizes in {reader.CONFIG}: {numbers}; copy it again."
    )
  length, layers, heads, width = (int(number or 0) for number in numbers)
  if shape != (length, 2 * layers * width) or width % heads:
    raise errors.DamagedCheckpoint(
      f"'{adapter.path}' says {length} positions of {layers} layers with {heads} heads of together"
      f" {width} features, but holds an array of shape {list(shape)}; copy both files again."
    )
  reader.require_float(adapter.path, _NAME, adapter.arrays[_NAME])
  rows = np.asarray(adapter.arrays[_NAME])
  reader.require_finite(adapter.path, rows)
  return rows.reshape(length, 2 * layers, heads, width // heads).transpose(1, 2, 0, 3)


def _check_fits(
  path: pathlib.Path, slots: np.ndarray, config: Any, *, encoder_decoder: bool
) -> int:
  """Layers of the backbone's decoder."""
  if encoder_decoder != ("encoder" in config.stack_layers):
    raise errors.ConfigError(
      f"'{path}' was trained with {'an encoder-decoder' if encoder_decoder else 'a decoder-only model'}"
      " and this model is of the other kind; give the model that it was trained with."
    )
  layers = config.stack_layers["decoder"]
  heads = config.key_heads
  head_width = config.head_width
  found = (slots.shape[0] // 2, slots.shape[1], slots.shape[3])
  # More layers than the decoder has are no fault: PEFT counts those of the encoder.
  if found[1:] != (heads, head_width) or found[0] < layers:
    raise errors.ConfigError(
      f"'{path}' is a prefix of {found[0]} layers with {found[1]} heads of width {found[2]}, but this"
      f" model's decoder has {layers} layers with {heads} heads of width {head_width}; give the model"
      " that it was trained with."
    )
  return layers


def _site(name: str) -> str:
  stack, *_, attention, _, _ = name.split("/")
  return f"{stack}/{attention}"
