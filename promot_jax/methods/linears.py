"""Linear layers of a backbone, and what methods put beside their kernels.

A method names layers by a pattern and adds a part to each.  The layer's own parameters keep their
paths: beside `decoder/layers/0/mlp/wo/kernel` comes `decoder/layers/0/mlp/wo/lora/down`.  Parts of
several methods may stand at one layer; they work in the order in which they were attached.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterable

import jax
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base
from promot_jax.models import preparation, stack
from promot_jax.models.attention import Attention
from promot_jax.models.layers import Linear, Mlp, product, split_key
from promot_jax.types import Array, Float, Key


class Part(preparation.Unready):
  """What one method adds to one linear layer; scanned layers have one with a leading layer axis."""

  def before(self, x: Float[Array, "... in"]) -> Float[Array, "... in"]:
    """The input that the layer reads instead of x."""
    return x

  def within(
    self,
    x: Float[Array, "... in"],
    y: Float[Array, "... out"],
    kernel: Float[Array, "in out"],
    *,
    key: Key | None,
  ) -> Float[Array, "... out"]:
    """What takes the place of y = x W; the bias comes after it.  `kernel` is W as it is kept."""
    del x, kernel, key
    return y

  def after(
    self, x: Float[Array, "... in"], y: Float[Array, "... out"], *, key: Key | None
  ) -> Float[Array, "... out"]:
    """What the layer gives instead of y, of the input x that it has read."""
    del x, key
    return y


class AdaptedLinear(nnx.Module):
  """A linear layer with parts of methods, as attributes of the methods' names.

  It adopts the parameters of the layer that it replaces and has the same call.
  """

  def __init__(self, linear: Linear):
    # The variables themselves, not wrapped once more: their paths in the tree stay what they were.
    self.kernel = linear.kernel
    self.bias = nnx.data(None)
    if linear.bias is not None:
      self.bias = linear.bias
    self.parts: tuple[str, ...] = ()

  def __call__(
    self, x: Float[Array, "... in"], *, key: Key | None = None
  ) -> Float[Array, "... out"]:
    """In the dtype of x; `key` is for what the parts draw."""
    parts = [getattr(self, name) for name in self.parts]
    # First all that changes the input, so that each `after` sees what the layer has read.
    for part in parts:
      x = part.before(x)
    keys = split_key(key, len(parts))
    kernel = self.kernel[...]
    y = product(x, kernel.astype(x.dtype))
    # Another kernel is another product, to which the layer adds its bias as it is.
    for part, part_key in zip(parts, keys):
      y = part.within(x, y, kernel, key=part_key)
    if self.bias is not None:
      y = y + self.bias[...].astype(x.dtype)
    for part, part_key in zip(parts, keys):
      y = part.after(x, y, key=part_key)
    return y


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """Where a linear layer is: an attribute of an attention or mlp.

  name: its path, 'decoder/layers/0/mlp/wo'; of scanned layers without a number.
  role: its path in any layer of any form, 'decoder/mlp/wo'.
  layer: its layer; None: it stands for all scanned ones.
  layers: how many layers the stack has.
  """

  name: str
  role: str
  parent: nnx.Module
  attribute: str
  layer: int | None
  layers: int

  @property
  def linear(self) -> Linear | AdaptedLinear:
    return getattr(self.parent, self.attribute)

  @property
  def shape(self) -> tuple[int, int]:
    """(input features, output features)."""
    features_in, features_out = self.linear.kernel.shape[-2:]
    return features_in, features_out

  @property
  def layer_names(self) -> list[str]:
    """Its names in an unrolled network: one, or those of all layers if they are scanned."""
    if self.layer is not None:
      return [self.name]
    stack_name, rest = self.role.split("/", 1)
    return [f"{stack_name}/layers/{number}/{rest}" for number in range(self.layers)]

  def draw(self, key: Key, make: Callable[[Key], Array]) -> Array:
    """`make(key)` with the layer's own key; of scanned layers [N ...], with equal values."""
    # By role and layer, not by order: other targets do not change what a layer starts with, and
    # scanned layers start as unrolled ones do.
    keys = jax.random.split(jax.random.fold_in(key, zlib.crc32(self.role.encode())), self.layers)
    return jax.vmap(make)(keys) if self.layer is None else make(keys[self.layer])


