"""Writes a folder that transformers' `from_pretrained` reads: config.json and safetensors."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints import disk, t5x_names
from promot_jax.checkpoints.huggingface import (
  families,
  reader,
  safetensors_file,
  special_tokens,
  translation,
)
from promot_jax.checkpoints.stored import StoredArray, as_stored, converted, derive

FILE_BYTES = 5 * 10**9
"""A model of more bytes is written in several files, as transformers does."""


def write_hf(
  path: str | os.PathLike,
  leaves: Mapping[str, Any],
  config: Any,
  *,
  dtype: str | None = None,
  vocabulary: int | None = None,
  file_bytes: int = FILE_BYTES,
  texts: Mapping[str, str] | None = None,
) -> pathlib.Path:
  """Writes a backbone: whole or not at all, one array in memory at a time.

  Args:
    path: a new folder.
    leaves: arrays or StoredArrays by our names, unrolled or stacked, of the backbone only.
    config: the backbone's configuration.
    dtype: 'float32', 'bfloat16' or 'float16'; None: the arrays' own.
    vocabulary: rows to write of the embedding and the head, to drop padding; None: all.
    file_bytes: the largest size of one file.
    texts: further files by name, such as a model card.

  Returns:
    The folder.

  Raises:
    ConfigError: transformers has no such network, the arrays are not those of `config`, or the
      folder exists.
    CannotWrite: the disk refused.
  """
  family = families.of_config(config)
  # Before the folder is made: a model that transformers lacks leaves nothing behind.
  content = family.config_to(config)
  # The tables of names are those of unrolled layers, as transformers has them.
  unrolled = t5x_names.unrolled(
    {name: as_stored(name, leaf) for name, leaf in leaves.items()}, derive
  )
  if vocabulary is not None:
    if not 0 < vocabulary <= config.vocab_size:
      raise errors.ConfigError(
        f"The model has {config.vocab_size} rows in its vocabulary, so {vocabulary} cannot be kept."
      )
    content["vocab_size"] = vocabulary
    if (content.get("pad_token_id") or 0) >= vocabulary:
      content["pad_token_id"] = None  # torch refuses an embedding without the row of its padding
  # Missing and further parameters are refused here, still without a file.
  tensors = translation.to_theirs(unrolled, family.names(config), vocabulary=vocabulary)
  if dtype is not None:
    tensors = {name: converted(array, dtype) for name, array in tensors.items()}
  content["torch_dtype"] = next(iter(tensors.values())).dtype.name
  path = pathlib.Path(path)
  with disk.whole_folder(path) as folder:
    # Tensors first; disk.whole_folder gives the folder its name when all of it is written.
    _write_tensors(folder, tensors, file_bytes)
    _write_json(folder / reader.CONFIG, content)
    disk.write_texts(folder, texts or {})
    # An encoder alone generates nothing.
    if family.writes_text:
      _write_json(folder / reader.GENERATION, special_tokens.generation_config(config, content))
  return path


def _write_tensors(
  folder: pathlib.Path, tensors: Mapping[str, StoredArray], file_bytes: int
) -> None:
  files: list[dict[str, StoredArray]] = [{}]
  room = file_bytes
  for name, array in tensors.items():
    size = math.prod(array.shape) * array.dtype.itemsize
    # A tensor larger than a whole file gets a file of its own.
    if size > room and files[-1]:
      files.append({})
      room = file_bytes
    files[-1][name] = array
    room -= size
  if len(files) == 1:
    safetensors_file.write_file(folder / reader.ARRAYS, files[0])
    return
  weight_map: dict[str, str] = {}
  for number, part in enumerate(files, 1):
    # The names that transformers gives, from which its index is read.
    name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
    safetensors_file.write_file(folder / name, part)
    weight_map |= dict.fromkeys(part, name)
  # Bytes of all tensors, as transformers counts them: headers are left out.
  total = sum(math.prod(array.shape) * array.dtype.itemsize for array in tensors.values())
  _write_json(folder / reader.INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2) + "\n")
