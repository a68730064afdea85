"""The small model that comes with the package: its configuration and its weights.

The weights are one .npz of the flat parameter names, float32, beside the vocabulary they were
trained with; `gin/pretrain_micro.gin` remakes them.
"""

import hashlib
import importlib.resources
from collections.abc import Mapping

import numpy as np

from promot_jax.errors import ConfigError
from promot_jax.micro.vocabulary import vocabulary
from promot_jax.models import sizes
from promot_jax.models.t5_config import T5Config

RECIPE_VALUES = ("config",)

WEIGHTS = "weights.npz"


def config(*, dropout_rate: float = 0.0, embedding_lookup: str = "one_hot", **changes) -> T5Config:
  """Configuration of the shipped model.

  On a CPU the one-hot product is faster than the gather for a vocabulary this small, since the
  gather's gradient is a scatter.
  """
  return sizes.micro(
    vocab_size=padded_vocabulary(),
    dropout_rate=dropout_rate,
    embedding_lookup=embedding_lookup,
    **changes,
  )


def padded_vocabulary() -> int:
  """Rows of the embedding table: the words, filled up to a multiple of 8."""
  return -(-vocabulary().size // 8) * 8


def available() -> bool:
  """Whether the package holds the weights."""
  return _file().is_file()


def weights() -> Mapping[str, np.ndarray]:
  """The shipped parameters by name (unscanned).

  Raises:
    ConfigError: this installation has none.
  """
  require()
  # No pickles: an array of objects in the file would run code.
  with _file().open("rb") as file, np.load(file, allow_pickle=False) as arrays:
    return {name: arrays[name] for name in arrays.files}


def require() -> None:
  """Raises ConfigError where this installation has no weights."""
  if not available():
    raise ConfigError(
      "this installation has no micro weights (promot_jax/micro/weights.npz). Make them with "
      "promot train --gin_file=pretrain_micro.gin, or start from another checkpoint with "
      "--gin.INITIAL_CHECKPOINT_PATH=\"'random'\"."
    )


def digest() -> str:
  """First 12 digits of the weights' SHA-256, so that results can say what they were made with."""
  return hashlib.sha256(_file().read_bytes()).hexdigest()[:12]


def _file():
  return importlib.resources.files("promot_jax.micro") / WEIGHTS
