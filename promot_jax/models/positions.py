"""How a network learns the order of its tokens: relative biases, learned vectors, rotations.

T5 adds a learned bias per head and distance bucket to attention scores.  Near distances have a
bucket each, far ones share buckets that grow logarithmically, and all distances from `max_distance`
on share the last one (Raffel et al., 2020, arXiv:1910.10683).  BART and GPT-2 add a learned vector
per position to the embedded tokens.  PaLM and LLaMA turn queries and keys by angles that are
proportional to their position (Su et al., 2021, arXiv:2104.09864).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.types import Array, Float, Int

RECIPE_VALUES = ("Llama3Scaling",)


class RelativePositionBias(nnx.Module):
  """A table [H, buckets] that is read by the distance of key and query."""

  def __init__(
    self,
    heads: int,
    *,
    rngs: nnx.Rngs,
    buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool,
    param_dtype: str = "float32",
  ):
    """`bidirectional` gives half of the buckets to keys after the query (encoders)."""
    initializer = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
    self.rel_embedding = nnx.Param(
      initializer(rngs.params(), (heads, buckets), jnp.dtype(param_dtype))
    )
    self.max_distance = max_distance
    self.bidirectional = bidirectional

  def __call__(self, queries: int, keys: int, *, offset: int = 0) -> Float[Array, "1 H Q L"]:
    """Float32 bias of `keys` positions, the first `offset` of them before query 0."""
    heads = self.rel_embedding.shape[0]
    # A Toeplitz matrix: row i holds the bias of distances -i-offset, ..., and the next row is
    # shifted by one.  Repeating a vector that is one longer than a row shifts it for free, which
    # avoids a [Q, L] gather and its slow scatter in the backward pass.
    period = queries + keys
    relative = np.arange(period)
    relative = np.where(relative < keys, relative, relative - period) - offset
    # The table is read once for each distance, not for each pair of positions.
    by_distance = self.by_distance(relative)  # [H period]
    repeated = jnp.broadcast_to(by_distance[:, None, :], (heads, queries, period))
    flat = repeated.reshape(heads, -1)[:, : queries * (period - 1)]
    return flat.reshape(1, heads, queries, period - 1)[..., :keys]

  def by_distance(self, relative: Int[np.ndarray, "L"]) -> Float[Array, "H L"]:
    """Float32 bias of the given key positions minus query positions, known when traced."""
    table = self.rel_embedding[...].astype(jnp.float32)
    buckets = relative_position_bucket(
      relative,
      buckets=table.shape[-1],
      max_distance=self.max_distance,
      bidirectional=self.bidirectional,
    )
    # A product with a constant instead of a gather: its gradient is a product too, not a scatter.
    one_hot = np.equal(np.arange(table.shape[-1])[:, None], buckets).astype(np.float32)
    return jnp.matmul(table, one_hot, precision=jax.lax.Precision.HIGHEST)


def relative_position_bucket(
  relative: np.ndarray, *, buckets: int, max_distance: int, bidirectional: bool
) -> np.ndarray:
  """Bucket numbers of key positions minus query positions, shape kept.

  Computed with numpy when the program is traced: lengths are static, so XLA never sees the
  logarithm, whose rounding differs between platforms at the bucket borders.
  """
  relative = np.asarray(relative)
  first = np.zeros(relative.shape, np.int32)
  if bidirectional:
    buckets //= 2
    first = np.where(relative > 0, buckets, 0).astype(np.int32)
    distance = np.abs(relative)
  else:
    distance = np.maximum(-relative, 0)  # later keys are masked anyway
  # From here as T5 does it, in float32: another rounding moves the borders of the far buckets.
  exact = buckets // 2
  ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
  growth = np.log(ratio) / np.float32(np.log(max_distance / exact))
  far = exact + (growth * np.float32(buckets - exact)).astype(np.int32)
  return first + np.where(distance < exact, distance, np.minimum(far, buckets - 1)).astype(np.int32)


class LearnedPositions(nnx.Module):
  """One vector per position; BART's table has `offset` rows more in front, which nothing reads."""

  def __init__(
    self,
    length: int,
    width: int,
    *,
    rngs: nnx.Rngs,
    offset: int = 0,
    std: float = 0.02,
    param_dtype: str = "float32",
  ):
    shape = (length + offset, width)
    self.embedding = nnx.Param(
      jax.nn.initializers.normal(std)(rngs.params(), shape, jnp.dtype(param_dtype))
    )
    self.offset = offset

  @property
  def length(self) -> int:
    """How many positions there are."""
    return self.embedding.shape[0] - self.offset

  def __call__(
    self, positions: Int[Array, "..."], *, dtype: str = "float32"
  ) -> Float[Array, "... D"]:
    """The vectors of positions.  One outside of the table gives NaN."""
    table = self.embedding[...].astype(jnp.dtype(dtype))
    return jnp.take(table, positions + self.offset, axis=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
  """Llama 3.1's change of the rotation angles, by which a model reads `factor` times longer texts.

  Waves that fit more than `high_frequency_factor` times into the trained length keep their angles,
  those that fit fewer than `low_frequency_factor` times are slowed down by `factor`, and those in
  between are interpolated (Grattafiori et al., 2024, arXiv:2407.21783; the values are those of
  `rope_scaling` in Hugging Face configurations).
  """

  factor: float = 8.0
  low_frequency_factor: float = 1.0
  high_frequency_factor: float = 4.0
  original_length: int = 8192

  def __call__(self, frequencies: np.ndarray) -> np.ndarray:
    """Angles per position, float64 [K/2], shape kept."""
    waves = self.original_length * frequencies / (2 * np.pi)  # that fit into the trained length
    low, high = self.low_frequency_factor, self.high_frequency_factor
    # 1 for fast waves, 0 for slow ones and a ramp between: the three cases in one line.
    kept = np.clip((waves - low) / (high - low), 0.0, 1.0)
    return kept * frequencies + (1 - kept) * frequencies / self.factor


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryPositions:
  """Turns pairs of features (i, i + K/2) by position * theta^(-2i/K), as LLaMA pairs them.

  A value without parameters: part of a network's static structure.
  """

  head_width: int
  theta: float = 10_000.0
  scaling: Llama3Scaling | None = None

  def __post_init__(self):
    if self.head_width < 2 or self.head_width % 2 or self.theta <= 0:
      raise ConfigError(
        f"RotaryPositions has head_width={self.head_width} and theta={self.theta}; it needs an even"
        " head width and a theta above 0."
      )

  def frequencies(self) -> np.ndarray:
    """Angles per position, float64 [K/2]."""
    frequencies = self.theta ** (-np.arange(0, self.head_width, 2) / self.head_width)
    return frequencies if self.scaling is None else self.scaling(frequencies)

  def __call__(
    self, x: Float[Array, "B L H K"], positions: Int[Array, "1|B L"]
  ) -> Float[Array, "B L H K"]:
    """The heads turned by their positions; in the dtype of x."""
    # float32: bfloat16 cannot tell position 257 from 256
    angles = positions[..., None].astype(jnp.float32) * self.frequencies().astype(np.float32)
    angles = angles[..., None, :]  # [B L K/2] -> [B L 1 K/2]
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
