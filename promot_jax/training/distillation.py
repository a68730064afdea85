"""Learning from a teacher: the student's distribution over the next token is drawn to the teacher's.

With logits s of the student and t of the teacher at one target token, temperature T and weight w:

  p = softmax(t / T),  q = softmax(s / T)
  loss = c * cross-entropy of the target + w * T^2 * sum(p * (log p - log q)),  c = 1 - w unless it is given

With c = 1 and the pretrained model as teacher the second term is an anchor: learning without forgetting (Li
and Hoiem, 2016, arXiv:1606.09282).

T^2 keeps the two gradients of one size whatever T is.  Hinton et al., 2015, "Distilling the Knowledge in a
Neural Network", section 2.  At T = 1, with a network of a light method as the teacher of one whose weights are
all trained, this is a cocktail, and w its lambda: Hewitt et al., 2021, "Ensembles and Cocktails: Robust
Finetuning for Natural Language Generation", section 4.

Both models see the same batch, targets included (teacher forcing).  Student and teacher are compared
vocabulary part by vocabulary part (`Readout.fold`), so that logits of the two need not exist whole.

The teacher is a model that is asked in each step, or what was kept of its distributions (`top_tokens`,
`teacher_cache`): then the batch has them, and the divergence is theirs.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from promot_jax import errors, limits
from promot_jax.models.readout import AnyReadout, LogSum, Part
from promot_jax.training import losses, objectives
from promot_jax.training.losses import TokenStatistics
from promot_jax.training.objectives import Batch, Metrics, Supervised
from promot_jax.training.top_tokens import LOG_P, TOKENS, AtTokens, tempered
from promot_jax.types import Array, Float, Key

RECIPE_VALUES = ("Distillation",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
  """Cross-entropy of the targets mixed with the divergence of the student from a teacher.

  weight: of the divergence, in [0, 1]; cross-entropy has the rest.  At 0 this is `supervised`, and no teacher
    is asked; at 1 the loss does not depend on what the targets are, only on where they are.
  targets_weight: of the cross-entropy in place of that rest; `weight` may then be any number above 0.
  temperature: both distributions are those of logits divided by it; above 0.
  supervised: the cross-entropy, whose smoothing and z-loss are of it alone; its weights of tokens, its
    normalizer and its part of the vocabulary are those of both.
  """

  needs_teacher: ClassVar[bool] = True
  reads_classes: ClassVar[bool] = False

  weight: float = 0.5
  temperature: float = 1.0
  supervised: Supervised = dataclasses.field(default_factory=Supervised)
  targets_weight: float | None = dataclasses.field(default=None, metadata=objectives.LATER)

  __repr__ = objectives.earlier_text

  @property
  def reads_teacher(self) -> bool:
    return self.weight > 0

  def __post_init__(self):
    if self.targets_weight is None:
      limits.require("Distillation", least=0, most=1, weight=self.weight)
    else:
      limits.require("Distillation with targets_weight", above=0, weight=self.weight)
      limits.require("Distillation", least=0, targets_weight=self.targets_weight)
    limits.require("Distillation", above=0, temperature=self.temperature)

  def __call__(
    self, model: Any, batch: Batch, *, teacher: Any = None, key: Key | None = None
  ) -> tuple[Float[Array, ""], Metrics]:
    # The same program as without a teacher, so that the same bits come out.
    if not self.reads_teacher:
      return self.supervised(model, batch, key=key)
    way = (
      self._of_kept(batch, model.readout.size)
      if TOKENS in batch
      else self._of_model(teacher, batch)
    )
    settings = self.supervised
    targets, weights = batch["decoder_target_tokens"], settings.weights(batch)
    readout = model.readout

    def measure(
      part: Part, student: Float[Array, "B T C"], *taught: Float[Array, "B T C"]
    ) -> tuple[TokenStatistics, Any]:
      return (
        TokenStatistics.of(part, student, targets, size=readout.size),
        way.measure(part, *(tempered(logits, self.temperature) for logits in (student, *taught))),
      )

    # Both measurements in one pass: the student's logits of a part are computed once for the two.
    statistics, found = readout.fold(
      model.hidden(batch, key=key),
      measure,
      lambda one, other: (one[0].merge(other[0]), one[1].merge(other[1])),
      (
        TokenStatistics.of_nothing(targets.shape, size=readout.size),
        way.start,
      ),
      chunk=settings.vocabulary_chunk,
      beside=way.beside,
    )
    terms = losses.weighted_terms(
      statistics,
      targets,
      weights,
      vocabulary_size=readout.size,
      label_smoothing=settings.label_smoothing,
      z_loss=settings.z_loss,
      factor=settings.token_factor,
    )
    apart = (way.value(found) * weights).sum()
    loss = self.weight * self.temperature**2 * apart
    # At 0 left out and not multiplied, which a loss that is not finite would survive.
    share = 1 - self.weight if self.targets_weight is None else self.targets_weight
    if share:
      loss += share * (terms.minimized + terms.z_loss)
    metrics = objectives.token_metrics(terms, batch, model.token_ids.pad, loss=loss)
    return loss, {**metrics, "divergence_from_teacher": (apart, terms.weight)}

  def _of_model(self, teacher: Any, batch: Batch) -> "_Way":
    if teacher is None:
      raise errors.ConfigError("Distillation has no teacher; give Stage.teacher a network.")
    return _Way(
      # Without a key, so without dropout: what is taught does not depend on chance.
      beside=[(teacher.readout, jax.lax.stop_gradient(teacher.hidden(batch)))],
      measure=lambda part, student, taught: Divergence.of(taught, student),
      start=Divergence.of_nothing(batch["decoder_target_tokens"].shape),
      value=lambda found: found.value,
    )

  def _of_kept(self, batch: Batch, size: int) -> "_Way":
    tokens = batch[TOKENS]
    return _Way(
      beside=[],
      measure=lambda part, student: AtTokens.of(part, student, tokens, size=size),
      start=AtTokens.of_nothing(tokens),
      value=lambda found: found.divergence(batch[LOG_P]),
    )

  def normalizer(self, batch: Batch) -> Float[Array, ""] | float:
    """What the loss sum of the whole batch is divided by: the cross-entropy's."""
    return self.supervised.normalizer(batch)

  def whole(self) -> "Distillation":
    """The same loss with all logits at once."""
    return dataclasses.replace(self, supervised=self.supervised.whole())


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Way:
  """How the divergence from the teacher is gathered over the vocabulary.

  beside: what is folded beside the student's readout.
  measure, start: of `readout.fold`, for tempered logits.
  value: the divergence [B T] of what was gathered.
  """

  beside: Sequence[tuple[AnyReadout, Any]]
  measure: Callable[..., Any]
  start: Any
  value: Callable[[Any], Float[Array, "B T"]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Divergence:
  """What KL(p || q) of two distributions over the vocabulary follows from, of some tokens of it.

  p, q: of their logits.
  difference: sum(exp(a - largest a) * (a - b)), a and b the logits of p and q.
  """

  p: LogSum
  q: LogSum
  difference: Float[Array, "... T"]

  @classmethod
  def of(cls, p: Float[Array, "... T C"], q: Float[Array, "... T C"]) -> "Divergence":
    """Of float32 logits."""
    log_sum = LogSum.of(p)
    # Relative to the largest logit, as in `LogSum`: exp of a plain logit would overflow.
    mass = jnp.exp(p - log_sum.largest[..., None])
    difference = (mass * (p - q)).sum(axis=-1)
    return cls(p=log_sum, q=LogSum.of(q), difference=difference)

  @classmethod
  def of_nothing(cls, shape: tuple[int, ...]) -> "Divergence":
    """Of no token of the vocabulary."""
    nothing = LogSum.of_nothing(shape)
    return cls(p=nothing, q=nothing, difference=jnp.zeros(shape))

  def merge(self, other: "Divergence") -> "Divergence":
    """Of the tokens of both."""
    together = self.p.merge(other.p)
    return Divergence(
      p=together,
      q=self.q.merge(other.q),
      # Each part was taken relative to its own largest logit; both are moved to the common one.
      difference=self.difference * jnp.exp(self.p.largest - together.largest)
      + other.difference * jnp.exp(other.p.largest - together.largest),
    )

  @property
  def value(self) -> Float[Array, "... T"]:
    """sum(p * (log p - log q)), at least 0 up to rounding."""
    return self.difference / self.p.total - self.p.value + self.q.value
