"""The small parts every backbone is built from: linear, embedding, norm, mlp, dropout.

They hold parameters and nothing else.  The compute dtype is that of the input: whoever embeds the
tokens decides it, and each layer casts its own weights to it.
"""

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.types import Array, Float, Int, Key

Initializer = Callable[..., Array]

fan_in_normal = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")
"""T5X's initializer of kernels: normal with variance 1 / (input features)."""


def normal(std: float | None) -> Initializer:
  """Normal with the given standard deviation whatever the shape; None: `fan_in_normal`."""
  return fan_in_normal if std is None else jax.nn.initializers.normal(std)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "linear": lambda x: x,
  "relu": jax.nn.relu,
  "gelu": lambda x: jax.nn.gelu(x, approximate=True),  # the tanh form: T5 1.1, mT5, GPT-2
  "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),
  "silu": jax.nn.silu,
}


class Linear(nnx.Module):
  """`y = x W + b` with a two-dimensional kernel [in, out]; b is an empty slot unless asked for.

  Methods replace this module by one that adopts `kernel` and `bias` and has the same call: the
  input, and a key for whatever randomness the replacement has (a plain linear has none).
  """

  def __init__(
    self,
    features_in: int,
    features_out: int,
    *,
    rngs: nnx.Rngs,
    use_bias: bool = False,
    initializer: Initializer = fan_in_normal,
    param_dtype: str = "float32",
  ):
    shape = (features_in, features_out)
    self.kernel = nnx.Param(initializer(rngs.params(), shape, jnp.dtype(param_dtype)))
    # An empty slot: a plain None would be static to NNX and take no parameter later.
    self.bias = nnx.data(None)
    if use_bias:
      self.bias = nnx.Param(jnp.zeros((features_out,), jnp.dtype(param_dtype)))

  def __call__(
    self, x: Float[Array, "... in"], *, key: Key | None = None
  ) -> Float[Array, "... out"]:
    """In the dtype of x."""
    del key
    y = product(x, self.kernel[...].astype(x.dtype))
    return y if self.bias is None else y + self.bias[...].astype(x.dtype)


def product(x: Float[Array, "... in"], kernel: Float[Array, "in out"]) -> Float[Array, "... out"]:
  """One matrix product over all positions.

  With the leading axes apart, XLA's CPU backend transposes the activations of the backward pass
  element by element (and computes them anew for it), which made an MLP's gradient half as slow again.
  """
  if x.ndim <= 2:
    return x @ kernel
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


class RMSNorm(nnx.Module):
  """T5's layer norm: scaled by the root of the mean square, without mean and without bias."""

  def __init__(self, width: int, *, epsilon: float = 1e-6, param_dtype: str = "float32"):
    self.scale = nnx.Param(jnp.ones((width,), jnp.dtype(param_dtype)))
    self.epsilon = epsilon

  def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """In the dtype of x."""
    wide = x.astype(jnp.float32)  # bfloat16 squares lose the small features
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    # Rounded before the scale, as in T5X and transformers: bfloat16 values depend on the order.
    normal = (wide * jax.lax.rsqrt(mean_square + self.epsilon)).astype(x.dtype)
    return normal * self.scale[...].astype(x.dtype)


class LayerNorm(nnx.Module):
  """Mean 0 and variance 1, then scaled and shifted (Ba et al., 2016, arXiv:1607.06450).

  `bias` is an empty slot with `use_bias=False` (PaLM).
  """

  def __init__(
    self,
    width: int,
    *,
    epsilon: float = 1e-5,
    use_bias: bool = True,
    param_dtype: str = "float32",
  ):
    self.scale = nnx.Param(jnp.ones((width,), jnp.dtype(param_dtype)))
    self.bias = nnx.data(None)
    if use_bias:
      self.bias = nnx.Param(jnp.zeros((width,), jnp.dtype(param_dtype)))
    self.epsilon = epsilon

  def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """In the dtype of x."""
    wide = x.astype(jnp.float32)  # in bfloat16 the mean would cancel what it is subtracted from
    # Of centred values: mean(x^2) - mean(x)^2 would cancel where the mean is large.
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + self.epsilon) * self.scale[...].astype(jnp.float32)
    if self.bias is not None:
      y = y + self.bias[...].astype(jnp.float32)
    return y.astype(x.dtype)


