"""The network that computes a prompt from a trained table, and is dropped when training is over."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import errors
from promot_jax.methods import settings
from promot_jax.models.layers import ACTIVATIONS, Linear
from promot_jax.models.preparation import Call, Generator
from promot_jax.types import Array, Float, Key

RECIPE_VALUES = ("PromptNetwork",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptNetwork(settings.Settings):
  """Linear layers with an activation between them, from the table's width to the model's.

  Attributes:
    hidden: features of the layers between.
    hidden_layers: their number; P-tuning has 2 with ReLU, the embedding-only form of prefix tuning
      1 with tanh.
    activation: 'tanh' or a name in `models.layers.ACTIVATIONS`.
  """

  hidden: int = 512
  hidden_layers: int = 1
  activation: str = "tanh"

  def __post_init__(self):
    settings.require_counts(self, "hidden", "hidden_layers")
    if self.activation not in _ACTIVATIONS:
      raise errors.ConfigError(
        f"PromptNetwork.activation is {self.activation!r}; use one of {', '.join(_ACTIVATIONS)}."
      )


_ACTIVATIONS = {"tanh": jnp.tanh, **ACTIVATIONS}


class PromptGenerator(Generator):
  """The table [P D], or [tasks P D] with a network for each, and the layers after it."""

  def __init__(
    self,
    network: PromptNetwork,
    table: Float[Array, "*tasks P D"],
    *,
    make: Callable[..., nnx.Module],
    rngs: nnx.Rngs,
  ):
    """`make` gives the module for the prompt slot, of the vectors and `tasks=`."""
    width = table.shape[-1]
    sizes = [width, *[network.hidden] * network.hidden_layers, width]
    self.table = nnx.Param(table)
    self.tasks = table.shape[0] if table.ndim == 3 else 1

    def layer(features_in: int, features_out: int, key: Key) -> Linear:
      return Linear(
        features_in,
        features_out,
        rngs=nnx.Rngs(key),
        use_bias=True,
        # As torch draws linear layers, on which the papers' rates were tuned.
        initializer=jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
      )

    def layers(key: Key) -> nnx.List:
      keys = jax.random.split(key, len(sizes) - 1)
      return nnx.List([layer(*shape_and_key) for shape_and_key in zip(sizes, sizes[1:], keys)])

    key = rngs.params()
    self.layers = (
      # One network for each task, stacked as scanned layers are.
      layers(key) if self.tasks == 1 else jax.vmap(layers)(jax.random.split(key, self.tasks))
    )
    self.activation = network.activation
    self.make = make

  def fill(self, model: nnx.Module, call: Call) -> None:
    """Puts the prompt into the slot of the stack that reads the input."""
    del call
    compute = self._compute if self.tasks == 1 else jax.vmap(self._compute)
    model.reader.prompt = self.make(compute(self.table[...], self.layers), tasks=self.tasks)

  def _compute(self, x: Float[Array, "P D"], layers: nnx.List) -> Float[Array, "P D"]:
    """The prompt of one task."""
    *inner, last = layers
    for layer in inner:
      x = _ACTIVATIONS[self.activation](layer(x))
    return last(x)
