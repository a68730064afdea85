"""Several networks that predict together: one distribution of the next token is made of theirs.

With member m's distribution p_m over the vocabulary and its weight w_m (all at least 0, their sum 1):

  probability   p = sum_m w_m p_m                    log-sum-exp of log w_m + log p_m
  log           log p = sum_m w_m log p_m + const    a geometric mean
  logits        l = sum_m w_m l_m

all in float32.  'log' and 'logits' are one distribution, as a member's log p and its logits differ by a
constant of the token; 'logits' does without the members' normalizers.  Hewitt et al., 2021, "Ensembles and
Cocktails: Robust Finetuning for Natural Language Generation", section 3, combines probabilities.

An ensemble is a `backbone.Decodable`: it decodes, scores and teaches as a backbone does, and each member has
a cache of its own; members that differ in few arrays are run together (`alike`).  It is no single stack of layers, so nothing can be attached to it or trained in it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import paths
from promot_jax.errors import ConfigError
from promot_jax.models import alike
from promot_jax.models import readout as readouts
from promot_jax.models.backbone import Cache
from promot_jax.models.encoder_decoder import Buffer
from promot_jax.models.readout import AnyReadout, LogSum, Reading, Statistics
from promot_jax.token_ids import TokenIds
from promot_jax.types import Array, Batch, Float, Int, Key

Space = Literal["probability", "log", "logits"]
SPACES: tuple[Space, ...] = ("probability", "log", "logits")


class Ensemble(nnx.Module):
  """Members with one vocabulary, and their weights.

  Example:
    model = Ensemble([light, full], weights=[0.5, 0.5], space="probability")
    result = generate(model, batch, strategy=Beam(width=4), max_length=64)
  """

  def __init__(self, members: Sequence[Any], *, weights: Sequence[float], space: Space):
    """`members` are backbones, methods attached, or ensembles; their arrays are shared, not copied."""
    # Own module objects: a module that stood in two places would be one to nnx, and so would what a
    # method's preparation writes into it.
    self.members = nnx.List([paths.copy(member) for member in members])
    # Told here, where the members' arrays are those that they were made of.
    self.same = alike.common(self.members)
    # An array and no constant, so that other weights are no other program.
    self.weights = Buffer(jnp.asarray(weights, jnp.float32))
    self.space = space

  @property
  def config(self) -> Any:
    """Of the member with the fewest learned positions: what it can read and write, all can."""
    return fewest_positions([member.config for member in self.members])

  @property
  def token_ids(self) -> TokenIds:
    """Those of every member."""
    return TokenIds.of(self.members[0])

  @property
  def head(self) -> None:
    """There is no slot for a prediction head."""
    return None

  def hidden(self, batch: Batch, *, key: Key | None = None) -> tuple[Any, ...]:
    """What each member's `hidden` gives, for `logits` and `readout`."""
    return tuple(member.hidden(batch, key=key) for member in self.members)

  def logits(self, hidden: Sequence[Any]) -> Float[Array, "... V"]:
    """Float32 logits of the combined distribution."""
    return self.readout.logits(hidden)

  @property
  def readout(self) -> "EnsembleReadout":
    """From the members' hidden states to combined logits, all at once or in parts."""
    members = tuple(member.readout for member in self.members)
    return EnsembleReadout(members=members, weights=self.weights[...], space=self.space)

  def prefill(self, batch: Batch, *, max_length: int) -> tuple[Float[Array, "B V"], "Caches"]:
    """Reads the input with every member; as `Decodable` says."""
    logits, caches = prefilled(self.members, batch, max_length=max_length, same=self.same)
    return combined(logits, self.weights[...], space=self.space), caches

  def decode_step(
    self, tokens: Int[Array, "R"], cache: "Caches"
  ) -> tuple[Float[Array, "R V"], "Caches"]:
    """Tokens just generated -> combined logits of the next ones, and the caches that know them."""
    logits, caches = stepped(self.members, tokens, cache, same=self.same)
    return combined(logits, self.weights[...], space=self.space), caches


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Caches:
  """The cache of each member; rows of all of them are those of the same hypotheses.

  members: of each its own; or a single one, whose leaves [M ...] are those of all, where they are `stacked`.
  """

  members: tuple[Cache, ...]
  stacked: bool = dataclasses.field(metadata={"static": True})

  def repeat(self, count: int) -> "Caches":
    """Each row `count` times, side by side, in every member's cache."""
    return self._changed(lambda cache: cache.repeat(count))

  def reorder(self, indices: Int[Array, "R"]) -> "Caches":
    """Row r becomes a copy of row indices[r], in every member's cache."""
    return self._changed(lambda cache: cache.reorder(indices))

  def _changed(self, change: Callable[[Cache], Cache]) -> "Caches":
    of_one = jax.vmap(change) if self.stacked else change
    return dataclasses.replace(self, members=tuple(map(of_one, self.members)))


def prefilled(
  members: Sequence[Any], batch: Batch, *, max_length: int, same: tuple[str, ...] | None
) -> tuple[Sequence[Float[Array, "B V"]], Caches]:
  """Reads the input with every member: the logits of each, and the caches.

  Args:
    same: of `alike.common`: the members' arrays that are the same, if they may be run as one program.
  """

  def read(member: Any) -> tuple[Float[Array, "B V"], Cache]:
    return member.prefill(batch, max_length=max_length)

  if same is not None:
    logits, caches = alike.each(read, members, same=same)
    return logits, Caches(members=(caches,), stacked=True)
  each_logits, each_cache = zip(*map(read, members))
  return each_logits, Caches(members=each_cache, stacked=False)


