"""What a backbone must offer to be decoded; decoder-only models and ensembles offer the same."""

from typing import Any, Protocol

import jax


class Cache(Protocol):
  """A pytree of what earlier positions left behind, for R rows."""

  def repeat(self, count: int) -> "Cache":
    """Each row `count` times, side by side."""
    ...

  def reorder(self, indices: jax.Array) -> "Cache":
    """Row r becomes a copy of row indices[r] [R], which is of the same example."""
    ...


class Decodable(Protocol):
  """A module that predicts token after token; logits are float32."""

  def prefill(self, batch: Any, *, max_length: int) -> tuple[jax.Array, Cache]:
    """Logits [B V] of the first generated token, and the cache; B rows."""
    ...

  def decode_step(self, tokens: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    """The tokens [R] just chosen -> logits [R V] of the next ones, and the cache."""
    ...
