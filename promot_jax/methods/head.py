"""A prediction head beside the one that writes: the model says a class instead of a text.

    logits = pooled(encode(x)) @ kernel + bias

Which parameters move is the stage's business: the head alone is probing by gradient descent, the head with
a light method (`Combined([LoRA(), PredictionHead(...)])`) or with the whole backbone is how BERT-like models
are tuned (Devlin et al., 2019, arXiv:1810.04805).  `training.classification.Classification` is the
objective.  The kernel is small and random at the start, so gradients reach the backbone from the first step.
"""

import dataclasses
from typing import ClassVar, Literal

from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base, settings
from promot_jax.models import head

RECIPE_VALUES = ("PredictionHead",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionHead(base.Method):
  """A linear classifier on one vector of the input.

  Attributes:
    classes: how many.
    pooling: 'first' = the first token's vector, 'mean' = the mean over tokens, 'last' = the last
      token's (which of a decoder-only model is the only one that has read all of the input).
    std: standard deviation of the first kernel.
  """

  parameters: ClassVar[str] = "head/(kernel|bias)"
  printed: ClassVar[str] = "Prediction head"

  classes: int = 2
  pooling: Literal["first", "mean", "last"] = "mean"
  std: float = 0.02

  def __post_init__(self):
    settings.require_counts(self, "classes")
    settings.require_numbers(self, "std", least=0)
    if self.pooling not in head.POOLINGS:
      raise errors.ConfigError(
        f"PredictionHead.pooling is {self.pooling!r}; use one of {', '.join(head.POOLINGS)}."
      )

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with a head.

    Raises:
      ConfigError: it has one already.
    """
    if model.head is not None:
      raise errors.ConfigError(
        "The model already has a prediction head; detach it before attaching."
      )
    model = paths.copy(model)
    model.head = head.Head(
      model.config.width, self.classes, pooling=self.pooling, rngs=rngs, std=self.std
    )
    return model

  def detach(self, model: base.Model) -> base.Model:
    """The model without its head.

    Raises:
      ConfigError: it has none.
    """
    if model.head is None:
      raise errors.ConfigError("The model has no prediction head to detach.")
    model = paths.copy(model)
    model.head = nnx.data(None)
    return model
