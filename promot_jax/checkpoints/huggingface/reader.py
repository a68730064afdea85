"""Opens what `save_pretrained` writes: config.json, and safetensors in one file or in several.

Arrays are memory-mapped and read later, one by one.  Pickled weights (`pytorch_model.bin`) are
refused: unpickling runs whatever code the file contains.
"""

import logging
import os
import pathlib
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints import json_file
from promot_jax.checkpoints.huggingface import safetensors_file
from promot_jax.checkpoints.stored import StoredArray

_log = logging.getLogger(__name__)

CONFIG = "config.json"
ARRAYS = "model.safetensors"
INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_OTHER = ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index")
_ADAPTER = "adapter_config.json"


def is_hf(path: str | os.PathLike) -> bool:
  """Whether a path looks like a Hugging Face checkpoint, of whatever weight format."""
  path = pathlib.Path(path)
  if path.is_file():
    return path.suffix == ".safetensors"
  names = (CONFIG, ARRAYS, INDEX, _ADAPTER, *_PICKLED, *_OTHER)
  return any((path / name).is_file() for name in names)


def open_tensors(path: str | os.PathLike) -> dict[str, StoredArray]:
  """Every tensor by the name in the file.

  Args:
    path: a folder with `model.safetensors`, or with an index and the files it names; or one
      `.safetensors` file.

  Raises:
    ConfigError: there are no safetensors; says what there is and how to convert it.
    DamagedCheckpoint: a file is cut off or missing.
  """
  path = pathlib.Path(path)
  if path.is_file():
    return safetensors_file.open_file(path)
  # The order of transformers: a single file, then an index.
  if (path / ARRAYS).is_file():
    if (path / INDEX).is_file():
      _log.warning(
        "'%s' has %s and also %s with other files: the single file is read, as transformers does.",
        path,
        ARRAYS,
        INDEX,
      )
    return safetensors_file.open_file(path / ARRAYS)
  if (path / INDEX).is_file():
    return _open_index(path)
  # A file of another name, as fine-tuning tools write it, if there is no doubt which.
  single = sorted(path.glob("*.safetensors")) if path.is_dir() else []
  # An adapter's file ends so as well, and is no model.
  refuse_adapter(path)
  if len(single) == 1:
    return safetensors_file.open_file(single[0])
  raise errors.ConfigError(_what_instead(path, single))


def has_weights(path: str | os.PathLike) -> bool:
  """Whether a folder has weights of any format, readable or not, or is an adapter."""
  path = pathlib.Path(path)
  if not path.is_dir():
    return True
  names = (INDEX, _ADAPTER, *_PICKLED, *_OTHER)
  return any((path / name).is_file() for name in names) or any(path.glob("*.safetensors"))


def refuse_adapter(path: str | os.PathLike) -> None:
  """Raises ConfigError if a folder holds a PEFT adapter instead of a model."""
  if (pathlib.Path(path) / _ADAPTER).is_file():
    raise errors.ConfigError(
      f"'{path}' is a PEFT adapter, which is no whole model: give the folder of the model it was"
      " trained on as the checkpoint; see docs/checkpoints.md for reading the adapter itself."
    )


def read_config(path: str | os.PathLike) -> dict[str, Any] | None:
  """config.json of a folder, or beside a file; None where there is none.

  Where there is a generation_config.json, it is in the result under the name of that file;
  `special_tokens` and `generation` read both.

  Raises:
    DamagedCheckpoint: one of them is no JSON object.
  """
  path = pathlib.Path(path)
  folder = path if path.is_dir() else path.parent
  # Both files in one dictionary: what ends an output is said by either.
  content = _read_json(folder / CONFIG)
  if content is None:
    return None
  generation = _read_json(folder / GENERATION)
  return content if generation is None else {**content, GENERATION: generation}


def _read_json(file: pathlib.Path) -> dict[str, Any] | None:
  return json_file.read_object(file) if file.exists() else None


def _open_index(folder: pathlib.Path) -> dict[str, StoredArray]:
  try:
    weight_map = json_file.read_object(folder / INDEX)["weight_map"]
    files = {str(file) for file in weight_map.values()}
  except (KeyError, TypeError, AttributeError) as error:
    raise errors.DamagedCheckpoint(f"'{folder / INDEX}' cannot be read: {error!r}.") from None
  # The index comes with the weights and may come from anybody.
  outside = sorted(file for file in files if pathlib.PurePath(file).name != file)
  if outside:
    raise errors.DamagedCheckpoint(
      f"'{folder / INDEX}' names files outside of its folder ({outside[0]}), which are not opened."
    )
  missing = sorted(file for file in files if not (folder / file).is_file())
  if missing:
    raise errors.DamagedCheckpoint(
      f"'{folder}' lacks {len(missing)} of the {len(files)} files that its index names"
      f" ({', '.join(missing[:3])}). Copy them too."
    )
  # Each file once, however many tensors it has.
  opened = {file: safetensors_file.open_file(folder / file) for file in sorted(files)}
  lost = sorted(name for name, file in weight_map.items() if name not in opened[file])
  if lost:
    raise errors.DamagedCheckpoint(
      f"'{folder / INDEX}' says that '{weight_map[lost[0]]}' holds '{lost[0]}', and it does not"
      f" ({len(lost)} such names). Copy index and files from the same revision."
    )
  # As the index has them first: two files may hold a tensor of one name.
  named = {name: opened[file][name] for name, file in weight_map.items()}
  others = {
    name: array for arrays in opened.values() for name, array in arrays.items() if name not in named
  }
  if others:
    _log.warning(
      "%d tensors are in the files of '%s' and not in its index (%s); they are read all the same, as"
      " transformers does.",
      len(others),
      folder,
      ", ".join(sorted(others)[:3]),
    )
  return named | others


def _what_instead(path: pathlib.Path, single: list[pathlib.Path]) -> str:
  if single:
    return (
      f"'{path}' has {len(single)} .safetensors files and no {INDEX}; give one of the files, or the"
      " index that belongs to them."
    )
  if any((path / name).is_file() for name in _PICKLED):
    return (
      f"'{path}' has pickled weights (pytorch_model.bin), which are not read because unpickling can"
      " run code from the file. Convert them with torch's restricted unpickler, which refuses code:"
      # `clone`: tied tensors share memory, which safetensors refuses to write.
      f"\n  cd '{path}' && python -c \"import glob, torch, safetensors.torch as s; w = {{}};"
      " [w.update(torch.load(f, weights_only=True)) for f in glob.glob('pytorch_model*.bin')];"
      " s.save_file({k: v.clone() for k, v in w.items()}, 'model.safetensors', {'format': 'pt'})\""
    )
  found = [name for name in _OTHER if (path / name).is_file()]
  if found:
    return (
      f"'{path}' has weights of TensorFlow or Flax ({found[0]}); load them with transformers and"
      " save_pretrained them as safetensors."
    )
  if not path.exists():
    return f"'{path}' does not exist; give a folder with {ARRAYS} or {INDEX}."
  return f"'{path}' has no {ARRAYS} and no {INDEX}; give the folder that save_pretrained wrote."