def places(model: nnx.Module) -> dict[str, Place]:
  """All linear layers of attention and mlp by name, in the order of the layers.

  Embeddings and the output kernel are none of them: logits read those as arrays.
  """
  found = {}
  for stack_name, part in model.stacks.items():
    layers = part.layers
    scanned = stack.is_scanned(layers)
    for number, layer in enumerate([layers] if scanned else layers):
      for block_name, block in vars(layer).items():
        # By type of the block: a layer holds norms and adapters as well, which are no targets.
        if not isinstance(block, Attention | Mlp):
          continue
        for attribute, linear in vars(block).items():
          if isinstance(linear, Linear | AdaptedLinear):
            where = f"{stack_name}/layers" if scanned else f"{stack_name}/layers/{number}"
            place = Place(
              name=f"{where}/{block_name}/{attribute}",
              role=f"{stack_name}/{block_name}/{attribute}",
              parent=block,
              attribute=attribute,
              layer=None if scanned else number,
              layers=stack.count(layers),
            )
            found[place.name] = place
  return found


def chosen(model: nnx.Module, patterns: paths.Patterns, *, field: str) -> dict[str, Place]:
  """The linear layers that patterns select (`paths.match`, whole names).

  Args:
    field: of the method, for messages: 'LoRA.targets'.

  Raises:
    ConfigError: the network has no linear layers, or a pattern selects none of them.
  """
  found = places(model)
  if not found:
    raise errors.ConfigError(
      f"{field} needs linear layers of attention or mlp, and {type(model).__name__} has none."
    )
  try:
    names = paths.match(patterns, found)
  except paths.PathError as error:
    if "regular expression" in str(error):
      raise errors.ConfigError(f"{field}: {error}") from None
    # Kinds only: of all layers the list would fill a screen.
    kinds = list(dict.fromkeys(place.role.rsplit("/", 1)[1] for place in found.values()))
    raise errors.ConfigError(
      f"{field} {patterns!r} selects no linear layer of {type(model).__name__}, or a part of it"
      f" selects none. Its linear layers are: {', '.join(kinds)}; a pattern matches a whole name,"
      f" such as '{next(iter(found))}', so '.*/{kinds[0]}' means all of a kind."
    ) from None
  return {name: found[name] for name in names}


def add(place: Place, name: str, part: Part) -> None:
  """Puts a part to a linear layer, in place.

  Raises:
    ConfigError: there is one of this name.
  """
  linear = place.linear
  if isinstance(linear, Linear):
    # One wrapper for all methods: parts of several are added to it side by side.
    linear = AdaptedLinear(linear)
    setattr(place.parent, place.attribute, linear)
  if name in linear.parts:
    raise errors.ConfigError(
      f"The model already has '{name}' at '{place.name}'; detach it before attaching."
    )
  setattr(linear, name, part)
  linear.parts = (*linear.parts, name)


def remove(model: nnx.Module, name: str) -> list[str]:
  """Takes away all parts of a name, in place; gives the names of their layers."""
  found = with_part(model, name)
  # What it gives is not used, but making a linear layer asks for one.
  rngs = nnx.Rngs(0)
  for place in found.values():
    adapted = place.linear
    assert isinstance(adapted, AdaptedLinear)  # it has a part
    delattr(adapted, name)
    adapted.parts = tuple(other for other in adapted.parts if other != name)
    # The last part takes the wrapper along: what is left is the plain layer, as it was.
    if not adapted.parts:
      setattr(place.parent, place.attribute, _plain(adapted, rngs))
  return list(found)


def with_part(model: nnx.Module, name: str) -> dict[str, Place]:
  """The linear layers that have a part of this name."""
  return {
    key: place
    for key, place in places(model).items()
    if isinstance(place.linear, AdaptedLinear) and name in place.linear.parts
  }


def attach(
  model: base.Model, found: Iterable[str], name: str, make: Callable[[Place], Part]
) -> base.Model:
  """A copy of the model with a part at each of the named layers; arrays are shared.

  Raises:
    ConfigError: a part of this name is attached already.
  """
  if taken := with_part(model, name):
    raise errors.ConfigError(
      f"The model already has '{name}' at {len(taken)} linear layers; detach it before attaching."
    )
  # Modules are copied, arrays are not: the backbone of the caller stays as it is.
  model = paths.copy(model)
  copied = places(model)
  for key in found:
    add(copied[key], name, make(copied[key]))
  return model


def detach(model: base.Model, name: str) -> base.Model:
  """A copy of the model without the parts of this name.

  Raises:
    ConfigError: there is none.
  """
  model = paths.copy(model)
  if not remove(model, name):
    raise errors.ConfigError(f"The model has no '{name}' to detach.")
  return model


def _plain(adapted: AdaptedLinear, rngs: nnx.Rngs) -> Linear:
  """The layer that was replaced, with its parameters."""
  # Of no size, for its parameters are replaced at once.
  linear = Linear(1, 1, rngs=rngs, initializer=lambda key, shape, dtype: adapted.kernel[...])
  linear.kernel = adapted.kernel
  if adapted.bias is not None:
    linear.bias = adapted.bias
  return linear
