"""Learning from a teacher on the student's own answers: both are compared where the student goes by itself.

Of each example the student, theta, is asked for an answer y, drawn from its distribution without a look at the
targets.  With q = p_theta(. | x, y_<t) and p = p_teacher(. | c, y_<t), where c is what the teacher reads, the loss of
an example is

  mean over the tokens of y of KL(q || p)            'reverse'
                            or KL(p || q)            'forward'

over the whole vocabulary.  The gradient is that of these divergences with y taken as given; that theta also decides
which y is drawn is left out.  An example counts as one, however long its answer is.

With the student's own average as teacher (`own_teacher`) and a demonstration in its input (`teacher_input`) this is
self-distillation fine-tuning: Shenfeld et al., 2026, "Self-Distillation Enables Continual Learning",
arXiv:2601.19897.  The paper states the reverse divergence; code that goes by its name takes the forward one.

Answers are drawn anew in each step, from the parameters that the step begins with, inside of the step's own program:
they follow from parameters, batch and key alone, so that a run that goes on draws the same.
"""

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import errors
from promot_jax.decoding.forced_tokens import is_end
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Sample
from promot_jax.token_ids import TokenIds
from promot_jax.training import objectives
from promot_jax.training.distillation import Divergence
from promot_jax.training.objectives import Batch, Metrics
from promot_jax.types import Array, Bool, Float, Key

RECIPE_VALUES = ("OnPolicyDistillation",)

Direction = Literal["reverse", "forward"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicyDistillation:
  """The divergence from a teacher on answers that the student draws.

  direction: 'reverse', KL(student || teacher), or 'forward', KL(teacher || student).
  sample: how an answer is drawn; one for each example.
  length: the largest number of tokens of an answer; None: as many as the batch's targets have room for.
  vocabulary_chunk: largest number of logits a token that exist at once in the loss; None = all of them.
  """

  needs_teacher: ClassVar[bool] = True
  reads_teacher: ClassVar[bool] = True
  reads_classes: ClassVar[bool] = False

  direction: Direction = "reverse"
  sample: Sample = dataclasses.field(default_factory=Sample)
  length: int | None = None
  vocabulary_chunk: int | None = None

  def __post_init__(self):
    if self.direction not in get_args(Direction):
      raise errors.ConfigError(
        f"OnPolicyDistillation: direction={self.direction!r} must be 'reverse' or 'forward'."
      )
    if not isinstance(self.sample, Sample) or self.sample.samples != 1:
      raise errors.ConfigError(
        f"OnPolicyDistillation: sample={self.sample!r} must be a strategies.Sample of one sample."
      )
    for name in ("length", "vocabulary_chunk"):
      value = getattr(self, name)
      if value is not None and (type(value) is not int or value < 1):
        raise errors.ConfigError(
          f"OnPolicyDistillation: {name}={value!r} must be None or a whole number of at least 1."
        )

  def __call__(
    self, model: Any, batch: Batch, *, teacher: Any = None, key: Key | None = None
  ) -> tuple[Float[Array, ""], Metrics]:
    if teacher is None:
      raise errors.ConfigError("OnPolicyDistillation has no teacher; give Stage.teacher one.")
    # Without dropout a key is still needed: the same one, so that two validations can be compared.
    drawing, dropout = (jax.random.key(0), None) if key is None else jax.random.split(key)
    answered = self.answered(model, batch, key=drawing)
    weights = answered["decoder_loss_weights"]

    def measure(part: Any, student: Float[Array, "B T C"], taught: Float[Array, "B T C"]):
      first, second = (student, taught) if self.direction == "reverse" else (taught, student)
      return Divergence.of(first, second)

    found = model.readout.fold(
      model.hidden(answered, key=dropout),
      measure,
      Divergence.merge,
      Divergence.of_nothing(weights.shape),
      chunk=self.vocabulary_chunk,
      # Without a key, so without dropout: what is taught does not depend on chance.
      beside=[(teacher.readout, jax.lax.stop_gradient(teacher.hidden(answered)))],
    )
    apart = (found.value * weights).sum(axis=-1)
    tokens = weights.sum(axis=-1)
    # An example that only fills the batch has no tokens: 0, not 0 / 0.
    loss = (apart / jnp.maximum(tokens, 1.0)).sum()
    examples = self.counted(batch)
    return loss, {
      "divergence_from_teacher": (apart.sum(), tokens.sum()),
      "tokens_of_an_answer": (tokens.sum(), examples),
    }

  def answered(self, model: Any, batch: Batch, *, key: Key) -> dict[str, Any]:
    """The batch with answers of the model in place of its targets [B T].

    The token that ends an answer counts, what is behind it does not.
    """
    graphdef, state = nnx.split(model)
    still = nnx.merge(graphdef, jax.tree.map(jax.lax.stop_gradient, state))
    length = self.length or batch["decoder_target_tokens"].shape[1]
    drawn = generate(still, batch, strategy=self.sample, max_length=length, key=key)
    tokens = drawn.tokens[:, 0]  # [B 1 T] -> [B T]
    ids = TokenIds.of(model)
    ends = is_end(tokens, ids).astype(jnp.int32)
    ended = jnp.cumsum(ends, axis=-1) - ends > 0  # before the token
    weights = (~ended & _real(batch)[:, None]).astype(jnp.float32)
    found = {**batch, "decoder_target_tokens": tokens, "decoder_loss_weights": weights}
    if ids.decoder_start is not None:
      start = jnp.full((len(tokens), 1), ids.decoder_start, tokens.dtype)
      found["decoder_input_tokens"] = jnp.concatenate([start, tokens[:, :-1]], axis=1)
    return found

  def normalizer(self, batch: Batch) -> Float[Array, ""]:
    """Examples of the batch; 1 for one without any."""
    return jnp.maximum(self.counted(batch), 1.0)

  def counted(self, batch: Batch) -> Float[Array, ""]:
    """Examples of the batch."""
    return _real(batch).sum(dtype=jnp.float32)

  def whole(self) -> "OnPolicyDistillation":
    """The same loss with all logits at once."""
    return dataclasses.replace(self, vocabulary_chunk=None)


def _real(batch: Batch) -> Bool[Array, "B"]:
  """Which rows are examples: those that only fill a batch have no target that counts."""
  return objectives.target_weights(batch).sum(axis=-1) > 0
