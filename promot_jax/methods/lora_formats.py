"""Trained low-rank updates in files, and as arrays of each layer."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints.peft import lora
from promot_jax.methods.formats import PEFT, Context, Format, Formats, Stored, Trained

_LEAF = re.compile(r"(.*)/lora/(down|up|magnitude)")


class Update(NamedTuple):
  """A [in, R], B [R, out] and, of a decomposed kernel, m [out]; of several tasks with an axis of tasks
  in front."""

  down: Any
  up: Any
  magnitude: Any = None


def updates_of(leaves: Mapping[str, np.ndarray], *, where: str) -> dict[str, Update]:
  """Name of the layer in an unrolled network -> its update.

  Raises:
    ConfigError: there are none.
  """
  found: dict[str, dict[str, np.ndarray]] = {}
  for name, leaf in leaves.items():
    # Other names are of parts beside it, in a file of several methods.
    if match := _LEAF.fullmatch(name):
      found.setdefault(match[1], {})[match[2]] = np.asarray(leaf)
  if not found:
    raise errors.ConfigError(
      f"'{where}' holds no LoRA updates; name a method file, a checkpoint of LoRA or a PEFT adapter."
    )
  return {name: Update(**parts) for name, parts in found.items()}


def _read_adapter(path: pathlib.Path, context: Context) -> Stored:
  found = lora.read_lora_adapter(path, context.config)
  leaves: dict[str, np.ndarray] = {}
  for name, (down, up) in found.arrays.items():
    leaves |= {f"{name}/lora/down": down, f"{name}/lora/up": up}
  leaves |= {f"{name}/lora/magnitude": lengths for name, lengths in found.magnitudes.items()}
  return Stored(
    leaves=leaves,
    settings={
      "rank": found.rank,
      "alpha": found.alpha,
      "targets": found.targets,
      "dropout_rate": found.dropout_rate,
      "decomposed": bool(found.magnitudes),
    },
    notes={"base_model": found.base_model},
  )


def _write_adapter(path: pathlib.Path, trained: Trained, context: Context) -> pathlib.Path:
  trained = trained.of_task(context.task)
  return lora.write_lora_adapter(
    path,
    trained.leaves,
    context.config,
    base_model=context.base_model or "",
    scale=trained.method.scale,
    dropout_rate=trained.method.dropout_rate,
  )


def scale_of(fields: Mapping[str, object]) -> float | None:
  """alpha / R of the settings in a file; None: they do not say."""
  rank, alpha = fields.get("rank"), fields.get("alpha")
  if not isinstance(rank, int):
    return None
  return alpha / rank if isinstance(alpha, int | float) else 1.0


FORMATS: Formats = {PEFT: Format(types=lora.TYPES, read=_read_adapter, write=_write_adapter)}
