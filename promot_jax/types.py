"""The words every shape in this project is written in.

Signatures and docstrings give shapes with these letters, `Float[Array, "B S D"]` and `[B S D]`:

| letter | meaning | letter | meaning |
|---|---|---|---|
| B | examples of a batch | H | attention heads |
| S | source (encoder) length | K | width of one head |
| T | target (decoder) length | J | all heads side by side, H * K |
| L | any length | V | vocabulary |
| Q | query positions | R | rows of a decode (examples * beams), or a LoRA rank |
| P | prompt or prefix length | N | layers |
| D | model width | M | members of an ensemble |
| F | mlp width | C | candidates, or vocabulary chunks |
| G | heads of keys and values | W | outputs of an example: width of a beam, or samples |

In a signature `1|B` is 1 or B, `...` any leading axes.  Shapes there are for the reader: nothing checks
them, and a call costs nothing for them.

Masks are boolean and True means "may attend".  What is added to attention scores is called bias.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
from jaxtyping import Bool, Float, Int, Shaped

__all__ = ["Array", "Batch", "Bool", "Float", "Int", "Key", "PyTree", "Shaped"]

Array: TypeAlias = jax.Array
"""A JAX array, or a tracer of one."""

Key: TypeAlias = jax.Array
"""A JAX random key; `None` in its place means "no randomness", for example no dropout."""

Batch: TypeAlias = Mapping[str, Any]
"""Features by name: encoder_input_tokens [B S], decoder_input_tokens [B T], decoder_target_tokens
[B T] (int32), decoder_loss_weights [B T] (float32) and, optionally, encoder_input_mask [B S] (bool, True
where the input is text; without it ids tell, see `models.attention`), prompt_ids [B] (int32), and whatever
else a method or an objective reads."""

PyTree: TypeAlias = Any
"""Any nesting of containers with arrays as leaves."""
