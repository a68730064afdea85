"""Infix tuning: trained activations between the input and the output, [x; INFIX; y].

The ablation of Li & Liang, 2021 (arXiv:2101.00190, section 7.3): y sees the infix and x does not.  As
in their code, the infix is P trained input vectors that run through the network behind x, and, in
each layer, trained keys and values that are added to those of its positions.  What ends the input
(the separator) stays right before y.

Only a decoder-only model has a place between x and y.
"""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base, settings
from promot_jax.methods import sites as sites_lib
from promot_jax.methods.initializers import Initializer, SampledVocabulary
from promot_jax.models import preparation
from promot_jax.types import Array, Bool, Float

RECIPE_VALUES = ("InfixTuning",)

_SITE = "decoder"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfixTuning(base.Method):
  """Trained vectors between x and y.

  Attributes:
    length: P.
    depth: 'all' = keys and values of every layer too; 'embedding' = the input vectors only.
    initializer: of the input vectors.
    std: of the first keys and values, which are normal.
    tasks: number of infixes; above 1, batches must carry `prompt_ids` [B] in [0, tasks).
  """

  parameters: ClassVar[str] = "decoder/(.*/)?(prompt|prefix)/infix_.*"
  printed: ClassVar[str] = "Infix tuning"

  length: int = 10
  depth: Literal["all", "embedding"] = "all"
  initializer: Initializer = dataclasses.field(default_factory=SampledVocabulary)
  std: float = 0.02
  tasks: int = 1

  def __post_init__(self):
    settings.require_counts(self, "length", "tasks")
    settings.require_numbers(self, "std", least=0)
    if self.depth not in ("all", "embedding"):
      raise errors.ConfigError(f"InfixTuning.depth is {self.depth!r}; use 'all' or 'embedding'.")

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with an infix; the backbone's arrays are shared.

    Raises:
      ConfigError: the model has an encoder, or its prompt or prefix slot is taken.
    """
    if "encoder" in model.stacks:
      raise errors.ConfigError(
        f"An infix stands between x and y, and {type(model).__name__} reads x in its encoder and"
        " writes y in its decoder; at the end of x it would be a soft prompt, which x sees, and"
        " before y a prefix of the decoder: use SoftPrompt or PrefixTuning(sites=['decoder'])."
      )
    found = sites_lib.chosen(model, [_SITE], method="InfixTuning")[_SITE]
    if model.decoder.prompt is not None or sites_lib.occupied(model):
      raise errors.ConfigError(
        "An infix takes the prompt slot and the prefix slots, and one of them is taken; detach the"
        " other method first."
      )
    model = paths.copy(model)
    table = model.token_embedder.embedding.get_value()
    # Two for keys and values, the others one for each task's vectors.
    keys = jax.random.split(rngs.params(), self.tasks + 2)
    vectors = jnp.stack(
      [
        self.initializer(key, (self.length, table.shape[1]), embedding=table, task=task)
        for task, key in enumerate(keys[2:])
      ]
    )
    vectors = vectors if self.tasks > 1 else vectors[0]
    model.decoder.prompt = InfixVectors(vectors, tasks=self.tasks)
    if self.depth == "all":
      layers, *rest = found.shape(self.length)
      # Layers first, then tasks: a scan takes the former off.
      shape = (layers, *([self.tasks] if self.tasks > 1 else []), *rest)
      added = [self.std * jax.random.normal(key, shape) for key in keys[:2]]
      sites_lib.fill(
        model,
        _SITE,
        lambda take: InfixAttention(*(take(leaf) for leaf in added), tasks=self.tasks),
      )
    return model

  def detach(self, model: base.Model) -> base.Model:
    """The model without its infix.

    Raises:
      ConfigError: the model has none.
    """
    if not isinstance(model.reader.prompt, InfixVectors):
      raise errors.ConfigError("The model has no infix to detach.")
    model = paths.copy(model)
    model.decoder.prompt = nnx.data(None)
    sites_lib.empty(model)
    return model


class InfixVectors(preparation.Unready):
  """Input vectors [P D] or a bank [tasks P D] of them, in the prompt slot."""

  def __init__(self, vectors: Float[Array, "*tasks P D"], *, tasks: int = 1):
    self.infix_vectors = nnx.Param(vectors)
    self.tasks = tasks

  def ready(self, call: preparation.Call) -> nnx.Module:
    """Each example's own vectors, [B P D]."""
    if self.tasks == 1:
      return self
    ids = call.feature(preparation.TASK_ROWS)
    return InfixVectors(preparation.rows(self.infix_vectors[...], ids, axis=-3))

  def __call__(
    self, embeddings: Float[Array, "B S D"], mask: Bool[Array, "B S"]
  ) -> tuple[Float[Array, "B S+P+1 D"], Bool[Array, "B S+P+1"]]:
    """x, the infix, and x's last vector again.

    The last real position of x is hidden where it was, so that it is there once.

      x x x . | i i | x      x x x x  S = 4, right-padded; P = 2
      1 1 0 0 | 1 1 | 1      mask
    """
    batch, length, _ = embeddings.shape
    assert self.tasks == 1  # `prepare` has made a bank ready
    vectors = self.infix_vectors[...].astype(embeddings.dtype)
    vectors = jnp.broadcast_to(vectors, (batch, *vectors.shape[-2:]))
    # Arg-max finds the first True: the mask is turned around, as padding may be on either side.
    last = length - 1 - jnp.argmax(mask[:, ::-1], axis=1)  # [B]
    is_last = jnp.arange(length)[None, :] == last[:, None]
    # Moved behind the infix: what ends the input, such as a separator, stays right before y.
    end = jnp.take_along_axis(embeddings, last[:, None, None], axis=1)  # [B 1 D]
    seen = jnp.ones((batch, vectors.shape[1] + 1), mask.dtype)
    return (
      jnp.concatenate([embeddings, vectors, end], axis=1),
      jnp.concatenate([mask & ~is_last, seen], axis=1),
    )


