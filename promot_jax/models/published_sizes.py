"""Every published size of every backbone by its name, for flags and for guesses at checkpoints."""

from collections.abc import Callable
from typing import Any

from promot_jax.models import bart_sizes, decoder_sizes, sizes

SIZES: dict[str, Callable[..., Any]] = {**sizes.SIZES, **bart_sizes.SIZES, **decoder_sizes.SIZES}
"""Name -> function of keyword changes that gives the configuration."""
