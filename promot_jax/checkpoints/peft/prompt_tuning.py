"""PEFT's prompt tuning against ours: the same vectors before the same embedded input.

An encoder-decoder gets them before the encoder's input, a decoder-only model before everything;
positions count them in both.  PEFT saves one array [n * submodules, D], where n is
`num_virtual_tokens`.  For encoder-decoders it makes two submodules unless told otherwise, yet feeds
only the first n rows to the encoder and none to the decoder (forward and generate of
`PeftModelForSeq2SeqLM` in 0.21), so the first n rows are the prompt and nothing is lost.

P-tuning's files hold the vectors that its network computed, and PEFT uses them in the same way.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints.huggingface import families
from promot_jax.checkpoints.peft import known, reader, writer
from promot_jax.checkpoints.stored import StoredArray

_NAME = "prompt_embeddings"
TYPES = {reader.PROMPT_TUNING: known.PROMPT_TUNING, reader.P_TUNING: known.P_TUNING}
"""`peft_type` -> its settings."""
_TASKS = {"SEQ_2_SEQ_LM": True, "CAUSAL_LM": False}
"""`task_type` -> whether its models are encoder-decoders."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptAdapter:
  """A prompt, and what its adapter says about it.

  prompt: [P D] in the stored type.
  encoder_decoder: whether it was trained with an encoder-decoder, or with a decoder-only model.
  base_model: folder or hub name of the model; None if the adapter does not say.
  revision: of the hub's model.
  unused: rows of the adapter that PEFT never uses, which are left out.
  """

  prompt: np.ndarray
  encoder_decoder: bool
  base_model: str | None = None
  revision: str | None = None
  unused: int = 0


def read_prompt_adapter(path: str | os.PathLike, config: Any = None) -> PromptAdapter:
  """Reads an adapter of type PROMPT_TUNING or P_TUNING.

  Args:
    path: as `reader.open_adapter` takes it.
    config: configuration of the backbone that will take the prompt; None: it is not compared.

  Raises:
    ConfigError: it is no such adapter, does not fit the backbone, or cannot be applied as PEFT
      applies it.
    DamagedCheckpoint: its files are cut off or contradict each other.
  """
  adapter = reader.open_adapter(path, TYPES)
  # Before the values are read: with modules_to_save it is more than a prompt.
  _check_arrays(adapter)
  task = adapter.config.get("task_type")
  if task not in _TASKS:
    raise errors.ConfigError(
      f"'{adapter.path}' has task_type {task!r}; prompts are read of {' and '.join(_TASKS)} models,"
      " because other ones have heads that are no part of a text-to-text model."
    )
  encoder_decoder = _TASKS[task]
  length, submodules = _length_and_submodules(adapter, encoder_decoder=encoder_decoder)
  reader.require_float(adapter.path, _NAME, adapter.arrays[_NAME])
  rows = np.asarray(adapter.arrays[_NAME])
  reader.require_finite(adapter.path, rows)
  if config is not None:
    _check_fits(adapter.path, rows, config, encoder_decoder=encoder_decoder)
  return PromptAdapter(
    # The rows of further submodules are never fed to a model.
    prompt=rows[:length],
    encoder_decoder=encoder_decoder,
    base_model=adapter.config.get("base_model_name_or_path"),
    revision=adapter.config.get("revision"),
    unused=length * (submodules - 1),
  )


