"""Trained low-rank updates in files: our method files, steps of our runs, and PEFT's adapters."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import method_files, step_reader
from promot_jax.checkpoints.peft import lora
from promot_jax.checkpoints.peft import reader as peft_reader

_LEAF = re.compile(r"(.*)/lora/(down|up)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Updates:
  """Updates of linear layers.

  arrays: name of the layer in an unrolled network -> (A [in, R], B [R, out]), of several tasks with
    an axis of tasks in front.
  rank: R.
  scale: alpha / R; None: the file does not say.
  """

  arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]
  rank: int
  scale: float | None


def read_lora(path: str | os.PathLike, config: Any) -> Updates:
  """Reads the updates of a method file, of a step of a run, or of a PEFT adapter of type LORA.

  Args:
    path: of the file or folder; `hf:NAME` of an adapter too.
    config: of the backbone, which decides PEFT's names.

  Raises:
    ConfigError: there are no updates that can be read.
    DamagedCheckpoint: a file is cut off or contradicts itself.
  """
  text = os.fspath(path)
  if text.startswith("hf:") or peft_reader.is_adapter(text):
    adapter = lora.read_lora_adapter(text, config)
    return Updates(arrays=adapter.arrays, rank=adapter.rank, scale=adapter.alpha / adapter.rank)
  scale = None
  if step_reader.is_step(pathlib.Path(text)):
    leaves: Mapping[str, Any] = step_reader.open_step(pathlib.Path(text))
  else:
    file = method_files.read(text)
    leaves, scale = file.leaves, _scale(file.method)
  found: dict[str, dict[str, np.ndarray]] = {}
  for name, leaf in method_files.unrolled(leaves).items():
    if match := _LEAF.fullmatch(name):
      found.setdefault(match[1], {})[match[2]] = np.asarray(leaf)
  if not found:
    raise errors.ConfigError(
      f"'{text}' holds no LoRA updates; name a method file, a checkpoint of LoRA or a PEFT adapter."
    )
  arrays = {name: (parts["down"], parts["up"]) for name, parts in found.items()}
  return Updates(arrays=arrays, rank=next(iter(arrays.values()))[0].shape[-1], scale=scale)


def _scale(method: Mapping[str, Any]) -> float | None:
  """alpha / R of the settings that a method file has."""
  fields = method.get("fields", {})
  if "rank" not in fields:
    return None
  return 1.0 if fields.get("alpha") is None else fields["alpha"] / fields["rank"]
