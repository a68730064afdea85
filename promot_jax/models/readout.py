"""From hidden states to logits: the one value that owns an output kernel, its bias and its scale.

    logits = scale * hidden @ kernel + bias        [... D] -> [... V], float32

What a loss, a score or a teacher needs to know of logits is nearly always a handful of numbers a token
that can be gathered from parts of the vocabulary.  `Readout.fold` does that: `measure` looks at the logits
of some tokens of the vocabulary, `merge` puts two measurements together, and whole logits [tokens, V] need
never exist.  With several readouts side by side the same fold compares models: a student with its teacher,
a policy with its reference.  Logits may also be made of those of several readouts (`ensemble.EnsembleReadout`): a
`Reading` says how.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp

from promot_jax.errors import ConfigError
from promot_jax.models.layers import product
from promot_jax.types import Array, Bool, Float, Int

LOWEST = float(jnp.finfo(jnp.float32).min)
"""The logit of a column that is no token.  Finite, because -inf - (-inf) would be NaN."""

Statistics = TypeVar("Statistics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """The tokens of the vocabulary that a measurement looks at.

  ids: which ones, ascending; those that only fill the part up are beyond the vocabulary.
  real: False for those that fill it up, whose logits are LOWEST; None: there are none.
  """

  ids: Int[Array, "C"]
  real: Bool[Array, "C"] | None = None

  def of_tokens(self, logits: Float[Array, "... C"]) -> Float[Array, "... C"]:
    """The logits with 0 in place of what is no token, for sums that do not exponentiate."""
    return logits if self.real is None else jnp.where(self.real, logits, 0.0)

  def columns(
    self, tokens: Int[Array, "..."], *, size: int
  ) -> tuple[Int[Array, "..."], Bool[Array, "..."]]:
    """(column of each token, whether it is in this part of the vocabulary of `size` tokens)."""
    if len(self.ids) == size:  # all of it, in order
      return tokens, jnp.ones(tokens.shape, bool)
    columns = jnp.minimum(jnp.searchsorted(self.ids, tokens), len(self.ids) - 1)
    return columns, self.ids[columns] == tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
  """Logits of known hidden states as those of plain readouts, for any part of the vocabulary.

  sources: readouts, each with its own hidden states.
  combined: the logits [... C] of all sources at the same tokens -> the logits [... C].
  """

  sources: Sequence[tuple["Readout", Float[Array, "... D"]]]
  combined: Callable[..., Float[Array, "... C"]]


class AnyReadout(Protocol):
  """What gives the logits of hidden states: a `Readout`, or one made of several."""

  @property
  def size(self) -> int:
    """V."""

  def logits(self, hidden: Any) -> Float[Array, "... V"]:
    """All logits, float32; `hidden` is what the model's `hidden` gives."""

  def reading(self, hidden: Any, *, chunk: int | None) -> Reading:
    """How parts of the logits are found; `chunk` as in `fold`, for what has to be known of all first."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Readout:
  """Weights of the last linear map; a head with classes in place of tokens is one, too.

  kernel: in its own dtype.
  bias: None: there is none.
  scale: factor of the logits before the bias (tied embeddings of T5).
  """

  kernel: Float[Array, "D V"]
  bias: Float[Array, "V"] | None = None
  scale: float = dataclasses.field(default=1.0, metadata={"static": True})

  @property
  def size(self) -> int:
    """V."""
    return self.kernel.shape[-1]

  def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """All logits, float32."""
    # Both factors in float32: rounding logits to bfloat16 would merge close candidates.
    hidden = hidden.astype(jnp.float32)
    if self.scale != 1.0:  # of the two arrays, hidden states are the smaller
      hidden = hidden * self.scale
    logits = product(hidden, self.kernel.astype(jnp.float32))
    return logits if self.bias is None else logits + self.bias.astype(jnp.float32)

  def reading(self, hidden: Float[Array, "... D"], *, chunk: int | None) -> Reading:
    """The logits are this readout's own, in parts as well."""
    del chunk
    return Reading(sources=[(self, hidden)], combined=lambda logits: logits)

  def fold(
    self,
    hidden: Float[Array, "... D"],
    measure: Callable[..., Statistics],
    merge: Callable[[Statistics, Statistics], Statistics],
    start: Statistics,
    *,
    chunk: int | None = None,
    beside: Sequence[tuple[AnyReadout, Any]] = (),
  ) -> Statistics:
    """As the function `fold`, of this readout and those `beside` it."""
    return fold([(self, hidden), *beside], measure, merge, start, chunk=chunk)