def write_prompt_adapter(
  path: str | os.PathLike,
  prompt: Any,
  config: Any,
  *,
  base_model: str,
  kind: str = reader.PROMPT_TUNING,
) -> pathlib.Path:
  """Writes one prompt [P D] as an adapter of type PROMPT_TUNING, in float32 as PEFT does.

  Args:
    path: a new folder.
    prompt: array or StoredArray.
    config: of the backbone it was trained with.
    base_model: folder or hub name of the same backbone for transformers; `hf:NAME@REVISION` too.
    kind: P_TUNING makes it an adapter of that type, with the same outputs.

  Returns:
    The folder.

  Raises:
    ConfigError: transformers has no such backbone, or the prompt is not one prompt of its width.
    CannotWrite: the disk refused.
  """
  # Refuses a backbone that transformers lacks.
  families.of_config(config)
  shape = tuple(prompt.shape)
  if len(shape) != 2 or shape[1] != config.width:
    several = f"prompts of {shape[0]} tasks; choose one" if len(shape) == 3 else "no such prompt"
    raise errors.ConfigError(
      f"A PEFT adapter of this model holds one prompt [length, {config.width}], but the given array"
      f" of shape {list(shape)} is {several}."
    )
  encoder_decoder = _is_encoder_decoder(config)
  content = {
    **writer.common_config(
      kind,
      encoder_decoder=encoder_decoder,
      base_model=base_model,
    ),
    "num_attention_heads": config.heads,
    # PEFT asks for them in every prompt's configuration, whether or not they mean anything.
    "num_layers": config.encoder_layers if encoder_decoder else config.layers,
    # One, where PEFT's own choice for an encoder-decoder would be two and use half of them.
    "num_transformer_submodules": 1,
    "num_virtual_tokens": shape[0],
    "token_dim": shape[1],
  }
  if kind == reader.P_TUNING:  # PEFT asks for the shape of a network that it then does not build
    content["encoder_hidden_size"] = shape[1]
  array = StoredArray(
    name=_NAME,
    shape=shape,
    dtype=np.dtype(np.float32),
    read=lambda: np.asarray(prompt).astype(np.float32),
  )
  return writer.write_adapter(path, content, {_NAME: array})


def _check_arrays(adapter: reader.Adapter) -> None:
  if _NAME not in adapter.arrays:
    raise errors.DamagedCheckpoint(f"'{adapter.path}' has no array '{_NAME}'; copy it again.")
  # PEFT saves whole modules under their own names beside the prompt.
  others = sorted(set(adapter.arrays) - {_NAME})
  if others:
    raise errors.ConfigError(
      f"'{adapter.path}' also replaces parameters of the model (modules_to_save:"
      f" {', '.join(others[:3])}), which a soft prompt cannot; save it from PEFT without"
      " modules_to_save."
    )


def _length_and_submodules(adapter: reader.Adapter, *, encoder_decoder: bool) -> tuple[int, int]:
  """(n, submodules), compared with the array."""
  config = adapter.config
  length, width = _number(config, "num_virtual_tokens"), _number(config, "token_dim")
  # PEFT leaves it out where the type of the task decides.
  submodules = _number(config, "num_transformer_submodules") or (2 if encoder_decoder else 1)
  shape = adapter.arrays[_NAME].shape
  rows = shape[0] if len(shape) == 2 else 0
  # NaN equals nothing, so that a missing length is refused as well.
  if rows < 1 or rows != (length or math.nan) * submodules or width not in (None, shape[1]):
    raise errors.DamagedCheckpoint(
      f"'{adapter.path}' says {length} vectors of width {width} for each of {submodules}"
      f" submodules, but holds an array of shape {list(shape)}; copy both files again."
    )
  if submodules > (2 if encoder_decoder else 1):
    what = "an encoder-decoder" if encoder_decoder else "a decoder-only model"
    raise errors.ConfigError(
      f"'{adapter.path}' has prompts for {submodules} submodules of {what}; PEFT itself then masks"
      " other positions than it inserts, so there is no faithful way to apply it."
    )
  return int(length or 0), submodules


def _number(config: Mapping[str, Any], key: str) -> int | None:
  value = config.get(key)
  # Of another type it counts as missing, and the caller says what the adapter says.
  return value if isinstance(value, int) else None


def _check_fits(
  path: pathlib.Path, rows: np.ndarray, config: Any, *, encoder_decoder: bool
) -> None:
  if encoder_decoder != _is_encoder_decoder(config):
    kinds = ("an encoder-decoder", "a decoder-only model")
    theirs, ours = kinds if encoder_decoder else reversed(kinds)
    raise errors.ConfigError(
      f"'{path}' was trained with {theirs} and this model is {ours}; give the model that it was"
      " trained with."
    )
  if rows.shape[1] != config.width:
    raise errors.ConfigError(
      f"'{path}' holds vectors of width {rows.shape[1]}, but the model's width is {config.width};"
      " give the model that it was trained with."
    )


def _is_encoder_decoder(config: Any) -> bool:
  return "encoder" in config.stack_layers
