"""From a Hugging Face folder to our configuration and our parameters."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints import known_settings, locations, matching, recognition
from promot_jax.checkpoints.huggingface import (
  decoding_settings,
  families,
  known,
  reader,
  translation,
)
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.models.bert_config import BertConfig
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.token_ids import TokenIds

RECIPE_VALUES = ("config",)


# Fields of a configuration that change how a network is run and not what it is.
_FREE = {
  "activation_dropout_rate",
  "attention_dropout_rate",
  "dropout_rate",
  "dtype",
  "embedding_dropout_rate",
  "embedding_lookup",
  "embedding_std",
  "forced_bos",
  "forced_eos",
  "init_std",
  "param_dtype",
  "remat",
  "scan_layers",
  "source_attention",  # a causal model may be tuned on as a prefix language model
  "written_pad",
}
# A number that no model comes near, so that a foreign file cannot ask for millions of layers.
_MOST_LAYERS = 10_000  # of a config.json without weights
# Fields of which two values may mean the same -> what they mean.
_MEANS = {"scale_logits": "logits_scale", "kv_heads": "key_heads"}


def config(path: str, **changes) -> Any:
  """Our configuration of a Hugging Face checkpoint, read from its config.json.

  Args:
    path: a folder, a URL or a name of the hub (see `locations.fetch_hf`).
    changes: fields to set otherwise (`dtype='bfloat16'`, `dropout_rate=0.1`).

  Raises:
    ConfigError: there is no config.json, or it describes a network that we do not have.  Weights may
      be missing.
    DamagedCheckpoint: a file is cut off.
  """
  stored = _stored_config(path)
  if "dropout_rate" in changes:  # of every dropout, unless another one is given too
    own = {"attention_dropout_rate", "embedding_dropout_rate"} - set(changes)
    if isinstance(stored, DecoderLMConfig):
      changes |= dict.fromkeys(own)
    elif isinstance(stored, BertConfig):
      changes.setdefault("attention_dropout_rate", changes["dropout_rate"])
  return dataclasses.replace(stored, **changes)


def _stored_config(path: str) -> Any:
  folder = locations.fetch_hf(path)
  found = reader.read_config(folder)
  if found is None:
    reader.refuse_adapter(folder)
    raise errors.ConfigError(
      f"'{path}' has no {reader.CONFIG}, so its configuration is not known; name one of gin/models."
    )
  # Weights tell whether a head is tied; a folder of config.json alone is read all the same.
  tensors = reader.open_tensors(folder) if reader.has_weights(folder) else None
  return _config_of(found, tensors, folder)


def lacks_weights(path: str) -> bool:
  """Whether a folder, URL or name of the hub has a config.json only."""
  return not reader.has_weights(locations.fetch_hf(path))


def open_hf(path: str | os.PathLike, config: Any = None) -> dict[str, StoredArray]:
  """Parameters of a Hugging Face checkpoint by our names, layers unrolled; nothing is read yet.

  Args:
    path: a local folder, or one .safetensors file.
    config: of the model that will take them; None: that of config.json.

  Raises:
    ConfigError: the checkpoint is of another architecture or another size; the message has a table
      of name, expected and found, and says what the checkpoint looks like.
    DamagedCheckpoint: a file is cut off or missing.
  """
  tensors = reader.open_tensors(path)
  content = reader.read_config(path)
  if content is not None:
    stored = _config_of(content, tensors, path)
    if config is None:
      config = stored
    # The leaves only where they are needed, to guess the size for the message.
    _require_same(config, stored, where=str(path), leaves=lambda: _leaves(tensors, stored, path))
  elif config is None:
    raise errors.ConfigError(
      f"'{path}' has no {reader.CONFIG} beside its weights; name the model's configuration."
    )
  return _leaves(tensors, config, path)


def decoding_note(path: str | os.PathLike) -> str:
  """One line about settings of a folder's decoding that are not followed here; maybe empty."""
  content = reader.read_config(path)
  return "" if content is None else decoding_settings.note(content)


def _leaves(tensors: Mapping[str, StoredArray], config: Any, path: Any) -> dict[str, StoredArray]:
  family = families.of_config(config)
  kind = families.of_names(tensors)
  # By the tensors' names: a config.json of another model beside them would give a table of
  # nonsense.
  if kind is not None and kind is not family:
    raise errors.ConfigError(
      f"'{path}' holds the tensors of a {kind.name}, and the model is a {family.name}; name the"
      " configuration of a model of that architecture."
    )
  return translation.to_ours(tensors, family, family.names(config), vocabulary=config.vocab_size)


def _config_of(
  content: Mapping[str, Any], tensors: Mapping[str, StoredArray] | None, path: Any
) -> Any:
  family = families.of_config_json(content, where=str(path))
  # What generation_config.json says has rules of its own.
  settings = {name: value for name, value in content.items() if name != reader.GENERATION}
  where = f"'{path}', a {family.name},"
  known_settings.require_known(settings, family.settings, where=f"{reader.CONFIG} of {where}")
  generation = content.get(reader.GENERATION)
  if generation is not None:
    where = f"{reader.GENERATION} of {where}"
    known_settings.require_known(generation, known.GENERATION, where=where)
  try:
    config = family.config_from(content, tensors)
    # A layer has at least one tensor, so that their number bounds the layers.
    _require_layers(config, _MOST_LAYERS if tensors is None else len(tensors))
    return config
  except (  # a word, a list or null for a number, a number beyond all sizes
    *(TypeError, ValueError, AttributeError, KeyError),
    *(ZeroDivisionError, OverflowError),
  ) as error:
    raise errors.ConfigError(
      f"config.json of '{path}' has a value that is none of a {family.name} ({error}); take the"
      " config.json that belongs to the weights."
    ) from None


def _require_layers(config: Any, most: int) -> None:
  """Raises ValueError for layers that no tensor can be of, before anything is made for each."""
  for stack, count in config.stack_layers.items():
    if not 0 <= count <= most:
      raise ValueError(f"{count} {stack} layers")


def _require_same(config: Any, stored: Any, *, where: str, leaves: Any) -> None:
  """Raises ConfigError with a table of the fields in which a model differs from the checkpoint."""
  # The fields of two classes cannot be compared.
  if type(config) is not type(stored):
    raise errors.ConfigError(
      f"'{where}' is a {families.of_config(stored).name}, and MODEL is a {type(config).__name__}; name"
      " the configuration of a model of that architecture."
    )
  rows = []
  for field in dataclasses.fields(config):
    name = _MEANS.get(field.name, field.name)
    expected, found = getattr(config, name), getattr(stored, name)
    fits = expected == found
    if name == "vocab_size":
      # Padding of the vocabulary is filled up on import; a shorter model would lose tokens.
      fits = 0 <= expected - found < translation.VOCABULARY_MULTIPLE
    if name in ("eos", "output_ends"):  # a model may stop at more tokens than its file says
      name, expected, found = "output_ends", TokenIds.of(config).ends, TokenIds.of(stored).ends
      fits = set(found) <= set(expected)
    if not fits and name not in _FREE:
      rows.append((name, str(expected), str(found)))
  if not rows:
    return
  try:
    # The weights may not fit their own config.json either, and then there is no guess.
    guess = recognition.looks_like(leaves())
  except errors.ConfigError:
    guess = ""
  raise errors.ConfigError(
    f"'{where}' is of another model than MODEL{'; ' + guess if guess else ''}. Name the configuration"
    f" that fits, or take it from the checkpoint with --gin_file=models/huggingface.gin:\n"
    f"{matching.table(rows)}"
  )
