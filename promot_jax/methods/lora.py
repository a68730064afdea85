"""LoRA: low-rank updates of projection matrices (Hu et al., 2021, arXiv:2106.09685).

A linear layer computes x W + s (x A) B with A [in, R] and B [R, out] trained, W frozen, and
s = alpha / R.  B starts at zero, so training starts from the backbone.  The update can be added to W
(`merge`), after which the layer costs what it cost before.

Differences from the paper: none in the formula.  Which projections have an update is a pattern; the
default is the paper's, queries and values of every attention, cross-attention included.  A starts
uniform in +-1/sqrt(in), as in the paper's code and in PEFT.

`decomposed` is DoRA (Liu et al., 2024, arXiv:2402.09353): the column of each output feature has a
trained length m [out], and W + s A B gives its direction only,

    W' = m * (W + s A B) / |W + s A B|        |.| of each column, over the input features

m starts at |W + s A B|, which is |W| while B is zero: training starts from the backbone.  As in section
4.3 the gradient takes the divisor for a constant, that of a kernel which a later stage trains too.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base, linears, lora_formats, lora_initializers, settings
from promot_jax.methods.formats import Formats
from promot_jax.methods.lora_initializers import FromFile, LoRAInitializer, UniformDown
from promot_jax.models import preparation
from promot_jax.models.layers import dropout, product
from promot_jax.types import Array, Float, Key

__all__ = ["FromFile", "LoRA", "LoRAInitializer", "LowRank", "UniformDown"]

RECIPE_VALUES = ("LoRA", "FromFile", "UniformDown")

PART = "lora"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA(base.Method):
  """Low-rank updates of the linear layers that `targets` selects.

  Attributes:
    rank: R.
    alpha: the update is multiplied by alpha / rank; None: by 1.
    targets: patterns of linear layers, such as '.*/(query|key|value|out|wi.*|wo)'.
    dropout_rate: of the input of the update, while training.
    initializer: `UniformDown`, or `FromFile`: what PEFT or another run trained.
    tasks: number of updates; above 1, batches must carry `prompt_ids` [B] in [0, tasks).
    decomposed: DoRA: lengths of the kernels' columns are trained beside the updates; of one task.
  """

  parameters: ClassVar[str] = r".*/lora/(down|up|magnitude)"
  formats: ClassVar[Formats] = lora_formats.FORMATS

  rank: int = 4
  alpha: float | None = None
  targets: paths.Patterns = ".*/(query|value)"
  dropout_rate: float = 0.0
  initializer: LoRAInitializer = dataclasses.field(default_factory=UniformDown)
  tasks: int = 1
  decomposed: bool = False

  def __post_init__(self):
    if not self.targets:
      raise errors.ConfigError(
        f"LoRA.targets is {self.targets!r}; give patterns of linear layers, such as '.*/(query|value)'."
      )
    if not isinstance(self.targets, str):
      object.__setattr__(self, "targets", tuple(self.targets))
    settings.require_counts(self, "rank", "tasks")
    if self.alpha is not None:  # which is that of the rank
      settings.require_numbers(self, "alpha", above=0)
    settings.require_rate(self, "dropout_rate")
    if not callable(self.initializer):
      raise errors.ConfigError(
        f"LoRA.initializer is {self.initializer!r}, which is no initializer; in a gin file write"
        " @lora.UniformDown() or @lora.FromFile()."
      )
    if not isinstance(self.decomposed, bool):
      raise errors.ConfigError(
        f"LoRA.decomposed is {self.decomposed!r}; it must be True (DoRA) or False."
      )
    if self.decomposed and self.tasks > 1:
      raise errors.ConfigError(
        f"LoRA.decomposed=True with LoRA.tasks={self.tasks}: each example would need the column lengths of"
        " a kernel of its own; set tasks=1, or decomposed=False for a bank of plain updates."
      )

  @property
  def printed(self) -> str:  # type: ignore[override]  # of the value: DoRA is LoRA with a setting
    """What training it alone is called in a report."""
    return "DoRA" if self.decomposed else "LoRA"

  @property
  def scale(self) -> float:
    """s, the factor of the update."""
    return 1.0 if self.alpha is None else self.alpha / self.rank

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with an update at each target; the backbone's arrays are shared.

    Raises:
      ConfigError: a pattern selects nothing, updates are attached already, or the initializer's
        values do not fit.
    """
    found = linears.chosen(model, self.targets, field="LoRA.targets")
    keys = jax.random.split(rngs.params(), self.tasks)
    starts = [
      lora_initializers.start(
        self.initializer,
        key,
        model,
        found,
        rank=self.rank,
        scale=self.scale,
        task=task,
        decomposed=self.decomposed,
      )
      for task, key in enumerate(keys)
    ]

    def make(place: linears.Place) -> LowRank:
      down, up, magnitude = starts[0][place.name]
      if self.tasks > 1:  # [... tasks in R]
        down, up = (
          jnp.stack([start[place.name][part] for start in starts], axis=-3) for part in (0, 1)
        )
      if self.decomposed and magnitude is None:
        magnitude = _lengths(_updated(place.linear.kernel[...], down, up, self.scale))
      return LowRank(
        down,
        up,
        magnitude=magnitude,
        scale=self.scale,
        tasks=self.tasks,
        input_dropout=self.dropout_rate,
      )

    return linears.attach(model, found, PART, make)

  def detach(self, model: base.Model) -> base.Model:
    """The model without its updates; kernels that they were merged into come back bit for bit.

    Raises:
      ConfigError: the model has no updates.
    """
    # Their kernels hold the updates: taken off without this, the backbone would stay changed.
    if any(isinstance(linear.lora, Merged) for linear in _linears(model)):
      model = unmerge(model)
    return linears.detach(model, PART)

  def merge(self, model: base.Model) -> base.Model:
    """A plain backbone that computes what the model does: the updates are in its kernels.

    Raises:
      ConfigError: as `merge`.
    """
    return merge(model, keep=False)


