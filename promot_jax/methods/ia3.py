"""IA3: learned factors of keys, values and mlp activations (Liu et al., 2022, arXiv:2205.05638).

    keys = l_k * (x W_k),  values = l_v * (x W_v),  mlp(x) = (l_ff * hidden) W_o

with vectors l that start at ones, so training starts from the backbone.  A bias is multiplied too, as
PEFT does.  With gated mlps the hidden features are the product of both branches.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base, ia3_formats, linears, settings
from promot_jax.methods.formats import Formats
from promot_jax.models import preparation
from promot_jax.types import Array, Float, Key

RECIPE_VALUES = ("IA3",)

PART = "ia3"


@dataclasses.dataclass(frozen=True, kw_only=True)
class IA3(base.Method):
  """Factors of the outputs or of the inputs of linear layers.

  Attributes:
    outputs: patterns of the linear layers whose output features are scaled; None: none.
    inputs: patterns of those whose input features are scaled; None: none.
    tasks: number of sets of factors; above 1, batches must carry `prompt_ids` [B] in [0, tasks).
  """

  parameters: ClassVar[str] = r".*/ia3/(inputs|outputs)"
  printed: ClassVar[str] = "IA3"
  formats: ClassVar[Formats] = ia3_formats.FORMATS

  outputs: paths.Patterns | None = ".*/(key|value)"
  inputs: paths.Patterns | None = ".*/mlp/wo"
  tasks: int = 1

  def __post_init__(self):
    for name in ("outputs", "inputs"):
      value = getattr(self, name)
      if value is not None and not isinstance(value, str):
        object.__setattr__(self, name, tuple(value))
    if not self.outputs and not self.inputs:
      raise errors.ConfigError("IA3.outputs and IA3.inputs select nothing; give patterns to one.")
    settings.require_counts(self, "tasks")

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with factors of 1; the backbone's arrays are shared.

    Raises:
      ConfigError: a pattern selects nothing, a layer is in both, or factors are attached already.
    """
    del rngs
    scaled = {
      field: linears.chosen(model, patterns, field=f"IA3.{field}") if patterns else {}
      for field, patterns in (("outputs", self.outputs), ("inputs", self.inputs))
    }
    # A layer has one part of a name, and PEFT knows a layer as one or the other, too.
    if both := set(scaled["outputs"]) & set(scaled["inputs"]):
      raise errors.ConfigError(
        f"IA3.outputs and IA3.inputs both select '{min(both)}'; scale one side of a layer."
      )

    def make(place: linears.Place) -> Factors:
      of_inputs = place.name in scaled["inputs"]
      shape = [*([place.layers] if place.layer is None else [])]
      shape += [self.tasks] if self.tasks > 1 else []
      # Layers come first, then tasks: a scan takes the former off.
      factors = jnp.ones((*shape, place.shape[0 if of_inputs else 1]), jnp.float32)
      return Factors(factors, of_inputs=of_inputs, tasks=self.tasks)

    return linears.attach(model, {**scaled["outputs"], **scaled["inputs"]}, PART, make)

  def detach(self, model: base.Model) -> base.Model:
    """The model without its factors.

    Raises:
      ConfigError: the model has none.
    """
    return linears.detach(model, PART)

  def merge(self, model: base.Model) -> base.Model:
    """A plain backbone that computes what the model does: factors are in kernels and biases.

    Raises:
      ConfigError: the model has no factors, or a bank of several tasks.
    """
    found = linears.with_part(model, PART)
    if not found:
      raise errors.ConfigError("The model has no 'ia3' to merge.")
    tasks = max(getattr(place.linear, PART).tasks for place in found.values())
    if tasks > 1:
      raise errors.ConfigError(
        f"The model holds IA3 factors of {tasks} tasks, and kernels can contain one set; attach"
        " that of one task alone."
      )
    model = paths.copy(model)
    # Again, as those found above are places of the model that must stay as it is.
    for place in linears.with_part(model, PART).values():
      linear = place.linear
      assert isinstance(linear, linears.AdaptedLinear)  # it has a part
      _multiply_in(linear, linear.ia3)
    return linears.detach(model, PART)


class Factors(linears.Part):
  """Factors [in] or [out] of one linear layer, or a bank [tasks in|out] of them."""

  def __init__(self, factors: Float[Array, "*tasks F"], *, of_inputs: bool, tasks: int = 1):
    # The side that is not scaled stays an empty slot, so that only one has a parameter.
    self.inputs = nnx.Param(factors) if of_inputs else nnx.data(None)
    self.outputs = nnx.data(None) if of_inputs else nnx.Param(factors)
    self.tasks = tasks

  def ready(self, call: preparation.Call) -> nnx.Module:
    """Each example's own factors, [B in|out]."""
    if self.tasks == 1:
      return self
    ids = call.feature(preparation.TASK_ROWS)
    of_inputs = self.inputs is not None
    bank = self.inputs if of_inputs else self.outputs
    factors = preparation.rows(bank[...], ids, axis=-2)
    return Factors(factors, of_inputs=of_inputs)

  def before(self, x: Float[Array, "... in"]) -> Float[Array, "... in"]:
    """l * x."""
    return self._scaled(self.inputs, x) if self.inputs is not None else x

  def after(
    self, x: Float[Array, "... in"], y: Float[Array, "... out"], *, key: Key | None
  ) -> Float[Array, "... out"]:
    """l * y."""
    return self._scaled(self.outputs, y) if self.outputs is not None else y

  @staticmethod
  def _scaled(factors: nnx.Param, x: Float[Array, "R L F"]) -> Float[Array, "R L F"]:
    """By [F], or by [B F]: one for each example, of which a decode may have several rows."""
    given = factors[...].astype(x.dtype)
    if given.ndim == 2:
      given = preparation.for_rows(given, x.shape[0])[:, None, :]
    return x * given


def _multiply_in(linear: linears.AdaptedLinear, part: Factors) -> None:
  kernel = linear.kernel[...]
  # Factors of inputs scale rows of the kernel and leave the bias; those of outputs scale both.
  if part.inputs is not None:
    linear.kernel = nnx.Param((kernel * part.inputs[...][..., :, None]).astype(kernel.dtype))
    return
  linear.kernel = nnx.Param((kernel * part.outputs[...][..., None, :]).astype(kernel.dtype))
  if linear.bias is not None:
    bias = linear.bias[...]
    linear.bias = nnx.Param((bias * part.outputs[...]).astype(bias.dtype))
