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

from promot_jax.checkpoints import (
  disk,
  huggingface,
  npz,
  recognition,
  restore,
  sources,
  t5x_names,
  t5x_writer,
)
from promot_jax.checkpoints.step_reader import PARAMETERS
from promot_jax.checkpoints.store import Store
from promot_jax.checkpoints.stored import StoredArray, as_stored, converted, derive
from promot_jax.errors import ConfigError
from promot_jax.methods import files
from promot_jax.methods.base import Method
from promot_jax.methods.formats import PEFT, Context, Trained
from promot_jax.models.published_sizes import SIZES
from promot_jax.models.t5_config import T5Config
from promot_jax.networks import backbones, micro_model

PROMPT = r"(encoder|decoder)/prompt/.*"
_HEAD = "decoder/logits_dense/kernel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
  """What is converted: parameters by our names, and the backbone they belong to.

  leaves: arrays or StoredArrays, of the backbone and maybe of a prompt.
  config: of the backbone; None where only the prompt is known.
  where: for messages.
  note: what of the source is not carried over; empty where everything is.
  trained: what a method learned, where that is converted.
  """

  leaves: Mapping[str, Any]
  config: Any
  where: str
  note: str = ""
  trained: Trained | None = None

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

  to: a name in FORMATS, or of a format of methods (`methods.files`).
  dtype: 'float32', 'bfloat16', 'float16'; None: as stored.
  vocabulary: rows of the written vocabulary; None: all.
  step: number of the step, in formats that have one.
  t5x_layout: 'legacy' or 'orbax'.
  scanned: T5X's layout of scanned layers.
  task: which prompt of a bank of several tasks.
  base_model: for PEFT: where transformers finds the model that the prompt was trained with.
  texts: further files by name, such as a model card, in formats that are folders.
  """

  to: str
  dtype: str | None = None
  vocabulary: int | None = None
  step: int = 0
  t5x_layout: Any = "legacy"
  scanned: bool = False
  task: int | None = None
  base_model: str | None = None
  texts: Mapping[str, str] = dataclasses.field(default_factory=dict)


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
    config = config or micro_model.config()
    return Weights(leaves=micro_model.weights(config), config=config, where=text)
  # A folder knows its own configuration; what the user names goes before it.
  if source.kind == "hf":
    config = config or huggingface.config(source.place)
    if vocabulary is not None and vocabulary > config.vocab_size:
      # More than it takes to fill a table up would be another vocabulary.
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
  own = model and model not in SIZES and huggingface.lacks_weights(model)
  if own and isinstance(config, T5Config):
    # Whether a T5 ties a head that it does not scale, config.json does not tell: the arrays do.
    config = dataclasses.replace(config, tied_logits=config.tied_logits or _HEAD not in leaves)
  return Weights(leaves=leaves, config=config or _recognized(leaves, text), where=text)


def model_config(text: str) -> Any:
  """The configuration that a name means: a published size, 'micro', 'micro_decoder', or a Hugging Face folder.

  Raises:
    ConfigError: it means none.
  """
  if text == "micro":
    return micro_model.config()
  if text == "micro_decoder":
    return micro_model.decoder_config()
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
  # Names and shapes before values, which takes reading all arrays.
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
  if is_of_method(target.to):
    return _write_trained(weights, pathlib.Path(path), target)
  # T5X alone keeps a prompt in the tree of the backbone, as its prompt tuning does.
  if not weights.backbone and target.to != "t5x":
    raise ConfigError(
      f"'{weights.where}' holds only a prompt, which --to=prompt, --to=peft and --to=t5x write; name"
      " the model directory of the run to write its backbone."
    )
  # Only a Hugging Face table is filled up again when it is read.
  if target.vocabulary is not None and target.to != "hf" and weights.config is not None:
    rows = weights.config.vocab_size
    if target.vocabulary != rows:
      raise ConfigError(
        f"The model has {rows} rows in its vocabulary; only --to=hf writes fewer (--vocab_size), and"
        " only a Hugging Face source is filled up to more."
      )
  return FORMATS[target.to](weights, pathlib.Path(path), target)


def is_of_method(to: str) -> bool:
  """Whether a format holds what a method trained, without the backbone.

  Raises:
    ConfigError: there is no such format.
  """
  others = files.names()
  if to not in FORMATS and to not in others:
    raise ConfigError(f"--to={to} is unknown; use one of {', '.join((*FORMATS, *others))}.")
  return to in others


def backbone_of(model: nnx.Module, method: Method, *, merge: bool) -> nnx.Module:
  """The network that formats without methods hold; what some of them hold beside it stays.

  Args:
    merge: whether what the method trained becomes part of it.

  Raises:
    ConfigError: `merge`, and this method's parameters cannot become weights of the backbone.
  """
  if merge:
    return method.merge(model)
  # Other projects' checkpoints have prompts beside the backbone, and no other method's parameters.
  return method.fold(model) if method.in_checkpoints else method.detach(model)


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
    path,
    weights.backbone,
    weights.config,
    dtype=target.dtype,
    vocabulary=target.vocabulary,
    texts=target.texts,
  )


def _to_t5x(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  leaves = {**weights.backbone, **weights.prompt}
  return t5x_writer.write_t5x(
    path,
    _typed(leaves, target.dtype),
    step=target.step,
    layout=target.t5x_layout,
    scanned=target.scanned,
    texts=target.texts,
  )


def _to_npz(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  return npz.write_npz(path, _typed(weights.backbone, target.dtype))


def _to_step(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  leaves = _typed({**weights.backbone, **weights.prompt}, target.dtype)
  with disk.whole_folder(path) as folder:
    store = Store(folder, report=lambda line: None)
    store.save(
      target.step,
      # Without optimizer state: others start from it, and no training goes on from it.
      {PARAMETERS + name: np.asarray(leaf) for name, leaf in leaves.items()},
      {"converted_from": weights.where},
    )
    store.close()
    disk.write_texts(folder, target.texts)
  return path / store.path(target.step).name


FORMATS: dict[str, Callable[[Weights, pathlib.Path, Target], pathlib.Path]] = {
  "hf": _to_hf,
  "t5x": _to_t5x,
  "npz": _to_npz,
  "step": _to_step,
}
"""Name of a format of whole networks -> what writes it."""


def _write_trained(weights: Weights, path: pathlib.Path, target: Target) -> pathlib.Path:
  if weights.trained is None:
    raise ConfigError(
      f"--to={target.to} writes what a run trained beside its backbone, and '{weights.where}' is no model"
      " directory of a run with a method; name one that promot train wrote."
    )
  # adapter_config.json names the base model, and sizes that the arrays alone do not tell.
  if target.to == PEFT and (weights.config is None or not target.base_model):
    raise ConfigError(
      "--to=peft also needs --base_model (the folder or hub name that PEFT should load), and --model"
      " where the source does not say which backbone the prompt belongs to."
    )
  context = Context(config=weights.config, base_model=target.base_model, task=target.task)
  return files.write(path, weights.trained, target.to, context, where=weights.where)
