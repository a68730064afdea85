"""A distribution over the vocabulary as its k most probable tokens, and all others as one.

Of a teacher's distribution p at one target token there are kept the k largest p_v, and the mass of all other
tokens together, r = 1 - sum(p_v).  The divergence of a student q is then taken between two distributions over
k + 1 events, those tokens and "another one":

  KL_k = sum(p_v * log(p_v / q_v)) + r * log(r / q_r),       q_r = sum of q over the others

By the chain rule KL(p || q) = KL_k + r * KL(p' || q') with p', q' those of the others given that it is one of
them.  So KL_k is exact for k = V, never larger than KL(p || q), and its gradient by a student's logits differs
from the whole one's only at the others, there by r * (q' - p'): at most 2 r in the sum of absolute values,
whatever the student is.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax.models import readout as readouts
from promot_jax.models.readout import LOWEST, LogSum, Part
from promot_jax.types import Array, Batch, Float, Int

TOKENS, LOG_P = "decoder_teacher_tokens", "decoder_teacher_log_p"
"""Arrays of a batch: int32 [B T k], and float32 [B T k+1], that of all other tokens together last.  Where there
is no target token, log p is `readout.LOWEST`: a mass of 0."""


@functools.partial(jax.jit, static_argnames=("graphdef", "count", "temperature", "chunk"))
def distributions(
  state: nnx.State,
  batch: Batch,
  *,
  graphdef: nnx.GraphDef,
  count: int,
  temperature: float,
  chunk: int | None,
) -> tuple[Int[Array, "B T k"], Float[Array, "B T k+1"]]:
  """The tokens and log p of a teacher at the target tokens of a batch, without dropout.

  Args:
    state, graphdef: `nnx.split` of the teacher.
    count: k, at most V.
    temperature: of the distribution.
    chunk: largest number of logits a token that exist at once; None: all of them.
  """
  teacher: Any = nnx.merge(graphdef, state)
  readout, hidden = teacher.readout, teacher.hidden(batch)
  size = readout.size
  found = readouts.fold(
    [(readout, hidden)],
    lambda part, logits: TopTokens.of(part, tempered(logits, temperature), count, size=size),
    TopTokens.merge,
    TopTokens.of_nothing(batch["decoder_target_tokens"].shape, count, size=size),
    chunk=chunk,
  )
  return found.ids, found.log_p


def tempered(logits: Float[Array, "... C"], temperature: float) -> Float[Array, "... C"]:
  """Logits divided by a temperature, and still finite where they stand for no token."""
  # Below LOWEST they would be infinite, and their differences NaN.
  return jnp.maximum(logits / temperature, LOWEST)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TopTokens:
  """The k largest logits of some tokens of the vocabulary, descending; without gradients.

  ids: of their tokens.
  logits: float32.
  others: of all that are not among them.
  """

  ids: Int[Array, "... T k"]
  logits: Float[Array, "... T k"]
  others: LogSum

  @classmethod
  def of(cls, part: Part, logits: Float[Array, "... T C"], count: int, *, size: int) -> "TopTokens":
    """Of the logits of a part of a vocabulary of `size` tokens."""
    most = min(count, logits.shape[-1])
    largest, columns = jax.lax.top_k(logits, most)
    # A part may have fewer tokens than are looked for.
    more = [(0, 0)] * (logits.ndim - 1) + [(0, count - most)]
    return cls(
      ids=jnp.pad(part.ids[columns], more, constant_values=size),
      logits=jnp.pad(largest, more, constant_values=LOWEST),
      others=LogSum.of(without(logits, columns)),
    )

  @classmethod
  def of_nothing(cls, shape: tuple[int, ...], count: int, *, size: int) -> "TopTokens":
    """Of no token of the vocabulary."""
    return cls(
      ids=jnp.full((*shape, count), size, jnp.int32),
      logits=jnp.full((*shape, count), LOWEST),
      others=LogSum.of_nothing(shape),
    )

  def merge(self, other: "TopTokens") -> "TopTokens":
    """Of the tokens of both parts."""
    ids = jnp.concatenate([self.ids, other.ids], axis=-1)
    logits = jnp.concatenate([self.logits, other.logits], axis=-1)  # [... T 2k]
    largest, places = jax.lax.top_k(logits, self.logits.shape[-1])
    return TopTokens(
      ids=jnp.take_along_axis(ids, places, axis=-1),
      logits=largest,
      # Those that were among the largest of their part only.
      others=self.others.merge(other.others).merge(LogSum.of(without(logits, places))),
    )

  @property
  def log_p(self) -> Float[Array, "... T k+1"]:
    """Logarithms of their probabilities, and last of that of all other tokens together."""
    log_z = LogSum.of(self.logits).merge(self.others).value
    every = jnp.concatenate([self.logits, self.others.value[..., None]], axis=-1)
    return jnp.maximum(every - log_z[..., None], LOWEST)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class AtTokens:
  """A student's logits at the tokens that were kept, and of all others together, in some of the vocabulary.

  logits: 0 where a token is in another part.
  """

  logits: Float[Array, "... T k"]
  others: LogSum

  @classmethod
  def of(
    cls, part: Part, logits: Float[Array, "... T C"], tokens: Int[Array, "... T k"], *, size: int
  ) -> "AtTokens":
    """Of the logits of a part of a vocabulary of `size` tokens."""
    columns, here = part.columns(tokens, size=size)
    chosen, others = _apart(logits, jnp.where(here, columns, logits.shape[-1]))
    return cls(logits=chosen, others=LogSum.of(others))

  @classmethod
  def of_nothing(cls, tokens: Int[Array, "... T k"]) -> "AtTokens":
    """Of no token of the vocabulary."""
    return cls(logits=jnp.zeros(tokens.shape), others=LogSum.of_nothing(tokens.shape[:-1]))

  def merge(self, other: "AtTokens") -> "AtTokens":
    """Of the tokens of both parts."""
    return AtTokens(logits=self.logits + other.logits, others=self.others.merge(other.others))

  def divergence(self, log_p: Float[Array, "... T k+1"]) -> Float[Array, "... T"]:
    """KL_k of the module's docstring; 0 where the teacher has no mass."""
    every = jnp.concatenate([self.logits, self.others.value[..., None]], axis=-1)
    log_z = LogSum.of(self.logits).merge(self.others).value
    # A mass of 0 times differences that are large and finite.
    return (jnp.exp(log_p) * (log_p - (every - log_z[..., None]))).sum(axis=-1)


