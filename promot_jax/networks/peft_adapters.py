"""Adapters of PEFT as method files, so that what reads the one reads the other.

An adapter names the model that it belongs to and says nothing of its weights: only its shapes can be
compared with the backbone.
"""

import os
import pathlib
from typing import Any

from flax import nnx

from promot_jax import paths
from promot_jax.checkpoints import locations
from promot_jax.checkpoints import method_files as checkpoint_methods
from promot_jax.checkpoints.method_files import MethodFile
from promot_jax.checkpoints.peft import ia3, lora, prefix_tuning, prompt_tuning, reader
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prefix import PrefixTuning
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.networks import trained_methods


def open_method(path: str | os.PathLike, config: Any) -> tuple[pathlib.Path, MethodFile]:
  """(the file with the values, the method) of a method file or of an adapter.

  Args:
    path: a method file, the folder of an adapter, or hf:NAME[@REVISION] of one.
    config: of the backbone that the method is attached to.

  Raises:
    ConfigError: there is none, its type is not supported, or it does not fit the backbone.
    DamagedCheckpoint: its files are cut off or contradict each other.
  """
  text = os.fspath(path)
  place = locations.fetch_hf(text) if text.startswith("hf:") else pathlib.Path(text)
  if reader.is_adapter(place):
    return place / reader.ARRAYS, _of_adapter(place, config)
  return place, checkpoint_methods.read(place)


def write_adapter(
  path: str | os.PathLike, model: nnx.Module, method: LoRA | IA3, config: Any, *, base_model: str
) -> pathlib.Path:
  """Writes LoRA's updates or IA3's factors as an adapter of PEFT.

  Args:
    path: a new folder.
    model: with the method attached.
    config: of the backbone.
    base_model: folder or hub name of the same backbone for transformers; `hf:NAME@REVISION` too.

  Raises:
    ConfigError: transformers has no such backbone, or PEFT no such parameters.
    CannotWrite: the disk refused.
  """
  leaves = paths.named_leaves(model)
  own = checkpoint_methods.unrolled(
    {name: leaves[name] for name in paths.match(method.parameters, leaves)}
  )
  if isinstance(method, IA3):
    return ia3.write_ia3_adapter(path, own, config, base_model=base_model)
  return lora.write_lora_adapter(
    path,
    own,
    config,
    base_model=base_model,
    scale=method.scale,
    dropout_rate=method.dropout_rate,
  )


def _of_adapter(folder: pathlib.Path, config: Any) -> MethodFile:
  kind = reader.open_adapter(folder).config["peft_type"]
  leaves: dict[str, Any] = {}
  if kind == reader.LORA:
    updates = lora.read_lora_adapter(folder, config)
    method: Any = LoRA(
      rank=updates.rank,
      alpha=updates.alpha,
      targets=updates.targets,
      dropout_rate=updates.dropout_rate,
    )
    for name, (down, up) in updates.arrays.items():
      leaves |= {f"{name}/lora/down": down, f"{name}/lora/up": up}
    base_model = updates.base_model
  elif kind == reader.IA3:
    factors = ia3.read_ia3_adapter(folder, config)
    method = IA3(outputs=factors.outputs, inputs=factors.inputs)
    leaves.update(factors.arrays)
    base_model = factors.base_model
  elif kind == reader.PREFIX_TUNING:
    prefix = prefix_tuning.read_prefix_adapter(folder, config)
    length = prefix.keys.shape[-2]
    method = PrefixTuning(length=length, sites=["decoder"], positions="peft")
    for part, values in (("keys", prefix.keys), ("values", prefix.values)):
      for layer, rows in enumerate(values):
        leaves[f"decoder/layers/{layer}/self_attention/prefix/{part}"] = rows
    base_model = prefix.base_model
  else:
    adapter = prompt_tuning.read_prompt_adapter(folder, config)
    method = SoftPrompt(length=len(adapter.prompt))
    stack = "encoder" if adapter.encoder_decoder else "decoder"
    leaves = {f"{stack}/prompt/prompt": adapter.prompt}
    base_model = adapter.base_model
  return MethodFile(
    leaves=leaves,
    method=trained_methods.describe(method),
    backbone=None,
    notes={"base_model": base_model},
  )
