"""Published sizes of T5 1.0, T5 1.1, mT5 and umT5, and the small one of the built-in world.

Each is a function of keyword changes, so that configuration files can bind them:
`t5_1_1_small(dropout_rate=0.1)`.  Figures are those of the released checkpoints.
"""

from collections.abc import Callable

from promot_jax.models.t5_config import T5Config

RECIPE_VALUES = (
  "t5_small",
  "t5_base",
  "t5_large",
  "t5_3b",
  "t5_11b",
  "t5_1_1_small",
  "t5_1_1_base",
  "t5_1_1_large",
  "t5_1_1_xl",
  "t5_1_1_xxl",
  "mt5_small",
  "mt5_base",
  "mt5_large",
  "mt5_xl",
  "mt5_xxl",
  "umt5_small",
  "umt5_base",
  "umt5_xl",
  "umt5_xxl",
  "micro",
)

T5_VOCABULARY = 32_128
"""32,000 pieces and 100 sentinels, padded to a multiple of 128."""
MT5_VOCABULARY = 250_112
"""250,000 pieces and 100 sentinels, padded to a multiple of 128."""

UMT5_VOCABULARY = 256_384
"""256,000 pieces and 300 sentinels, padded to a multiple of 128."""

# size: (width, heads, head width, mlp width, layers of each stack)
_VERSION_1_0 = {
  "small": (512, 8, 64, 2048, 6),
  "base": (768, 12, 64, 3072, 12),
  "large": (1024, 16, 64, 4096, 24),
  "3b": (1024, 32, 128, 16_384, 24),
  "11b": (1024, 128, 128, 65_536, 24),
}
_VERSION_1_1 = {
  "small": (512, 6, 64, 1024, 8),
  "base": (768, 12, 64, 2048, 12),
  "large": (1024, 16, 64, 2816, 24),
  "xl": (2048, 32, 64, 5120, 24),
  "xxl": (4096, 64, 64, 10_240, 24),
}


def _config(size: tuple[int, ...], defaults: dict, changes: dict) -> T5Config:
  width, heads, head_width, mlp_width, layers = size
  shape = {
    "width": width,
    "heads": heads,
    "head_width": head_width,
    "mlp_width": mlp_width,
    "encoder_layers": layers,
    "decoder_layers": layers,
  }
  return T5Config(**{**shape, **defaults, **changes})


def _t5_1_0(size: str, changes: dict) -> T5Config:
  defaults = {"vocab_size": T5_VOCABULARY, "mlp_activations": ("relu",), "tied_logits": True}
  return _config(_VERSION_1_0[size], defaults, changes)


def _t5_1_1(size: str, changes: dict) -> T5Config:
  return _config(_VERSION_1_1[size], {"vocab_size": T5_VOCABULARY}, changes)


def _mt5(size: str, changes: dict) -> T5Config:
  return _config(_VERSION_1_1[size], {"vocab_size": MT5_VOCABULARY}, changes)


def _umt5(size: str, changes: dict) -> T5Config:
  # mT5's shapes in T5X's scanned network (t5x/examples/scalable_t5/umt5), which shares no biases
  defaults = {"vocab_size": UMT5_VOCABULARY, "relative_bias": "per_layer"}
  return _config(_VERSION_1_1[size], defaults, changes)


def t5_small(**changes) -> T5Config:
  """T5 1.0, 60M parameters."""
  return _t5_1_0("small", changes)


def t5_base(**changes) -> T5Config:
  """T5 1.0, 220M parameters."""
  return _t5_1_0("base", changes)


def t5_large(**changes) -> T5Config:
  """T5 1.0, 740M parameters."""
  return _t5_1_0("large", changes)


def t5_3b(**changes) -> T5Config:
  """T5 1.0, 2.9B parameters."""
  return _t5_1_0("3b", changes)


def t5_11b(**changes) -> T5Config:
  """T5 1.0, 11B parameters."""
  return _t5_1_0("11b", changes)


def t5_1_1_small(**changes) -> T5Config:
  """T5 1.1, 77M parameters."""
  return _t5_1_1("small", changes)


def t5_1_1_base(**changes) -> T5Config:
  """T5 1.1, 248M parameters."""
  return _t5_1_1("base", changes)


def t5_1_1_large(**changes) -> T5Config:
  """T5 1.1, 783M parameters."""
  return _t5_1_1("large", changes)


def t5_1_1_xl(**changes) -> T5Config:
  """T5 1.1, 2.8B parameters."""
  return _t5_1_1("xl", changes)


def t5_1_1_xxl(**changes) -> T5Config:
  """T5 1.1, 11B parameters."""
  return _t5_1_1("xxl", changes)


def mt5_small(**changes) -> T5Config:
  """mT5, 300M parameters."""
  return _mt5("small", changes)


def mt5_base(**changes) -> T5Config:
  """mT5, 582M parameters."""
  return _mt5("base", changes)


def mt5_large(**changes) -> T5Config:
  """mT5, 1.2B parameters."""
  return _mt5("large", changes)


def mt5_xl(**changes) -> T5Config:
  """mT5, 3.7B parameters."""
  return _mt5("xl", changes)


def mt5_xxl(**changes) -> T5Config:
  """mT5, 13B parameters."""
  return _mt5("xxl", changes)


def umt5_small(**changes) -> T5Config:
  """UmT5 (Chung et al., 2023, arXiv:2304.09151), 307M parameters."""
  return _umt5("small", changes)


def umt5_base(**changes) -> T5Config:
  """UmT5, 592M parameters."""
  return _umt5("base", changes)


def umt5_xl(**changes) -> T5Config:
  """UmT5, 3.8B parameters."""
  return _umt5("xl", changes)


def umt5_xxl(**changes) -> T5Config:
  """UmT5, 13B parameters."""
  return _umt5("xxl", changes)


def micro(*, vocab_size: int, **changes) -> T5Config:
  """The model of the built-in world: 1M parameters, a train step in a fraction of a second.

  The gate is a ReLU: on a CPU the tanh of GELU doubles the time of the mlp.
  """
  defaults = {"vocab_size": vocab_size, "mlp_activations": ("relu", "linear")}
  return _config((128, 4, 32, 256, 2), defaults, changes)


SIZES: dict[str, Callable[..., T5Config]] = {
  size.__name__: size
  for size in (
    t5_small, t5_base, t5_large, t5_3b, t5_11b,
    t5_1_1_small, t5_1_1_base, t5_1_1_large, t5_1_1_xl, t5_1_1_xxl,
    mt5_small, mt5_base, mt5_large, mt5_xl, mt5_xxl,
    umt5_small, umt5_base, umt5_xl, umt5_xxl,
    micro,
  )
}  # fmt: skip
"""Every size by its name."""
