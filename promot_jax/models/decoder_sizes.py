"""Published sizes of GPT-2 and Llama 3, PaLM 8B and the built-in model, as functions of keyword changes.

`gpt2_small(dropout_rate=0.1)` is what configuration files bind.  Figures are those of the released
checkpoints; PaLM's weights are not public, its shape is (arXiv:2204.02311, table 1).
"""

from collections.abc import Callable

from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.positions import Llama3Scaling

RECIPE_VALUES = (
  "gpt2_small",
  "gpt2_medium",
  "gpt2_large",
  "gpt2_xl",
  "llama_like_1b",
  "llama_like_3b",
  "llama_like_8b",
  "palm_8b",
  "micro",
)

GPT2_VOCABULARY = 50_257
"""256 bytes, 50,000 merges and <|endoftext|>, which begins and ends texts."""
LLAMA3_VOCABULARY = 128_256
PALM_VOCABULARY = 256_000

# size: (width, heads, layers)
_GPT2 = {
  "small": (768, 12, 12),
  "medium": (1024, 16, 24),
  "large": (1280, 20, 36),
  "xl": (1600, 25, 48),
}
# size: (width, heads, head width, mlp width, layers)
_LLAMA = {
  "1b": (2048, 32, 64, 8192, 16),
  "3b": (3072, 24, 128, 8192, 28),
  "8b": (4096, 32, 128, 14_336, 32),
}


def gpt2_small(**changes) -> DecoderLMConfig:
  """GPT-2, 124M parameters."""
  return _gpt2("small", changes)


def gpt2_medium(**changes) -> DecoderLMConfig:
  """GPT-2, 355M parameters."""
  return _gpt2("medium", changes)


def gpt2_large(**changes) -> DecoderLMConfig:
  """GPT-2, 774M parameters."""
  return _gpt2("large", changes)


def gpt2_xl(**changes) -> DecoderLMConfig:
  """GPT-2, 1.6B parameters."""
  return _gpt2("xl", changes)


def llama_like_1b(**changes) -> DecoderLMConfig:
  """Llama 3.2 1B, 1.2B parameters."""
  return _llama("1b", {"rope_scaling": Llama3Scaling(factor=32.0)}, changes)


def llama_like_3b(**changes) -> DecoderLMConfig:
  """Llama 3.2 3B, 3.2B parameters."""
  return _llama("3b", {"rope_scaling": Llama3Scaling(factor=32.0)}, changes)


def llama_like_8b(**changes) -> DecoderLMConfig:
  """Llama 3.1 8B, 8.0B parameters."""
  untied = {"rope_scaling": Llama3Scaling(factor=8.0), "tied_logits": False}
  return _llama("8b", untied, changes)


def palm_8b(**changes) -> DecoderLMConfig:
  """PaLM 8B, 8.6B parameters: parallel layers, multi-query attention, rotations, SwiGLU, no biases.

  Causal by default; `source_attention='full'` makes it a prefix language model.
  """
  defaults = {
    "vocab_size": PALM_VOCABULARY,
    "width": 4096,
    "layers": 32,
    "heads": 16,
    "kv_heads": 1,
    "head_width": 256,
    "mlp_width": 16_384,
    "mlp_activations": ("silu", "linear"),
    "positions": "rotary",
    "max_positions": 2048,
    "use_bias": False,
    "parallel": True,
    "scale_logits": True,
    # The table is not normalized before the first layer, and logits are scaled instead.
    "embedding_std": 1.0,
    "init_std": None,
    "eos": 1,
  }
  return DecoderLMConfig(**{**defaults, **changes})


def micro(*, vocab_size: int, **changes) -> DecoderLMConfig:
  """The decoder-only model of the built-in world: LLaMA's arithmetic, 0.8M parameters.

  The gate is a ReLU, as that of the world's T5; an input ends with the token that ends texts.
  """
  defaults = {
    "vocab_size": vocab_size,
    "width": 128,
    "layers": 4,
    "heads": 4,
    "head_width": 32,
    "mlp_width": 256,
    "mlp_activations": ("relu", "linear"),
    "positions": "rotary",
    "max_positions": 256,
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "use_bias": False,
    "tied_logits": False,
    "embedding_std": 1.0,
    "init_std": None,
    "eos": 1,
    "pad": 0,
  }
  return DecoderLMConfig(**{**defaults, **changes})


def _gpt2(size: str, changes: dict) -> DecoderLMConfig:
  width, heads, layers = _GPT2[size]
  defaults = {
    "vocab_size": GPT2_VOCABULARY,
    "width": width,
    "layers": layers,
    "heads": heads,
    "head_width": 64,
    "mlp_width": 4 * width,
    # <|endoftext|> is the only special token that there is.
    "bos": GPT2_VOCABULARY - 1,
    "eos": GPT2_VOCABULARY - 1,
  }
  return DecoderLMConfig(**{**defaults, **changes})


def _llama(size: str, defaults: dict, changes: dict) -> DecoderLMConfig:
  width, heads, head_width, mlp_width, layers = _LLAMA[size]
  shared = {
    "vocab_size": LLAMA3_VOCABULARY,
    "width": width,
    "layers": layers,
    "heads": heads,
    "kv_heads": 8,
    "head_width": head_width,
    "mlp_width": mlp_width,
    "mlp_activations": ("silu", "linear"),
    "positions": "rotary",
    "max_positions": 131_072,
    "rope_theta": 500_000.0,
    "norm": "rms",
    "use_bias": False,
    # <|begin_of_text|> and <|end_of_text|> of the base models; tuned ones end turns by other ids.
    "bos": 128_000,
    "eos": 128_001,
  }
  return DecoderLMConfig(**{**shared, **defaults, **changes})


SIZES: dict[str, Callable[..., DecoderLMConfig]] = {
  size.__name__: size
  for size in (
    gpt2_small, gpt2_medium, gpt2_large, gpt2_xl,
    llama_like_1b, llama_like_3b, llama_like_8b,
    palm_8b,
  )
}  # fmt: skip
"""Every size by its name."""
