"""Opens a PEFT adapter: adapter_config.json and adapter_model.safetensors.

Newer versions of PEFT add keys to the configuration, and some change what is computed: one that
`known.py` does not list is refused unless it is null, false or empty.  Pickled adapters are refused,
because unpickling runs whatever code the file contains.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import json_file, known_settings, locations
from promot_jax.checkpoints.huggingface import safetensors_file
from promot_jax.checkpoints.known_settings import Known
from promot_jax.checkpoints.peft import known
from promot_jax.checkpoints.stored import StoredArray, is_float

CONFIG = "adapter_config.json"
ARRAYS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
PROMPT_TUNING = "PROMPT_TUNING"
P_TUNING = "P_TUNING"
PREFIX_TUNING = "PREFIX_TUNING"
LORA = "LORA"
IA3 = "IA3"
# Values that are used later without a look, and that a damaged file may have of another type.
_PLAIN: Mapping[str, Any] = {"task_type": str, "lora_dropout": (int, float)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
  """An adapter whose arrays are not read yet.

  path: its folder.
  config: adapter_config.json.
  arrays: by PEFT's names.
  """

  path: pathlib.Path
  config: Mapping[str, Any]
  arrays: Mapping[str, StoredArray]


def require_finite(path: str | os.PathLike, array: np.ndarray) -> None:
  """Refuses NaN and infinite values; `path` is the adapter's.

  Raises:
    DamagedCheckpoint: there are some.
  """
  # In float32: NumPy's `isfinite` knows no bfloat16.
  if not np.isfinite(array.astype(np.float32)).all():
    raise errors.DamagedCheckpoint(
      f"'{path}' contains values that are NaN or infinite; use another copy of it, or an earlier"
      " checkpoint of its training."
    )


def require_float(path: str | os.PathLike, name: str, array: StoredArray) -> None:
  """Refuses whole numbers in place of values; `path` is the adapter's.

  Raises:
    ConfigError: the array's type is no floating-point type.
  """
  if not is_float(array.dtype):
    raise errors.ConfigError(
      f"'{path}' has '{name}' of type {array.dtype}, and values have a floating-point type (quantized?);"
      " save the adapter in float32, float16 or bfloat16."
    )


def is_adapter(path: str | os.PathLike) -> bool:
  """Whether a path is a folder with an adapter_config.json."""
  return (pathlib.Path(path) / CONFIG).is_file()


def type_of(path: pathlib.Path, *, among: Iterable[str]) -> str:
  """`peft_type` of the adapter in a folder.

  Raises:
    ConfigError: it is not `among` those that can be read.
    DamagedCheckpoint: its configuration cannot be read.
  """
  kind = str(_read_config(path).get("peft_type"))
  if kind not in among:
    raise errors.ConfigError(
      f"'{path}' is a PEFT adapter of type {kind}, and {', '.join(among)} is what can be read;"
      " a type that PEFT can merge (ADALORA, OFT, ...) can be merged there (merge_and_unload) and read"
      " as a whole model."
    )
  return kind


def open_adapter(text: str | os.PathLike, types: Mapping[str, Known] = known.OF_TYPE) -> Adapter:
  """Opens an adapter.

  Args:
    text: a folder, or hf:NAME[@REVISION], or a URL, as `locations.fetch_hf` takes it.
    types: `peft_type` -> the settings that the caller understands, of the types that he can use.

  Raises:
    ConfigError: there is no adapter, it is pickled, its type is not supported, or it has a setting
      with which PEFT computes something else.
    DamagedCheckpoint: its files are cut off or contradict themselves.
  """
  path = locations.fetch_hf(os.fspath(text))
  config = _read_config(path)
  # All types that there are, so that one of another method is named as such.
  kind = type_of(path, among=dict.fromkeys((*types, *known.OF_TYPE)))
  if kind not in types:
    raise errors.ConfigError(
      f"'{path}' is a PEFT adapter of type {kind}, and one of type {' or '.join(types)} is wanted here;"
      " use the method of its type."
    )
  for name, expected in _PLAIN.items():
    value = config.get(name)
    if value is not None and not isinstance(value, expected):
      raise errors.ConfigError(
        f"'{path}' has {name}={known_settings.text(value)}, which no adapter has; copy it again."
      )
  known_settings.require_known(
    config, types[kind], where=f"'{path}', a PEFT adapter of type {kind},"
  )
  # Both, so that a pickled adapter is told from one that was not copied whole.
  if not (path / ARRAYS).is_file():
    if (path / PICKLED).is_file():
      raise errors.ConfigError(
        f"'{path}' has pickled weights ({PICKLED}), which are not read because unpickling can run"
        f" code from the file; load it with PEFT and save_pretrained it, which writes {ARRAYS}."
      )
    raise errors.DamagedCheckpoint(f"'{path}' has {CONFIG} but no {ARRAYS}; copy it again.")
  return Adapter(path=path, config=config, arrays=safetensors_file.open_file(path / ARRAYS))


def _read_config(path: pathlib.Path) -> dict[str, Any]:
  file = path / CONFIG
  try:
    return json_file.read_object(file)
  except (FileNotFoundError, NotADirectoryError):
    raise errors.ConfigError(
      f"'{path}' has no {CONFIG}; give the folder that PEFT's save_pretrained wrote."
    ) from None
