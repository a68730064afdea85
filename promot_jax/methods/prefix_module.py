"""Trained keys and values in the prefix slot of one attention."""

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax.models import preparation
from promot_jax.models.attention import prepend
from promot_jax.models.kv_cache import KVCache
from promot_jax.types import Array, Bool, Float, Key


class Prefix(preparation.Unready):
  """Keys and values [G P K], or a bank of them [tasks G P K], in front of those of the sequence.

  Scanned layers have one with a leading layer axis.
  """

  def __init__(
    self,
    keys: Float[Array, "*tasks G P K"],
    values: Float[Array, "*tasks G P K"],
    *,
    tasks: int = 1,
    positions: int = 0,
    displacement: int = 0,
    drop_rate: float = 0.0,
  ):
    """`positions` and `displacement` are what the stack reads: see `Attention` and `prefix`."""
    self.keys = nnx.Param(keys)
    self.values = nnx.Param(values)
    self.tasks = tasks
    self.positions = positions
    self.displacement = displacement
    self.drop_rate = drop_rate

  def ready(self, call: preparation.Call) -> nnx.Module:
    """Each example's own prefix, with entries dropped while training."""
    keys, values = self.keys[...], self.values[...]
    if self.tasks > 1:
      ids = call.feature(preparation.TASK_ROWS)
      keys, values = (preparation.rows(bank, ids, axis=-4) for bank in (keys, values))
    # Here rather than in attention: entries are drawn once a call, the same for all of its queries.
    if call.key is not None and self.drop_rate > 0:
      keys_key, values_key = jax.random.split(call.key)
      keys = _dropped(keys, self.drop_rate, keys_key)
      values = _dropped(values, self.drop_rate, values_key)
    # Without tasks and rate: what is ready waits no longer.
    return Prefix(keys, values, positions=self.positions, displacement=self.displacement)

  def __call__(
    self,
    keys: Float[Array, "R G L K"],
    values: Float[Array, "R G L K"],
    bias: Float[Array, "1|R 1|H Q L"] | None,
    mask: Bool[Array, "1|R 1 1|Q L"] | None,
  ) -> tuple[
    Float[Array, "R G P+L K"],
    Float[Array, "R G P+L K"],
    Float[Array, "1|R 1|H Q P+L"] | None,
    Bool[Array, "1|R 1 1|Q P+L"] | None,
  ]:
    """The prefix in front of them, seen by all queries."""
    own = [self.keys[...], self.values[...]]
    if own[0].ndim == 4:  # one for each example, of which a decode may have several rows
      own = [preparation.for_rows(leaf, keys.shape[0]) for leaf in own]
    prefix = KVCache(keys=own[0], values=own[1])
    # Counted positions have their bias already: the stack has computed it for P + L keys.
    return prepend(keys, values, bias, mask, prefix=prefix, biased=self.positions > 0)


def _dropped(x: Float[Array, "..."], rate: float, key: Key) -> Float[Array, "..."]:
  keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
  return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)
