"""BitFit: only biases are trained (Ben Zaken et al., 2022, arXiv:2106.10199).

A backbone without biases (T5, LLaMA) has the scales of its norms trained instead, which is not in the
paper; it is the smallest set of vectors that acts on every layer there.

The trained vectors are copies that the network uses in place of its own (`methods.copies`), so taking
the method off leaves the backbone as it was.  The bias of a key projection moves all scores of a query
alike and has no effect; it is trained with the others, as in the paper.
"""

import dataclasses
from typing import ClassVar

from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base, copies

RECIPE_VALUES = ("BitFit",)

ATTRIBUTE = "bitfit"
_NORM = r"(encoder|decoder)/(layers/(\d+/)?)?\w+norm"
BIASES = rf"((encoder|decoder)/layers/(\d+/)?(\w*attention|mlp)/\w+|{_NORM})/bias"
"""Biases of linear layers and of norms; not position biases, which are tables of the stack."""
SCALES = rf"{_NORM}/scale"
"""Scales of norms."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BitFit(copies.Copying):
  """Trained biases, or norm scales where there are none.

  Attributes:
    targets: patterns of the backbone's parameters that are trained; None: `BIASES`, or `SCALES` of a
      backbone that has no biases.  Any patterns make any part of the backbone trainable and
      removable.
  """

  attribute: ClassVar[str] = ATTRIBUTE
  parameters: ClassVar[str] = "bitfit/.*"
  printed: ClassVar[str] = "BitFit"

  targets: paths.Patterns | None = None

  def __post_init__(self):
    if self.targets is not None and not isinstance(self.targets, str):
      object.__setattr__(self, "targets", tuple(self.targets))

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with a copy of its biases that can be trained.

    Raises:
      ConfigError: a pattern selects nothing, or the method is attached already.
    """
    del rngs
    names = paths.parameter_names(model)
    if self.targets is not None:
      return copies.attach(model, ATTRIBUTE, paths.match(self.targets, names))
    # A backbone without biases has its norms trained: tried in this order, as most have both.
    for pattern in (BIASES, SCALES):
      try:
        return copies.attach(model, ATTRIBUTE, paths.match(pattern, names))
      except paths.PathError:
        continue
    raise errors.ConfigError(
      f"BitFit finds neither biases nor norms in {type(model).__name__}; name the parameters in"
      " BitFit.targets."
    )
