"""A prediction head: classes in place of tokens, read off one vector of the input.

logits = pooled(hidden) @ kernel + bias        [B S D] -> [B D] -> [B C], float32
"""

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax.models.readout import Readout
from promot_jax.types import Array, Batch, Bool, Float, Key

POOLINGS = ("first", "mean", "last")


def pooled(
  hidden: Float[Array, "B S D"], mask: Bool[Array, "B S"]
) -> dict[str, Float[Array, "B D"]]:
  """Each pooling's vector in float32; padding may be on either side."""
  hidden = hidden.astype(jnp.float32)  # a mean over many positions
  # Arg-max finds the first True: for the last one the mask is turned around.
  first = jnp.argmax(mask, axis=1)
  last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
  weights = mask.astype(jnp.float32)

  def at(position: Array) -> Array:
    return jnp.take_along_axis(hidden, position[:, None, None], axis=1)[:, 0]

  # A row that only fills a batch up has no token: 0, not NaN.
  total = jnp.maximum(weights.sum(axis=1), 1.0)[:, None]
  mean = jnp.einsum("bsd,bs->bd", hidden, weights) / total
  return {"first": at(first), "mean": mean, "last": at(last)}


class Head(nnx.Module):
  """A linear classifier in the slot `head` of a backbone."""

  def __init__(self, width: int, classes: int, *, pooling: str, rngs: nnx.Rngs, std: float = 0.02):
    """`pooling` is one of POOLINGS; `std` is that of the first kernel."""
    self.kernel = nnx.Param(jax.nn.initializers.normal(std)(rngs.params(), (width, classes)))
    self.bias = nnx.Param(jnp.zeros(classes))
    self.pooling = pooling

  @property
  def readout(self) -> Readout:
    """Kernel and bias of the classes' logits."""
    return Readout(kernel=self.kernel[...], bias=self.bias[...])

  def vectors(
    self, model: nnx.Module, batch: Batch, *, key: Key | None = None
  ) -> Float[Array, "B D"]:
    """What the classes of a batch are read off, for `readout`.

    Args:
      model: the backbone that the head is attached to.
      batch: encoder_input_tokens [B S] and what methods read.
      key: for dropout.
    """
    hidden, mask = model.encode(batch, key=key)
    length = batch["encoder_input_tokens"].shape[1]
    # Positions of a prompt, which come first, are no tokens of the input.
    return pooled(hidden[:, -length:], mask[:, -length:])[self.pooling]
