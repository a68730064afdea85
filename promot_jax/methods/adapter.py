"""Adapters: bottlenecks inside of a frozen network (Houlsby et al., 2019, arXiv:1902.00751).

    x + act(x W_down + b_down) W_up + b_up,   W_down [D, R], W_up [R, D], R much smaller than D

| placement | reads | before | norm of its own |
|---|---|---|---|
| 'houlsby' | what attention and mlp give, each | the residual is added | no |
| 'lin' | the result of a layer, the residual added | the next layer | yes |

'lin' is the placement of Lin et al., 2020 (arXiv:2004.03829), which Li & Liang, 2021 compare with:
one adapter for each layer, x + act(norm(x) W_down + b_down) W_up + b_up.  W starts normal with
standard deviation 1e-3 (Houlsby et al.'s code, there truncated) and biases at zero, so the network
starts nearly as it was.

What differs from Houlsby et al.: their backbone is a BERT, whose norms follow the residual and are
trained too; here norms are trained with `train_norms`.  Attention to the encoder's output, which a
BERT has not, gets an adapter with `cross_attention`.
"""

import dataclasses
import numbers
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base, copies, linears, settings
from promot_jax.models import stack
from promot_jax.models.layers import ACTIVATIONS, LayerNorm, product
from promot_jax.types import Array, Float, Key

RECIPE_VALUES = ("Adapter",)

