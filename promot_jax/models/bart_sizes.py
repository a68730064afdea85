"""Published sizes of BART, as functions of keyword changes: `bart_base(dropout_rate=0.1)`."""

from collections.abc import Callable

from promot_jax.models.bart_config import BartConfig

RECIPE_VALUES = ("bart_base", "bart_large")

VOCABULARY = 50_265
"""50,257 of GPT-2's byte-level BPE in another order, and BART's own special tokens."""


def bart_base(**changes) -> BartConfig:
  """BART base, 139M parameters."""
  return _config((768, 12, 3072, 6), changes)


def bart_large(**changes) -> BartConfig:
  """BART large, 406M parameters."""
  return _config((1024, 16, 4096, 12), changes)


def _config(size: tuple[int, int, int, int], changes: dict) -> BartConfig:
  width, heads, mlp_width, layers = size
  shape = {
    "vocab_size": VOCABULARY,
    "width": width,
    "heads": heads,
    "mlp_width": mlp_width,
    "encoder_layers": layers,
    "decoder_layers": layers,
  }
  return BartConfig(**{**shape, **changes})


SIZES: dict[str, Callable[..., BartConfig]] = {
  size.__name__: size for size in (bart_base, bart_large)
}
"""Every size by its name."""
