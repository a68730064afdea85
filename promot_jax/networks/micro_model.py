"""The small models that come with the package: their configurations and their weights.

There is a T5 and a decoder-only model.  The weights of each are one .npz of the flat parameter names,
float32, beside the vocabulary they were trained with; `gin/pretrain_micro.gin` and
`gin/pretrain_decoder_micro.gin` remake them.
"""

import hashlib
import importlib.resources
from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax.errors import ConfigError
from promot_jax.micro.vocabulary import vocabulary
from promot_jax.models import decoder_sizes, sizes
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.t5_config import T5Config

RECIPE_VALUES = ("config", "decoder_config")

WEIGHTS = "weights.npz"
DECODER_WEIGHTS = "decoder_weights.npz"


def config(*, dropout_rate: float = 0.0, embedding_lookup: str = "one_hot", **changes) -> T5Config:
  """Configuration of the shipped T5.

  On a CPU the one-hot product is faster than the gather for a vocabulary this small, since the
  gather's gradient is a scatter.
  """
  return sizes.micro(
    vocab_size=padded_vocabulary(),
    dropout_rate=dropout_rate,
    embedding_lookup=embedding_lookup,
    **changes,
  )


def decoder_config(
  *, dropout_rate: float = 0.0, embedding_lookup: str = "one_hot", **changes
) -> DecoderLMConfig:
  """Configuration of the shipped decoder-only model."""
  return decoder_sizes.micro(
    vocab_size=padded_vocabulary(),
    dropout_rate=dropout_rate,
    embedding_lookup=embedding_lookup,
    **changes,
  )


def padded_vocabulary() -> int:
  """Rows of the embedding table: the words, filled up to a multiple of 8."""
  return -(-vocabulary().size // 8) * 8


def file_name(backbone: Any) -> str:
  """The file of a backbone's shipped weights, by its kind; those of others are the T5's."""
  return DECODER_WEIGHTS if isinstance(backbone, DecoderLMConfig) else WEIGHTS


def available(backbone: Any = None) -> bool:
  """Whether the package holds the weights of a backbone; None: of the T5."""
  return _file(backbone).is_file()


def weights(backbone: Any = None) -> Mapping[str, np.ndarray]:
  """The shipped parameters of a backbone by name (unscanned); None: of the T5.

  Raises:
    ConfigError: this installation has none.
  """
  require(backbone)
  # No pickles: an array of objects in the file would run code.
  with _file(backbone).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
    return {name: arrays[name] for name in arrays.files}


def require(backbone: Any = None) -> None:
  """Raises ConfigError where this installation has no weights."""
  if not available(backbone):
    name = file_name(backbone)
    recipe = "pretrain_decoder_micro.gin" if name == DECODER_WEIGHTS else "pretrain_micro.gin"
    raise ConfigError(
      f"this installation has no micro weights (promot_jax/micro/{name}). Make them with "
      f"promot train --gin_file={recipe}, or start from another checkpoint with "
      "--gin.INITIAL_CHECKPOINT_PATH=\"'random'\"."
    )


def digest(backbone: Any = None) -> str:
  """First 12 digits of the weights' SHA-256, so that results can say what they were made with."""
  return hashlib.sha256(_file(backbone).read_bytes()).hexdigest()[:12]


def _file(backbone: Any):
  return importlib.resources.files("promot_jax.micro") / file_name(backbone)
