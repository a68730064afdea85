"""Writes a PEFT adapter: the folder that `PeftModel.from_pretrained` reads.

Only the keys that every version of PEFT knows are written: an older one refuses keys of a newer one.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from promot_jax.checkpoints import disk
from promot_jax.checkpoints.huggingface import safetensors_file
from promot_jax.checkpoints.peft import reader
from promot_jax.checkpoints.stored import StoredArray


def write_adapter(
  path: str | os.PathLike, config: Mapping[str, Any], arrays: Mapping[str, StoredArray]
) -> pathlib.Path:
  """Writes a folder, whole or not at all.

  Args:
    path: a new folder.
    config: adapter_config.json, with the keys that all types have in common.
    arrays: by PEFT's names.

  Returns:
    The folder.

  Raises:
    ConfigError: there is something at `path` already.
    CannotWrite: the disk refused.
  """
  path = pathlib.Path(path)
  with disk.whole_folder(path) as folder:
    # The arrays first, for a folder is taken for an adapter by its configuration.
    safetensors_file.write_file(folder / reader.ARRAYS, arrays)
    text = json.dumps(dict(config), indent=2, sort_keys=True)
    (folder / reader.CONFIG).write_text(text + "\n")
  return path


def common_config(peft_type: str, *, encoder_decoder: bool, base_model: str) -> dict[str, Any]:
  """The keys that all types of adapters have.

  Args:
    peft_type: 'LORA' and the like.
    encoder_decoder: whether the model is one, or decoder-only.
    base_model: folder or hub name of the model, as transformers loads it; `hf:NAME@REVISION` gives
      the adapter a revision too.
  """
  name, revision = base_model, None
  # transformers loads NAME at a revision that stands beside it.
  if base_model.startswith("hf:"):
    name, _, version = base_model.removeprefix("hf:").partition("@")
    revision = version or None
  return {
    "base_model_name_or_path": name,
    # Parameters that are loaded for use are not trained, as PEFT's own files say.
    "inference_mode": True,
    "peft_type": peft_type,
    "revision": revision,
    "task_type": "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM",
  }
