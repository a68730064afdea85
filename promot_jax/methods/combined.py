"""Several methods at once, as one: a prompt and LoRA, a prefix and trained biases."""

import dataclasses
from collections.abc import Sequence

from flax import nnx

from promot_jax import errors
from promot_jax.methods import base

RECIPE_VALUES = ("Combined",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combined(base.Method):
  """Methods attached one after the other, and detached in the opposite order.

  Attributes:
    methods: at least one.  Stages train a part of them by pattern, so one may be trained in the first
      stage and another one in the second.
  """

  methods: Sequence[base.Method]

  def __post_init__(self):
    # gin gives a list, and a method has to be hashable.
    object.__setattr__(self, "methods", tuple(self.methods))
    if not self.methods:
      raise errors.ConfigError("Combined.methods is empty; name at least one method.")
    for method in self.methods:
      if not isinstance(method, base.Method):
        raise errors.ConfigError(
          f"Combined.methods has {method!r}, which is no method; in a gin file write @prompt.SoftPrompt()"
          " or another one of promot_jax.methods."
        )

  @property
  def parameters(self) -> str:  # type: ignore[override]
    """Pattern of the parameters that any of the methods adds."""
    return "|".join(f"(?:{method.parameters})" for method in self.methods)

  @property
  def printed(self) -> str:  # type: ignore[override]
    """The names of the methods."""
    return " and ".join(part.printed for part in self.parts)

  @property
  def tasks(self) -> int:
    """Rows of the methods' banks; 1 without a bank."""
    return max(method.tasks for method in self.methods)

  @property
  def parts(self) -> Sequence[base.Method]:
    """The methods."""
    return [part for method in self.methods for part in method.parts]

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with all methods.

    Raises:
      ConfigError: as each method, for example where two want the same slot.
    """
    for method in self.methods:
      model = method.attach(model, rngs)
    return model

  def detach(self, model: base.Model) -> base.Model:
    """The backbone.

    Raises:
      ConfigError: one of them is not attached.
    """
    for method in reversed(self.methods):
      model = method.detach(model)
    return model

  def fold(self, model: base.Model) -> base.Model:
    """The model without the networks that are only needed in training; outputs are equal."""
    for method in self.methods:
      model = method.fold(model)
    return model

  def folded(self) -> "Combined":
    """The method of a folded model."""
    return Combined(methods=[method.folded() for method in self.methods])