class Embedding(nnx.Module):
  """A table of one vector per token id."""

  def __init__(
    self,
    vocab_size: int,
    width: int,
    *,
    rngs: nnx.Rngs,
    std: float = 1.0,
    lookup: str = "gather",
    param_dtype: str = "float32",
  ):
    """`lookup` is 'gather', or 'one_hot': a matrix product.

    The product costs B*S*V*D operations.  It pays where the vocabulary is small or where the table
    is sharded by rows.

    Raises:
      ConfigError: for another `lookup`.
    """
    if lookup not in ("gather", "one_hot"):
      raise ConfigError(
        f"Embedding lookup {lookup!r} is unknown; use 'gather', or 'one_hot' for a matrix product."
      )
    table = jax.random.normal(rngs.params(), (vocab_size, width), jnp.dtype(param_dtype))
    self.embedding = nnx.Param(table * jnp.asarray(std, table.dtype))
    self.lookup = lookup

  def __call__(self, tokens: Int[Array, "..."], *, dtype: str = "float32") -> Float[Array, "... D"]:
    """The vectors of token ids.  An id outside of the table gives NaN (or 0, one-hot)."""
    table = self.embedding[...].astype(jnp.dtype(dtype))
    if self.lookup == "one_hot":
      return jax.nn.one_hot(tokens, table.shape[0], dtype=table.dtype) @ table
    return jnp.take(table, tokens, axis=0)


class Mlp(nnx.Module):
  """`wo(act_0(wi_0 x) * act_1(wi_1 x))`, or `wo(act(wi x))` for a single activation."""

  def __init__(
    self,
    width: int,
    mlp_width: int,
    *,
    rngs: nnx.Rngs,
    activations: Sequence[str] = ("gelu", "linear"),
    use_bias: bool = False,
    dropout_rate: float = 0.0,
    initializer: Initializer = fan_in_normal,
    param_dtype: str = "float32",
  ):
    unknown = [name for name in activations if name not in ACTIVATIONS]
    if unknown or not activations:
      raise ConfigError(
        f"MLP activations {tuple(activations)} are not valid; name one or more of "
        f"{', '.join(ACTIVATIONS)}."
      )
    self.activations = tuple(activations)
    self.dropout_rate = dropout_rate
    make = functools.partial(
      Linear, rngs=rngs, use_bias=use_bias, initializer=initializer, param_dtype=param_dtype
    )
    for name in self._input_names():
      setattr(self, name, make(width, mlp_width))
    self.wo = make(mlp_width, width)

  def _input_names(self) -> list[str]:
    count = len(self.activations)
    # T5X's names, which checkpoints have.
    return ["wi"] if count == 1 else [f"wi_{i}" for i in range(count)]

  def __call__(self, x: Float[Array, "B L D"], *, key: Key | None = None) -> Float[Array, "B L D"]:
    dropout_key, out_key, *branch_keys = split_key(key, 2 + len(self.activations))
    branches = [
      ACTIVATIONS[activation](getattr(self, name)(x, key=branch_key))
      for name, activation, branch_key in zip(self._input_names(), self.activations, branch_keys)
    ]
    hidden = functools.reduce(operator.mul, branches)
    hidden = dropout(hidden, self.dropout_rate, dropout_key, broadcast=(-2,))
    return self.wo(hidden, key=out_key)


def dropout(
  x: Float[Array, "..."], rate: float, key: Key | None, *, broadcast: Sequence[int] = ()
) -> Float[Array, "..."]:
  """Zeroes each entry with probability `rate` and scales the rest by 1 / (1 - rate).

  `key=None` or rate 0 returns x unchanged.  The same entries are dropped along the axes in
  `broadcast`; T5X does so along the length, which needs far fewer random bits.
  """
  if key is None or rate == 0.0:
    return x
  shape = list(x.shape)
  for axis in broadcast:
    shape[axis] = 1
  keep = jax.random.bernoulli(key, 1.0 - rate, tuple(shape))
  # The mask is divided, not x: with `broadcast` it is by far the smaller one.
  return x * (keep.astype(x.dtype) / jnp.asarray(1.0 - rate, x.dtype))


def split_key(key: Key | None, parts: int) -> Sequence[Key | None]:
  """`parts` keys for as many places of the network; None stays None everywhere.

  One split costs what one `fold_in` does, to run and above all to compile.
  """
  return (None,) * parts if key is None else tuple(jax.random.split(key, parts))