def without(
  logits: Float[Array, "... C"], columns: Int[Array, "... k"], value: Any = LOWEST
) -> Float[Array, "... C"]:
  """The logits with `value` at some columns, of which those beyond the last one are none."""
  rows = logits.reshape(-1, logits.shape[-1])
  places = columns.reshape(-1, columns.shape[-1])
  value = value.reshape(places.shape) if hasattr(value, "shape") else value
  row = jnp.arange(len(rows))[:, None]
  return rows.at[row, places].set(value, mode="drop").reshape(logits.shape)


@jax.custom_vjp
def _apart(
  logits: Float[Array, "... C"], columns: Int[Array, "... k"]
) -> tuple[Float[Array, "... k"], Float[Array, "... C"]]:
  """The logits at some columns (0 beyond the last one), and all logits with LOWEST there."""
  here = columns < logits.shape[-1]
  chosen = jnp.take_along_axis(logits, jnp.where(here, columns, 0), axis=-1)
  return jnp.where(here, chosen, 0.0), without(logits, columns)


def _apart_forward(logits, columns):
  return _apart(logits, columns), columns


def _apart_backward(columns, gradients):
  chosen, others = gradients
  # Each logit goes one of two ways, so one pass puts the two gradients together; by itself JAX would take
  # a scatter for each.
  return without(others, columns, chosen), None


_apart.defvjp(_apart_forward, _apart_backward)