def stepped(
  members: Sequence[Any],
  tokens: Int[Array, "R"],
  caches: Caches,
  *,
  same: tuple[str, ...] | None,
) -> tuple[Sequence[Float[Array, "R V"]], Caches]:
  """Tokens just generated -> each member's logits of the next ones, and the caches that know them."""

  def write(member: Any, cache: Cache) -> tuple[Float[Array, "R V"], Cache]:
    return member.decode_step(tokens, cache)

  if caches.stacked:
    assert same is not None  # as the input was read
    logits, found = alike.each(write, members, *caches.members, same=same)
    return logits, Caches(members=(found,), stacked=True)
  each_logits, each_cache = zip(*map(write, members, caches.members))
  return each_logits, Caches(members=each_cache, stacked=False)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleReadout:
  """A readout of several models: see the formulas above.

  members: of one vocabulary, each for the hidden states of its model.
  """

  members: tuple[AnyReadout, ...]
  weights: Float[Array, "M"]
  space: Space = dataclasses.field(metadata={"static": True})

  @property
  def size(self) -> int:
    """V."""
    return self.members[0].size

  def logits(self, hidden: Sequence[Any]) -> Float[Array, "... V"]:
    """All logits, float32."""
    found = [member.logits(states) for member, states in zip(self.members, hidden, strict=True)]
    return combined(found, self.weights, space=self.space)

  def reading(self, hidden: Sequence[Any], *, chunk: int | None) -> Reading:
    """Parts of the logits; the members' normalizers are gathered from all parts before."""
    parts = list(zip(self.members, hidden, strict=True))
    readings = [member.reading(states, chunk=chunk) for member, states in parts]
    log_z = None
    if self.space != "logits":
      log_z = [_log_z(member, states, chunk=chunk) for member, states in parts]

    def together(*logits: Float[Array, "... C"]) -> Float[Array, "... C"]:
      left = iter(logits)
      own = [[next(left) for _ in reading.sources] for reading in readings]
      found = [reading.combined(*each) for reading, each in zip(readings, own)]
      return combined(found, self.weights, space=self.space, log_z=log_z)

    sources = [source for reading in readings for source in reading.sources]
    return Reading(sources=sources, combined=together)

  def fold(
    self,
    hidden: Sequence[Any],
    measure: Callable[..., Statistics],
    merge: Callable[[Statistics, Statistics], Statistics],
    start: Statistics,
    *,
    chunk: int | None = None,
    beside: Sequence[tuple[AnyReadout, Any]] = (),
  ) -> Statistics:
    """As `readout.fold`, of this readout and those `beside` it."""
    return readouts.fold([(self, hidden), *beside], measure, merge, start, chunk=chunk)


def combined(
  logits: Sequence[Float[Array, "... C"]] | Float[Array, "M ... C"],
  weights: Float[Array, "M ..."],
  *,
  space: Space,
  log_z: Sequence[Float[Array, "..."]] | None = None,
) -> Float[Array, "... C"]:
  """Logits of the combined distribution, of all tokens or of a part of them.

  Args:
    logits: of each member at the same tokens, a sequence or [M ... C]; float32.
    weights: float32, at least 0, of sum 1; of all tokens, or of each along the first axes of `logits`.
    space: a formula above.
    log_z: log-sum-exp of each member's logits over the whole vocabulary; None: `logits` are of all of it.
  """
  members = logits if isinstance(logits, jax.Array) else jnp.stack(logits)  # [M ... C]
  weights = weights.reshape(*weights.shape, *(1,) * (members.ndim - weights.ndim))
  if space == "logits":
    return (weights * members).sum(axis=0)
  whole = jax.nn.logsumexp(members, axis=-1) if log_z is None else jnp.stack(log_z)
  log_p = members - whole[..., None]
  if space == "log":
    return (weights * log_p).sum(axis=0)
  return jax.nn.logsumexp(jnp.log(weights) + log_p, axis=0)


def require_one(model: Any, wish: str) -> None:
  """Whether a model is one network, and not several that predict together.

  Args:
    model: shapes are enough.
    wish: what is to be done with it, as a part of a sentence: 'be trained'.

  Raises:
    ConfigError: it is an ensemble, of which this cannot be done.
  """
  if isinstance(model, Ensemble):
    raise ConfigError(
      f"An ensemble is {len(model.members)} networks whose predictions are combined, so it cannot {wish}; it"
      " can be measured, asked, and be a teacher. Take one of its members for this, or Interpolated"
      " weights, which are one network."
    )


def fewest_positions(configs: Sequence[Any]) -> Any:
  """The configuration with the fewest learned positions; the first where none has learned ones."""
  return min(
    configs, key=lambda each: float("inf") if each.max_positions is None else each.max_positions
  )


def _log_z(member: AnyReadout, hidden: Any, *, chunk: int | None) -> Float[Array, "..."]:
  """log-sum-exp of all logits of a member, gathered from parts of the vocabulary."""
  tokens = jax.tree.leaves(hidden)[0].shape[:-1]
  total = readouts.fold(
    [(member, hidden)],
    lambda part, logits: LogSum.of(logits),
    LogSum.merge,
    LogSum.of_nothing(tokens),
    chunk=chunk,
  )
  return total.value
