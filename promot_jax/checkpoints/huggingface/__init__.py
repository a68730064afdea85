"""Checkpoints of transformers, read and written without it.

`config` and `open_hf` import; `write_hf` exports.  What a family of models is, a table says: see
`families.py`.
"""

from promot_jax.checkpoints.huggingface.importer import (
  config,
  decoding_note,
  lacks_weights,
  open_hf,
)
from promot_jax.checkpoints.huggingface.reader import is_hf
from promot_jax.checkpoints.huggingface.translation import VOCABULARY_MULTIPLE
from promot_jax.checkpoints.huggingface.writer import write_hf

__all__ = [
  "VOCABULARY_MULTIPLE",
  "config",
  "decoding_note",
  "is_hf",
  "lacks_weights",
  "open_hf",
  "write_hf",
]

RECIPE_VALUES = ("config",)