class InfixAttention(preparation.Unready):
  """What is added to the keys and values of the infix, [G P K] or [tasks G P K], in one layer."""

  def __init__(
    self,
    keys: Float[Array, "*tasks G P K"],
    values: Float[Array, "*tasks G P K"],
    *,
    tasks: int = 1,
    start: int | None = None,
  ):
    """`start` is S, the column of the first infix position; None: right before the last column."""
    self.infix_keys = nnx.Param(keys)
    self.infix_values = nnx.Param(values)
    self.tasks = tasks
    self.start = start

  def waits(self, call: preparation.Call) -> bool:
    return self.tasks > 1 or (self.start is None and call.source_length is not None)

  def ready(self, call: preparation.Call) -> nnx.Module:
    added = [self.infix_keys[...], self.infix_values[...]]
    if self.tasks > 1:
      ids = call.feature(preparation.TASK_ROWS)
      added = [preparation.rows(bank, ids, axis=-4) for bank in added]
    # What is ready keeps its start: prepared again, it must not take another one.
    start = call.source_length if self.start is None else self.start
    return InfixAttention(*added, start=start)

  def __call__(
    self,
    keys: Float[Array, "R G L K"],
    values: Float[Array, "R G L K"],
    bias: Float[Array, "1|R 1|H Q L"] | None,
    mask: Bool[Array, "1|R 1 1|Q L"] | None,
  ) -> tuple[
    Float[Array, "R G L K"],
    Float[Array, "R G L K"],
    Float[Array, "1|R 1|H Q L"] | None,
    Bool[Array, "1|R 1 1|Q L"] | None,
  ]:
    """The same shapes: the infix has places of its own already."""
    length = self.infix_keys.shape[-2]
    # When targets come one at a time, these are the columns of x, the infix and x's last vector.
    start = keys.shape[-2] - 1 - length if self.start is None else self.start
    columns = slice(start, start + length)
    # Added to what the trained vectors give there, as in the paper's code.
    keys = keys.at[:, :, columns].add(self.infix_keys[...].astype(keys.dtype))
    values = values.at[:, :, columns].add(self.infix_values[...].astype(values.dtype))
    return keys, values, bias, mask
