"""Converts a checkpoint from one format into another, array by array.

The configuration of the backbone decides names and arithmetic.  It comes with a Hugging Face folder
and with the shipped weights; of other formats it is given, or recognized where the shapes are those
of a published size.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from promot_jax import paths
from promot_jax.checkpoints import (
  huggingface,
  npz,
  prompt_files,
  recognition,
  restore,
  sources,
  t5x_names,
  t5x_writer,
)
from promot_jax.checkpoints import method_files as checkpoint_methods
from promot_jax.checkpoints.peft import prefix_tuning, prompt_tuning, reader
from promot_jax.checkpoints.step_reader import PARAMETERS
from promot_jax.checkpoints.store import Store
from promot_jax.checkpoints.stored import StoredArray, as_stored, converted, derive
from promot_jax.errors import ConfigError
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prefix import PrefixTuning
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models.published_sizes import SIZES
from promot_jax.networks import backbones, micro_model, peft_adapters, trained_methods

PROMPT = r"(encoder|decoder)/prompt/.*"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
  """What is converted: parameters by our names, and the backbone they belong to.

  leaves: arrays or StoredArrays, of the backbone and maybe of a prompt.
  config: of the backbone; None where only the prompt is known.
  where: for messages.
  note: what of the source is not carried over; empty where everything is.
  adapted: the model and its method, where a run made them.
  """

  leaves: Mapping[str, Any]
  config: Any
  where: str
  note: str = ""
  adapted: tuple[nnx.Module, Any] | None = None

  @property
  def backbone(self) -> dict[str, StoredArray]:
    """The backbone's parameters, one entry for each layer."""
    kept = {name: leaf for name, leaf in self.leaves.items() if not _is_prompt(name)}
    return t5x_names.unrolled({n: as_stored(n, leaf) for n, leaf in kept.items()}, derive)

  @property
  def prompt(self) -> dict[str, StoredArray]:
    """The prompt's parameters; empty where there is none."""
    return {n: as_stored(n, leaf) for n, leaf in self.leaves.items() if _is_prompt(n)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
  """What is written.

  to: a name in FORMATS.
  dtype: 'float32', 'bfloat16', 'float16'; None: as stored.
  vocabulary: rows of the written vocabulary; None: all.
  step: number of the step, in formats that have one.
  t5x_layout: 'legacy' or 'orbax'.
  scanned: T5X's layout of scanned layers.
  task: which prompt of a bank of several tasks.
  base_model: for PEFT: where transformers finds the model that the prompt was trained with.
  """

  to: str
  dtype: str | None = None
  vocabulary: int | None = None
  step: int = 0
  t5x_layout: Any = "legacy"
  scanned: bool = False
  task: int | None = None
  base_model: str | None = None


def open_weights(text: str, *, model: str | None = None, vocabulary: int | None = None) -> Weights:
  """Opens a checkpoint for conversion.

  Args:
    text: as `sources.resolve` takes it, but not 'random'.
    model: the backbone's configuration, as `model_config` takes it; None: found out.
    vocabulary: rows that a Hugging Face vocabulary is filled up to.

  Raises:
    ConfigError: no checkpoint, one of another model, or one whose configuration cannot be told.
    DamagedCheckpoint: its parts contradict each other.
  """
  source = sources.resolve(text)
  if source.kind == "random":
    raise ConfigError("'random' is no checkpoint; name the weights that should be converted.")
  config = model_config(model) if model else None
  if source.kind == "micro":
    return Weights(leaves=micro_model.weights(), config=micro_model.config(), where=text)
  if source.kind == "hf":
    config = config or huggingface.config(source.place)
    if vocabulary is not None and vocabulary > config.vocab_size:
      if vocabulary - config.vocab_size >= huggingface.VOCABULARY_MULTIPLE:
        raise ConfigError(
          f"--vocab_size={vocabulary} is {vocabulary - config.vocab_size} rows more than '{text}' has"
          f" ({config.vocab_size}); fewer than {huggingface.VOCABULARY_MULTIPLE} are filled up, to"
          " pad a vocabulary and not to change it."
        )
      config = dataclasses.replace(config, vocab_size=vocabulary)
    return Weights(
      leaves=sources.open_source(source, config),
      config=config,
      where=text,
      note=huggingface.decoding_note(source.place),
    )
  leaves = sources.open_source(source)
  return Weights(leaves=leaves, config=config or _recognized(leaves, text), where=text)


def model_config(text: str) -> Any:
  """The configuration that a name means: a published size, 'micro', or a Hugging Face folder.

  Raises:
    ConfigError: it means none.
  """
  if text == "micro":
    return micro_model.config()
  if text in SIZES:
    return SIZES[text]()
  if text.startswith("hf:") or os.path.exists(text):
    return huggingface.config(text)
  raise ConfigError(
    f"--model={text} is no published size and no folder with a config.json. Sizes: "
    f"{', '.join(SIZES)}."
  )


def check(weights: Weights, *, finite: bool = True) -> None:
  """Raises unless the parameters are exactly those of the backbone's configuration.

  A prompt without a backbone is right by itself.

  Raises:
    ConfigError: they are not; the message is a table of name, expected and found.
    DamagedCheckpoint: `finite`, and a value is NaN or infinite.
  """
  if not weights.backbone:
    if finite:
      restore.check_finite(weights.prompt)
    return
  network = nnx.eval_shape(lambda: backbones.build(weights.config, nnx.Rngs(0)))
  backbone = weights.backbone
  restore.check_restorable(network, backbone)
  if finite:
    restore.check_finite(backbone)
    restore.check_finite(weights.prompt)


def write(weights: Weights, path: str | os.PathLike, target: Target) -> pathlib.Path:
  """Writes the weights, or their prompt, in another format: whole or not at all.

  Raises:
    ConfigError: the format cannot hold them, or there is something at `path`.
    CannotWrite: the disk refused.
  """
  if target.to not in FORMATS:
    raise ConfigError(f"--to={target.to} is unknown; use one of {', '.join(FORMATS)}.")
  if not weights.backbone and target.to not in (*OF_PROMPT, "t5x"):
    raise ConfigError(
      f"'{weights.where}' holds only a prompt, which --to=prompt, --to=peft and --to=t5x write; name"
      " the model directory of the run to write its backbone."
    )
  if target.vocabulary is not None and target.to != "hf" and weights.config is not None:
    rows = weights.config.vocab_size
    if target.vocabulary != rows:
      raise ConfigError(
        f"The model has {rows} rows in its vocabulary; only --to=hf writes fewer (--vocab_size), and"
        " only a Hugging Face source is filled up to more."
      )
  return FORMATS[target.to](weights, pathlib.Path(path), target)


def backbone_of(model: nnx.Module, method: Any, *, merge: bool) -> nnx.Module:
  """The network that formats without methods hold; a soft prompt stays, which some of them hold.

  Args:
    merge: whether what the method trained becomes part of it.

  Raises:
    ConfigError: `merge`, and this method's parameters cannot become weights of the backbone.
  """
  if merge:
    if not hasattr(method, "merge"):
      raise ConfigError(
        f"--merge: what {type(method).__name__} adds has no place in the weights of the backbone; only"
        " LoRA, IA3, BitFit and TopLayers can be merged."
      )
    return method.merge(model)
  return method.fold(model) if isinstance(method, SoftPrompt) else method.detach(model)


def _is_prompt(name: str) -> bool:
  return re.fullmatch(PROMPT, name) is not None


def _recognized(leaves: Mapping[str, Any], text: str) -> Any:
  backbone = {name: leaf for name, leaf in leaves.items() if not _is_prompt(name)}
  if not backbone:  # a step of prompt tuning
    return None
  name = recognition.size_of(backbone)
  if not name:
    guess = recognition.looks_like(backbone)
    raise ConfigError(
      f"The configuration of '{text}' is not stored with it{'; ' + guess if guess else ''}. Name it"
      " with --model=SIZE, or --model=DIR of a folder with a config.json."
    )
  return model_config(name)


def _typed(leaves: Mapping[str, StoredArray], dtype: str | None) -> dict[str, StoredArray]:
  if dtype is None:
    return dict(leaves)
  return {name: converted(leaf, dtype) for name, leaf in leaves.items()}


def _to_hf(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  return huggingface.write_hf(
    path, weights.backbone, weights.config, dtype=target.dtype, vocabulary=target.vocabulary
  )


def _to_t5x(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  leaves = {**weights.backbone, **weights.prompt}
  return t5x_writer.write_t5x(
    path,
    _typed(leaves, target.dtype),
    step=target.step,
    layout=target.t5x_layout,
    scanned=target.scanned,
  )


def _to_npz(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  return npz.write_npz(path, _typed(weights.backbone, target.dtype))


def _to_step(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise ConfigError(f"'{path}' exists and is not overwritten; name a new folder.")
  store = Store(path, report=lambda line: None)
  leaves = _typed({**weights.backbone, **weights.prompt}, target.dtype)
  store.save(
    target.step,
    {PARAMETERS + name: np.asarray(leaf) for name, leaf in leaves.items()},
    {"converted_from": weights.where},
  )
  store.close()
  return store.path(target.step)


def _to_prompt(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  return prompt_files.write_numpy(path, _prompt(weights, target))


def _to_peft(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  if weights.config is None or not target.base_model:
    raise ConfigError(
      "--to=peft also needs --base_model (the folder or hub name that PEFT should load), and --model"
      " where the source does not say which backbone the prompt belongs to."
    )
  method = weights.adapted[1] if weights.adapted is not None else None
  if method is not None and not isinstance(method, SoftPrompt | PrefixTuning | LoRA | IA3):
    raise ConfigError(
      f"'{weights.where}' has method {type(method).__name__}, for which PEFT has no adapter; --to=method"
      " writes a file for promot_jax, and --to=hf the backbone."
    )
  if weights.adapted is not None and isinstance(method, PrefixTuning):
    return _prefix_to_peft(*weights.adapted, path, weights.config, target.base_model)
  if weights.adapted is not None and isinstance(method, LoRA | IA3):
    return peft_adapters.write_adapter(
      path, *weights.adapted, weights.config, base_model=target.base_model
    )
  through_network = isinstance(method, SoftPrompt) and method.network is not None
  return prompt_tuning.write_prompt_adapter(
    path,
    _prompt(weights, target),
    weights.config,
    base_model=target.base_model,
    kind=reader.P_TUNING if through_network else reader.PROMPT_TUNING,
  )


def _prefix_to_peft(
  model: nnx.Module, method: PrefixTuning, path: pathlib.Path, config: Any, base_model: str
) -> pathlib.Path:
  leaves = paths.named_leaves(method.fold(model))
  own = {name: leaves[name] for name in paths.match(method.parameters, leaves)}
  return prefix_tuning.write_prefix_adapter(
    path,
    checkpoint_methods.unrolled(own),
    config,
    base_model=base_model,
    counted=method.positions == "peft"
    or (method.positions == "paper" and not hasattr(model, "encoder")),
  )


def _to_method(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  if weights.adapted is None:
    raise ConfigError(
      f"--to=method writes what a run trained beside its backbone, and '{weights.where}' is no model"
      " directory of a run with a method; name one that promot train wrote."
    )
  return trained_methods.export(path, *weights.adapted, notes={"run": weights.where})


def _prompt(weights: Weights, target: Target) -> Any:
  leaves = weights.leaves
  if weights.adapted is not None and hasattr(weights.adapted[1], "fold"):
    model, method = weights.adapted
    leaves = paths.named_leaves(method.fold(model))  # the prompt that a network computes
  prompt = prompt_files.prompt_of(leaves, where=weights.where)
  return prompt_files.of_task(prompt, target.task)


FORMATS: dict[str, Callable[[Weights, pathlib.Path, Target], pathlib.Path]] = {
  "hf": _to_hf,
  "t5x": _to_t5x,
  "npz": _to_npz,
  "step": _to_step,
  "prompt": _to_prompt,
  "peft": _to_peft,
  "method": _to_method,
}
"""Name of a format -> what writes it."""
OF_PROMPT = ("prompt", "peft")
"""Formats that hold the prompt only."""
OF_METHOD = (*OF_PROMPT, "method")
"""Formats without the backbone."""