PART = "adapter"
NORMS = "adapter_norms"
"""Attribute of the model that holds trained norms."""
_NORMS = r"(encoder|decoder)/(layers/(\d+/)?)?\w+norm/(scale|bias)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter(base.Method):
  """A bottleneck in every layer.

  Attributes:
    bottleneck: R; None where `share` decides it.
    share: own parameters over those of the backbone, such as 0.03 or 0.001; the nearest R is taken.
    placement: 'houlsby' or 'lin', see the module.
    cross_attention: whether attention to the encoder's output has one ('houlsby').
    activation: a name in `models.layers.ACTIVATIONS`; None: 'gelu' of 'houlsby', 'relu' of 'lin'.
    train_norms: whether the backbone's norms are trained too, as copies that go with the adapters;
      `share` does not count them.
    std: standard deviation of the first kernels.
  """

  parameters: ClassVar[str] = r"(.*/adapter|adapter_norms)/.*"
  printed: ClassVar[str] = "Adapters"

  bottleneck: int | None = 64
  share: float | None = None
  placement: Literal["houlsby", "lin"] = "houlsby"
  cross_attention: bool = False
  activation: str | None = None
  train_norms: bool = False
  std: float = 1e-3

  def __post_init__(self):
    # Exactly one of them: the other one follows.
    if (self.bottleneck is None) == (self.share is None):
      raise errors.ConfigError(
        f"Adapter.bottleneck is {self.bottleneck} and Adapter.share is {self.share}; set one of them"
        " and the other one to None."
      )
    settings.require_counts(self, optional=("bottleneck",))
    settings.require_numbers(self, "std", least=0)
    if self.share is not None and not (
      isinstance(self.share, numbers.Real) and 0.0 < self.share < 1.0
    ):
      raise errors.ConfigError(
        f"Adapter.share is {self.share!r}; it is a fraction, 0.03 for 3 % of the backbone."
      )
    if self.placement not in ("houlsby", "lin"):
      raise errors.ConfigError(f"Adapter.placement is {self.placement!r}; use 'houlsby' or 'lin'.")
    if self.activation is not None and self.activation not in ACTIVATIONS:
      raise errors.ConfigError(
        f"Adapter.activation is {self.activation!r}; use one of {', '.join(ACTIVATIONS)}."
      )

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with adapters; the backbone's arrays are shared.

    Raises:
      ConfigError: the model has no place for them or has adapters already, or `share` is less than
        the smallest ones have.
    """
    # Both placements are looked for: two adapters would share the names of their parameters.
    if linears.with_part(model, PART) or _layers_with_adapter(model):
      raise errors.ConfigError("The model already has adapters; detach them before attaching.")
    places = self._places(model)
    # Before copies of norms are added: `share` is of the backbone alone.
    count = paths.count(model)
    if self.train_norms:
      names = paths.match(_NORMS, paths.parameter_names(model))
      model = copies.attach(model, NORMS, names)
    width = self._width(places, count)
    # One key for all places, which each of them mixes with its own role (`Place.draw`).
    key = rngs.params()
    if self.placement == "houlsby":

      def make(place: linears.Place) -> AfterLinear:
        return AfterLinear(self._kernels(place, key, width), self._activation)

      return linears.attach(model, places, PART, make)
    model = paths.copy(model)
    # Both go through the stacks and their layers in the same order.
    for layer, site in zip(_layers(model), places.values()):
      layer.adapter = AfterLayer(self._kernels(site, key, width), self._activation)
    return model

  def detach(self, model: base.Model) -> base.Model:
    """The model without adapters, its norms as they were.

    Raises:
      ConfigError: the model has none.
    """
    # Asked of the model, not of the settings: it may be of a method with others.
    if hasattr(model, NORMS):
      model = copies.detach(model, NORMS)
    filled = _layers_with_adapter(model)
    if not filled:
      return linears.detach(model, PART)
    model = paths.copy(model)
    for layer in _layers_with_adapter(model):
      layer.adapter = nnx.data(None)
    return model

  def _places(self, model: nnx.Module) -> dict[str, linears.Place]:
    """The linear layers whose results adapters read; for 'lin' one stands for each layer."""
    # The last linear layer of a sublayer stands for it: its place tells the width and the layers.
    patterns = [".*/mlp/wo"]
    if self.placement == "houlsby":
      patterns.append(
        r".*/\w*attention/out" if self.cross_attention else ".*/(self_)?attention/out"
      )
    return linears.chosen(model, patterns, field="Adapter.placement")

  def _width(self, places: dict[str, linears.Place], backbone: int) -> int:
    if self.bottleneck is not None:
      return self.bottleneck
    assert self.share is not None
    # A place of scanned layers stands for one adapter in each of them.
    number = sum(place.layers if place.layer is None else 1 for place in places.values())
    width = next(iter(places.values())).shape[1]
    # Parameters of one adapter are slope * bottleneck + fixed: two kernels and the first bias, and
    # the second bias, for 'lin' with the scale and the bias of its norm.
    fixed = width * (3 if self.placement == "lin" else 1)
    slope = 2 * width + 1
    found = round((self.share * backbone / number - fixed) / slope)
    if found < 1:
      smallest = number * (slope + fixed) / backbone
      raise errors.ConfigError(
        f"Adapter.share is {self.share:g}, and {number} adapters of the smallest size are"
        f" {smallest:.3g} of this backbone's {backbone:,} parameters; give at least that."
      )
    return found

  def _kernels(
    self, place: linears.Place, key: Key, bottleneck: int
  ) -> tuple[Float[Array, "*N D R"], Float[Array, "*N R D"]]:
    """W_down and W_up; R is the width of the bottleneck."""
    width = place.shape[1]

    def kernel(own_key: Key, shape: tuple[int, int]) -> Array:
      return place.draw(own_key, lambda k: self.std * jax.random.normal(k, shape))

    down_key, up_key = jax.random.split(key)
    return kernel(down_key, (width, bottleneck)), kernel(up_key, (bottleneck, width))

  @property
  def _activation(self) -> str:
    return self.activation or {"houlsby": "gelu", "lin": "relu"}[self.placement]


class Affine(nnx.Module):
  """x W + b."""

  def __init__(self, kernel: Float[Array, "*N in out"]):
    """Of scanned layers there are N; the bias starts at 0."""
    self.kernel = nnx.Param(kernel)
    self.bias = nnx.Param(jnp.zeros((*kernel.shape[:-2], kernel.shape[-1]), kernel.dtype))

  def __call__(self, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
    return product(x, self.kernel[...].astype(x.dtype)) + self.bias[...].astype(x.dtype)


class AfterLinear(linears.Part):
  """A bottleneck behind the last linear layer of attention or mlp."""

  def __init__(self, kernels: tuple[Array, Array], activation: str):
    self.down, self.up = map(Affine, kernels)
    self.activation = activation

  def after(
    self, x: Float[Array, "... in"], y: Float[Array, "... D"], *, key: Key | None
  ) -> Float[Array, "... D"]:
    """y + bottleneck(y)."""
    return y + self.up(ACTIVATIONS[self.activation](self.down(y)))


class AfterLayer(nnx.Module):
  """A bottleneck behind a whole layer, with a norm of its own."""

  def __init__(self, kernels: tuple[Array, Array], activation: str):
    self.down, self.up = map(Affine, kernels)
    self.activation = activation
    # LayerNorm makes one layer's parameters; those of scanned layers take their place.
    shape = self.up.bias.shape  # [D], or [N D] of scanned layers
    self.norm = LayerNorm(shape[-1])
    self.norm.scale = nnx.Param(jnp.ones(shape))
    self.norm.bias = nnx.Param(jnp.zeros(shape))

  def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """x + bottleneck(norm(x))."""
    return x + self.up(ACTIVATIONS[self.activation](self.down(self.norm(x))))


def _layers(model: nnx.Module) -> list[nnx.Module]:
  """Modules that stand for all layers, those of the encoder first."""
  return [layer for part in model.stacks.values() for layer in stack.members(part.layers)]


def _layers_with_adapter(model: nnx.Module) -> list[nnx.Module]:
  return [layer for layer in _layers(model) if layer.adapter is not None]
