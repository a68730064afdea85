"""Backbones: pretrained networks as NNX modules inside a functional shell.

`backbone` says what all of them have; what is learned on top of one is the business of
`promot_jax.methods`.
"""

from promot_jax.models.kv_cache import DecodeCache, KVCache
from promot_jax.models.scanning import stack_layers, unstack_layers
from promot_jax.models.t5 import T5
from promot_jax.models.t5_config import T5Config

__all__ = ["T5", "DecodeCache", "KVCache", "T5Config", "stack_layers", "unstack_layers"]
