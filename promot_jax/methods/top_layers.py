"""Tuning of the top layers only (FT-TOP2 in Li & Liang, 2021, arXiv:2101.00190).

The last layers of a stack are trained copies (`methods.copies`); the others are frozen, and no
gradient is computed for them or through them.  Scanned layers are split in two scans: the first one
over the frozen layers keeps nothing for the backward pass.  When text is generated with scanned
layers, the caches of both parts are joined at every step, which unrolled layers do not need.

The code of Li & Liang trains the final norm with the layers, and with one of its settings for two
layers also the embedding table, which is GPT-2's output kernel; the paper says "the top-2 layers".
Here the norm is a setting, and the table can be trained in place: add 'token_embedder/.*' to the
stage's `trainable`.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import ClassVar

from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base, copies, settings
from promot_jax.models import stack

RECIPE_VALUES = ("TopLayers",)

ATTRIBUTE = "top_layers"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopLayers(copies.Copying):
  """The last layers of one or both stacks.

  Attributes:
    layers: how many of each stack.
    stacks: 'decoder', 'encoder' or both; the decoder is nearest to the output.
    final_norm: whether the norm after the last layer is trained too, where there is one.
  """

  attribute: ClassVar[str] = ATTRIBUTE
  parameters: ClassVar[str] = "top_layers/.*"
  printed: ClassVar[str] = "Top layers"

  layers: int = 2
  stacks: Sequence[str] = ("decoder",)
  final_norm: bool = True

  def __post_init__(self):
    settings.set_tuple(self, "stacks")
    if not self.stacks or set(self.stacks) - {"encoder", "decoder"}:
      raise errors.ConfigError(
        f"TopLayers.stacks is {list(self.stacks)}; name 'decoder', 'encoder' or both."
      )
    settings.require_counts(self, "layers")

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with copies of its top layers that can be trained.

    Raises:
      ConfigError: the model has no such stack or fewer layers, or the method is attached already.
    """
    del rngs
    names = paths.parameter_names(model)
    chosen: list[str] = []
    for stack_name in self.stacks:
      part = model.stacks.get(stack_name)
      if part is None:
        raise errors.ConfigError(
          f"TopLayers.stacks names the {stack_name}, and {type(model).__name__} has none."
        )
      count = stack.count(part.layers)
      if self.layers > count:
        raise errors.ConfigError(
          f"TopLayers.layers is {self.layers}, and the {stack_name} has {count} layers; fine-tune"
          " the whole model by a stage's `trainable` instead."
        )
      # Names of scanned layers have no number: here all are taken, and `copies` cuts the last off.
      kept = r"layers/(?!\d+/)" if stack.is_scanned(part.layers) else _numbers(count, self.layers)
      chosen += [
        name
        for name in names
        # The second pattern leaves out what other methods have added to these layers.
        if re.match(f"{stack_name}/{kept}", name) and re.fullmatch(copies.OF_LAYERS, name)
      ]
      if self.final_norm:
        norm = rf"{stack_name}/{stack_name}_norm/(scale|bias)"
        chosen += [name for name in names if re.fullmatch(norm, name)]
    return copies.attach(model, ATTRIBUTE, chosen, top=dict.fromkeys(self.stacks, self.layers))


def _numbers(count: int, top: int) -> str:
  """Pattern of the numbers of the last layers."""
  return f"layers/({'|'.join(str(number) for number in range(count - top, count))})/"