def fold(
  readouts: Sequence[tuple[AnyReadout, Any]],
  measure: Callable[..., Statistics],
  merge: Callable[[Statistics, Statistics], Statistics],
  start: Statistics,
  *,
  chunk: int | None = None,
) -> Statistics:
  """What `measure` finds in the logits of all tokens, gathered from parts of the vocabulary.

  The backward pass computes the logits of each part anew, so that neither they nor their gradients
  exist for two parts at once.

  Args:
    readouts: of one vocabulary, each with its own hidden states of any float type.
    measure: called as `measure(part, *logits)` with a `Part` of C tokens and the float32 logits [... C]
      of each readout; gives a pytree of arrays.  It may close over arrays of the tokens, such as targets.
    merge: the measurement of two parts, from that of each; must not depend on their order.
    start: the measurement of no token at all: `merge(start, x)` is x.
    chunk: largest number of logits a token that exist at once, over all devices; None: all of them.
      Under a mesh of n parts of the vocabulary, at least n times what one device should hold.

  Raises:
    ConfigError: `chunk` is not positive, or the vocabularies differ in size.
  """
  size = readouts[0][0].size
  if odd := [readout.size for readout, _ in readouts if readout.size != size]:
    raise ConfigError(
      f"Logits of {size} and of {odd[0]} tokens cannot be compared token by token; take models of"
      " one vocabulary, whose embeddings have the same number of rows."
    )
  if chunk is not None and chunk < 1:
    raise ConfigError(f"chunk={chunk}: the vocabulary chunk must hold at least one token.")
  if chunk is None or chunk >= size:
    part = Part(ids=jnp.arange(size, dtype=jnp.int32))
    return measure(part, *(readout.logits(hidden) for readout, hidden in readouts))
  readings = [readout.reading(hidden, chunk=chunk) for readout, hidden in readouts]
  return _folded(readings, size, measure, merge, start, chunk=chunk)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSum:
  """log(sum(exp(logits))) of some tokens, in two numbers that can be merged without overflow.

  largest: the largest logit; no gradient.
  total: sum(exp(logits - largest)).
  """

  largest: Float[Array, "..."]
  total: Float[Array, "..."]

  @classmethod
  def of(cls, logits: Float[Array, "... C"]) -> "LogSum":
    """Of float32 logits."""
    # Its gradient cancels: it is subtracted inside of the sum and added to its logarithm.
    largest = jax.lax.stop_gradient(logits.max(axis=-1))
    return cls(largest=largest, total=jnp.exp(logits - largest[..., None]).sum(axis=-1))

  @classmethod
  def of_nothing(cls, shape: Sequence[int]) -> "LogSum":
    """Of no token, for so many sums."""
    return cls(largest=jnp.full(shape, LOWEST), total=jnp.zeros(shape))

  def merge(self, other: "LogSum") -> "LogSum":
    """Of the tokens of both."""
    largest = jnp.maximum(self.largest, other.largest)
    return LogSum(
      largest=largest,
      total=self.total * jnp.exp(self.largest - largest)
      + other.total * jnp.exp(other.largest - largest),
    )

  @property
  def value(self) -> Float[Array, "..."]:
    """The logarithm itself."""
    return jnp.log(self.total) + self.largest


# Parts of the vocabulary.


