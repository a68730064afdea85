"""One ensemble under several weights at once: what each of them would write comes from one decode.

A sweep over the K weightings of Hewitt et al., 2021 (shares 0, .1, .25, .5, .75, .9 and 1 of the light model)
reads every input once with each member, and all weightings share what is remembered of it: the memory of an
encoder-decoder has a row for each example, whatever the number of hypotheses.  Only what is written differs:
each example becomes K examples side by side, whose rows have weights of their own, so that greedy decoding and
beam searches treat them as they treat examples.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import paths
from promot_jax.models.encoder_decoder import Buffer
from promot_jax.models.ensemble import Caches, Ensemble, combined, prefilled, stepped
from promot_jax.token_ids import TokenIds
from promot_jax.types import Array, Batch, Float, Int


class Sweep(nnx.Module):
  """The members of an ensemble under K weightings; a `backbone.Decodable`.

  Example b under weighting k is output b * K + k of a decode.

  Example:
    sweep = Sweep(Ensemble([light, full], weights=[0.5, 0.5], space="probability"), [[0, 1], [1, 0]])
    result = generate(sweep, batch, strategy=Greedy(), max_length=64)  # [2 B, 1, 64]
  """

  def __init__(self, ensemble: Ensemble, weights: Sequence[Sequence[float]]):
    """`ensemble` gives members, whose arrays are shared, and space; `weights` are [K M]."""
    self.members = nnx.List([paths.copy(member) for member in ensemble.members])
    self.weights = Buffer(jnp.asarray(weights, jnp.float32))
    self.same = ensemble.same
    self.space = ensemble.space

  @property
  def copies(self) -> int:
    """K."""
    return self.weights[...].shape[0]

  @property
  def token_ids(self) -> TokenIds:
    """Those of every member."""
    return TokenIds.of(self.members[0])

  def prefill(
    self, batch: Batch, *, max_length: int
  ) -> tuple[Float[Array, "B*K V"], "WeightedCaches"]:
    """Reads each input once with every member; as `Decodable` says of B * K examples."""
    logits, caches = prefilled(self.members, batch, max_length=max_length, same=self.same)
    weights = jnp.tile(self.weights[...], (logits[0].shape[0], 1))
    cache = WeightedCaches(weights=weights, caches=caches.repeat(self.copies))
    repeated = [jnp.repeat(each, self.copies, axis=0) for each in logits]
    return combined(repeated, weights.T, space=self.space), cache

  def decode_step(
    self, tokens: Int[Array, "R"], cache: "WeightedCaches"
  ) -> tuple[Float[Array, "R V"], "WeightedCaches"]:
    """Tokens just generated -> logits of the next ones, each row's by its own weights."""
    logits, caches = stepped(self.members, tokens, cache.caches, same=self.same)
    together = combined(logits, cache.weights.T, space=self.space)
    return together, dataclasses.replace(cache, caches=caches)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightedCaches:
  """What the members remember of each row, and the weights of the row.

  weights: of hypotheses, of which those of one example and one weighting lie side by side.
  """

  weights: Float[Array, "R M"]
  caches: Caches

  def repeat(self, count: int) -> "WeightedCaches":
    """Each row `count` times, side by side."""
    weights = jnp.repeat(self.weights, count, axis=0)
    return WeightedCaches(weights=weights, caches=self.caches.repeat(count))

  def reorder(self, indices: Int[Array, "R"]) -> "WeightedCaches":
    """Row r becomes a copy of row indices[r], which has the same weights."""
    return dataclasses.replace(self, caches=self.caches.reorder(indices))