class LowRank(linears.Part):
  """A [in, R] and B [R, out] of one linear layer, or a bank [tasks in R], [tasks R out] of them.

  magnitude: m [out] of a decomposed kernel, else an empty slot.
  """

  def __init__(
    self,
    down: Float[Array, "*tasks in R"],
    up: Float[Array, "*tasks R out"],
    *,
    scale: float,
    magnitude: Float[Array, "out"] | None = None,
    tasks: int = 1,
    input_dropout: float = 0.0,
  ):
    self.down = nnx.Param(down)
    self.up = nnx.Param(up)
    self.magnitude = nnx.data(None) if magnitude is None else nnx.Param(magnitude)
    self.scale = scale
    self.tasks = tasks
    self.input_dropout = input_dropout

  def ready(self, call: preparation.Call) -> nnx.Module:
    """Each example's own update, [B in R] and [B R out]."""
    if self.tasks == 1:
      return self
    ids = call.feature(preparation.TASK_ROWS)
    down, up = (preparation.rows(bank[...], ids, axis=-3) for bank in (self.down, self.up))
    return LowRank(down, up, scale=self.scale, input_dropout=self.input_dropout)

  def within(
    self,
    x: Float[Array, "... in"],
    y: Float[Array, "... out"],
    kernel: Float[Array, "in out"],
    *,
    key: Key | None,
  ) -> Float[Array, "... out"]:
    """x W' of a decomposed kernel, from y = x W; y where there is no magnitude."""
    if self.magnitude is None:
      return y
    seen = dropout(x, self.input_dropout, key)
    # What is dropped is missing from all that differs from x W, in which x stays whole: so does PEFT.
    base = y if seen is x else product(seen, kernel.astype(x.dtype))
    factors = _factors(self, jax.lax.stop_gradient(kernel))
    # The difference from 1 is taken in float32: bfloat16 next to 1 has steps of half a per cent.
    change = (factors - 1).astype(y.dtype) * base
    return y + change + factors.astype(y.dtype) * self._update(seen)

  def after(
    self, x: Float[Array, "... in"], y: Float[Array, "... out"], *, key: Key | None
  ) -> Float[Array, "... out"]:
    """y + s (x A) B; y of a decomposed kernel, which has its update already."""
    if self.magnitude is not None:
      return y
    # Of the update's input only: the frozen layer has read x as it is.
    return y + self._update(dropout(x, self.input_dropout, key))

  def _update(self, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
    """s (x A) B."""
    down, up = self.down[...].astype(x.dtype), self.up[...].astype(x.dtype)
    if down.ndim == 2:
      # Through R features: A B as one matrix would cost what a full kernel does.
      update = product(product(x, down), up)
    else:  # one for each example, of which a decode may have several rows
      down, up = (preparation.for_rows(leaf, x.shape[0]) for leaf in (down, up))
      update = jnp.einsum("bli,bir,bro->blo", x, down, up)
    return update * jnp.asarray(self.scale, x.dtype)


class Kept(nnx.Variable):
  """An array that is kept to be put back, and is neither used nor trained."""


class Merged(linears.Part):
  """An update that the kernel contains, and the kernel without it."""

  def __init__(self, part: LowRank, kernel: Float[Array, "in out"]):
    self.down = part.down
    self.up = part.up
    self.magnitude = part.magnitude
    self.scale = part.scale
    self.input_dropout = part.input_dropout
    self.original = Kept(kernel)


def merge(model: base.Model, *, keep: bool = True) -> base.Model:
  """The model with its updates added to the kernels.

  Outputs are equal but for rounding: sums are taken in another order.

  Args:
    model: with LoRA attached.
    keep: whether the kernels as they were are kept, so that `unmerge` and `detach` put them back
      bit for bit; otherwise the result is a plain backbone.

  Raises:
    ConfigError: there are no updates, or they are merged already, or a bank of several tasks.
  """
  found = _linears(model)
  if not found:
    raise errors.ConfigError("The model has no 'lora' to merge.")
  if any(isinstance(linear.lora, Merged) for linear in found):
    raise errors.ConfigError("The model's 'lora' is merged already.")
  if any(linear.lora.tasks > 1 for linear in found):
    raise errors.ConfigError(
      f"The model holds LoRA updates of {found[0].lora.tasks} tasks, and kernels can contain one;"
      " attach the update of one task alone."
    )
  model = paths.copy(model)
  for linear in _linears(model):
    part, kernel = linear.lora, linear.kernel[...]
    merged = _updated(kernel, part.down[...], part.up[...], part.scale)
    if part.magnitude is not None:
      merged = merged * _factors(part, kernel)[..., None, :]
    linear.kernel = nnx.Param(merged.astype(kernel.dtype))
    # The old kernel is kept, since taking the update away again would not give it back bit for bit.
    linear.lora = Merged(part, kernel)
  return model if keep else linears.detach(model, PART)


def unmerge(model: base.Model) -> base.Model:
  """The inverse of `merge`: kernels and updates apart, bit for bit as they were.

  Raises:
    ConfigError: nothing is merged, or the kernels were not kept.
  """
  if not any(isinstance(linear.lora, Merged) for linear in _linears(model)):
    raise errors.ConfigError(
      "The model has no merged 'lora' whose kernels were kept; merge with keep=True to undo it."
    )
  model = paths.copy(model)
  for linear in _linears(model):
    part = linear.lora
    linear.kernel = nnx.Param(part.original[...])
    linear.lora = LowRank(
      part.down[...],
      part.up[...],
      magnitude=None if part.magnitude is None else part.magnitude[...],
      scale=part.scale,
      input_dropout=part.input_dropout,
    )
  return model


def _updated(
  kernel: Float[Array, "*N in out"],
  down: Float[Array, "*N in R"],
  up: Float[Array, "*N R out"],
  scale: float,
) -> Float[Array, "*N in out"]:
  """W + s A B in float32: the small update must not be rounded before it is added."""
  wide = [leaf.astype(jnp.float32) for leaf in (kernel, down, up)]
  return wide[0] + scale * jnp.matmul(wide[1], wide[2], precision="highest")


def _lengths(kernel: Float[Array, "*N in out"]) -> Float[Array, "*N out"]:
  """|W| of each column."""
  return jnp.linalg.norm(kernel, axis=-2)


def _factors(part: LowRank | Merged, kernel: Float[Array, "*N in out"]) -> Float[Array, "*N out"]:
  """m / |W + s A B| in float32, whose divisor has no gradient."""
  down, up = (jax.lax.stop_gradient(leaf[...]) for leaf in (part.down, part.up))
  lengths = _lengths(_updated(kernel, down, up, part.scale))
  # A column of zeros has no direction, and any factor leaves it 0; 0 / 0 would not.
  return part.magnitude[...].astype(jnp.float32) / jnp.where(lengths > 0, lengths, 1)


def _linears(model: nnx.Module) -> list[linears.AdaptedLinear]:
  found = [place.linear for place in linears.with_part(model, PART).values()]
  return [linear for linear in found if isinstance(linear, linears.AdaptedLinear)]