def _folded(
  readings: Sequence[Reading],
  size: int,
  measure: Callable[..., Statistics],
  merge: Callable[[Statistics, Statistics], Statistics],
  start: Statistics,
  *,
  chunk: int,
) -> Statistics:
  groups, chunks, run = chunk_plan(size, chunk)
  filled = groups * chunks * run > size
  # Chunk c holds `run` neighbours out of each of the `groups` parts of the vocabulary, so that a
  # kernel sharded over the vocabulary gives every device an equal share of every chunk.
  cut = [
    [_cut(readout, groups, chunks, run) for readout, _ in reading.sources] for reading in readings
  ]
  first = jnp.arange(groups, dtype=jnp.int32)[:, None] * (chunks * run)
  neighbours = jnp.arange(run, dtype=jnp.int32)[None, :]

  def one_chunk(statistics, index_and_weights):
    index, weights = index_and_weights
    ids = (first + index * run + neighbours).reshape(-1)  # [G R] -> [(G R)]
    # Most vocabularies are divided evenly (`chunk_plan`), and have no column to hide.
    real = ids < size if filled else None
    logits = []
    for reading, own_weights in zip(readings, weights):
      sources = [
        _scores(hidden, kernel.reshape(kernel.shape[0], -1), readout.scale, bias)
        for (readout, hidden), (kernel, bias) in zip(reading.sources, own_weights)
      ]
      own = reading.combined(*sources)
      logits.append(own if real is None else jnp.where(real, own, LOWEST))
    return merge(statistics, measure(Part(ids=ids, real=real), *logits)), None

  inputs = (jnp.arange(chunks, dtype=jnp.int32), cut)
  # Nothing of one turn of a scan can be merged with another, so checkpoint needs no barrier.
  end, _ = jax.lax.scan(jax.checkpoint(one_chunk, prevent_cse=False), start, inputs)
  return end


def _cut(
  readout: Readout, groups: int, chunks: int, run: int
) -> tuple[Float[Array, "C D G R"], Float[Array, "C GR"] | None]:
  """Kernel and bias by chunk, filled up with zeros."""
  kernel, bias = readout.kernel, readout.bias
  width, size = kernel.shape
  # Zeros for a scan of equal chunks: their logits are set to LOWEST where they are made.
  if padding := groups * chunks * run - size:
    kernel = jnp.pad(kernel, ((0, 0), (0, padding)))
    bias = None if bias is None else jnp.pad(bias, (0, padding))
  kernels = jnp.moveaxis(
    kernel.reshape(width, groups, chunks, run), 2, 0
  )  # [D (G C R)] -> [C D G R]
  if bias is not None:
    bias = jnp.moveaxis(bias.reshape(groups, chunks, run), 1, 0).reshape(chunks, -1)  # -> [C (G R)]
  return kernels, bias


def chunk_plan(size: int, chunk: int) -> tuple[int, int, int]:
  """(groups, chunks, run) with groups * run <= chunk and the product at least the vocabulary.

  The number of chunks is raised a little (at most doubled) where that makes it divide the
  vocabulary, because padding copies the kernel.  Groups are a power of two: mesh axes are too.
  """
  fewest = math.ceil(size / chunk)
  chunks = next((count for count in range(fewest, 2 * fewest + 1) if size % count == 0), fewest)
  width = math.ceil(size / chunks)
  # Up to 64 devices along the vocabulary have equal shares of a chunk.
  groups = math.gcd(width, 64)
  return groups, chunks, width // groups


def _scores(
  hidden: Float[Array, "... D"],
  kernel: Float[Array, "D C"],
  scale: float,
  bias: Float[Array, "C"] | None,
) -> Float[Array, "... C"]:
  """scale * hidden @ kernel + bias in float32.

  Unlike `Readout.logits`, equal types are multiplied as they are, for a float32 copy of the kernel is
  what chunks are there to avoid; products of bfloat16 are exact in the float32 sums.
  """
  if hidden.dtype != kernel.dtype:
    hidden, kernel = hidden.astype(jnp.float32), kernel.astype(jnp.float32)
  # One axis of tokens: see `layers.product`.
  tokens = hidden.reshape(-1, hidden.shape[-1])
  logits = jnp.matmul(tokens, kernel, preferred_element_type=jnp.float32)
  logits = logits.reshape(*hidden.shape[:-1], -1)
  logits = logits if scale == 1.0 else logits * scale
  return logits if bias is None else logits + bias.astype(jnp.float32)
