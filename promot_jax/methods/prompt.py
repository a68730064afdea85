"""Prompt tuning: trained vectors before the embedded input (Lester et al., 2021, arXiv:2104.08691).

The encoder, or a decoder-only model, reads [p_1 .. p_P, x_1 .. x_S].  The prompt has positions like
the tokens after it and is attended by everything; with P = 100 and T5 XXL they are 0.004 % of the
weights.  A bank holds one prompt per task, and each example brings the number of its task in
`prompt_ids`, so tasks can be mixed in a batch (multi-task ProMoT, Wang et al., 2024).

With a network the vectors are what it computes from a trained table: P-tuning (Liu et al., 2021,
arXiv:2103.10385), and the embedding-only form of prefix tuning (Li & Liang, 2021).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import base, prompt_formats, settings
from promot_jax.methods.formats import Formats
from promot_jax.methods.initializers import (
  ClassLabels,
  FromArray,
  FromFile,
  FromText,
  Initializer,
  PerTask,
  RandomUniform,
  SampledVocabulary,
)
from promot_jax.methods.prompt_network import PromptGenerator, PromptNetwork
from promot_jax.models import preparation
from promot_jax.types import Array, Bool, Float

__all__ = [
  "ClassLabels",
  "FromArray",
  "FromFile",
  "FromText",
  "Initializer",
  "PerTask",
  "Prompt",
  "PromptNetwork",
  "RandomUniform",
  "SampledVocabulary",
  "SoftPrompt",
  "check_prompt_ids",
  "prompt_count",
]

RECIPE_VALUES = (
  "ClassLabels",
  "FromArray",
  "FromFile",
  "FromText",
  "PerTask",
  "PromptNetwork",
  "RandomUniform",
  "SampledVocabulary",
  "SoftPrompt",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftPrompt(base.Method):
  """A trained prompt before the input: of the encoder, or of a decoder-only model.

  A fixed random prompt is this method with `RandomUniform`, left out of the trainable patterns.

  Attributes:
    length: P, number of vectors.
    tasks: number of prompts; above 1, batches must carry `prompt_ids` [B] in [0, tasks).
    initializer: where the first values come from (promot_jax.methods.initializers); with a network
      those of its table.
    network: what computes the vectors; None: they are the parameters.
  """

  parameters: ClassVar[str] = "(.*/prompt|prompt_network)/.*"
  printed: ClassVar[str] = "Prompt tuning"
  formats: ClassVar[Formats] = prompt_formats.FORMATS
  in_checkpoints: ClassVar[bool] = True

  length: int = 100
  tasks: int = 1
  initializer: Initializer = dataclasses.field(default_factory=RandomUniform)
  network: PromptNetwork | None = None

  def __post_init__(self):
    settings.require_counts(self, "length", "tasks")
    if not callable(self.initializer):
      raise errors.ConfigError(
        f"SoftPrompt.initializer is {self.initializer!r}, which is no initializer; in a gin file"
        " write @initializers.RandomUniform() or another one of promot_jax.methods.initializers."
      )

  def attach(self, model: base.Model, rngs: nnx.Rngs) -> base.Model:
    """The model with a prompt at encoder/prompt or decoder/prompt; the backbone's arrays are shared.

    Raises:
      ConfigError: the model has a prompt already, or the initializer's values do not fit.
    """
    model = paths.copy(model)
    reader = model.reader
    # A network fills the slot only when a call is prepared: until then the slot is empty.
    if reader.prompt is not None or hasattr(model, NETWORK):
      raise errors.ConfigError("The model already has a soft prompt; detach it before attaching.")
    embedding = model.token_embedder.embedding.get_value()
    shape = (self.length, embedding.shape[1])
    keys = jax.random.split(rngs.params(), self.tasks)
    prompts = [
      self.initializer(keys[task], shape, embedding=embedding, task=task)
      for task in range(self.tasks)
    ]
    values = prompts[0] if self.tasks == 1 else jnp.stack(prompts)
    if self.network is None:
      reader.prompt = Prompt(values, tasks=self.tasks)
    else:
      # On the model, not on the stack: a generator fills slots of what it is an attribute of.
      model.prompt_network = PromptGenerator(self.network, values, make=Prompt, rngs=rngs)
    return model

  def detach(self, model: base.Model) -> base.Model:
    """The model without its prompt.

    Raises:
      ConfigError: the model has no prompt.
    """
    model = paths.copy(model)
    reader = model.reader
    if reader.prompt is None and not hasattr(model, NETWORK):
      raise errors.ConfigError("The model has no soft prompt to detach.")
    reader.prompt = nnx.data(None)
    if hasattr(model, NETWORK):
      delattr(model, NETWORK)
    return model

  def fold(self, model: base.Model) -> base.Model:
    """The model with the vectors that its network computes, and without the network.

    Outputs are equal.  A model without a network is returned as it is.
    """
    if not hasattr(model, NETWORK):
      return model
    model = paths.copy(model)
    model.prompt_network.fill(model, preparation.Call())
    delattr(model, NETWORK)
    return model

  def folded(self) -> "SoftPrompt":
    """The method of a folded model."""
    return dataclasses.replace(self, network=None)


NETWORK = "prompt_network"
"""Attribute of the model that holds the network."""


class Prompt(preparation.Unready):
  """The prompt's parameter, [P D] or a bank [tasks P D], and how it joins the input."""

  def __init__(self, values: Float[Array, "*tasks P D"], *, tasks: int = 1):
    self.prompt = nnx.Param(values)
    self.tasks = tasks

  def ready(self, call: preparation.Call) -> nnx.Module:
    """Each example's own prompt, [B P D]."""
    if self.tasks == 1:
      return self
    ids = call.feature(preparation.TASK_ROWS)
    return Prompt(preparation.rows(self.prompt[...], ids, axis=-3))

  def __call__(
    self, embeddings: Float[Array, "B S D"], mask: Bool[Array, "B S"]
  ) -> tuple[Float[Array, "B P+S D"], Bool[Array, "B P+S"]]:
    """Puts the prompt before the embedded input, in the dtype of that; True = a real token."""
    assert self.tasks == 1  # `prepare` has made a bank ready
    prompt = self.prompt[...].astype(embeddings.dtype)
    prompt = jnp.broadcast_to(prompt, (len(embeddings), *prompt.shape[-2:]))
    seen = jnp.ones(prompt.shape[:2], mask.dtype)
    return jnp.concatenate([prompt, embeddings], axis=1), jnp.concatenate([seen, mask], axis=1)


def prompt_count(model: nnx.Module) -> int:
  """Rows of the model's banks of any method: 0 without a bank or a prompt, 1 for a single one.

  Raises:
    ConfigError: two banks of one model have unequal numbers of rows.
  """
  counts = {
    module.tasks
    for _, module in nnx.iter_modules(model)
    if isinstance(getattr(module, "tasks", None), int)
  }
  # Modules of one row are shared by all tasks, and fit beside any bank.
  if len(counts - {1}) > 1:
    raise errors.ConfigError(
      f"The model's methods hold banks of {' and '.join(map(str, sorted(counts - {1})))} tasks; give"
      " all of them the same number."
    )
  return max(counts, default=0)


def check_prompt_ids(prompt_ids: np.ndarray | None, tasks: int) -> None:
  """Host-side check that every example names a prompt that exists; call it where data enters.

  Args:
    prompt_ids: any shape, integers; None where the data carry none.
    tasks: number of prompts, as `prompt_count` tells.

  Raises:
    DataError: an id outside of [0, tasks), or none although there are several prompts.
  """
  if prompt_ids is None:
    if tasks > 1:
      raise errors.DataError(
        f"The model holds {tasks} prompts, but the data carry no 'prompt_ids'; give each task its"
        " prompt's number."
      )
    return
  # On the host, where data enter: on the device an unknown id only becomes NaN.
  ids = np.unique(np.asarray(prompt_ids))
  unknown = ids[(ids < 0) | (ids >= max(tasks, 1))]
  if unknown.size:
    raise errors.DataError(
      f"Prompt ids {unknown.tolist()} are unknown; the model holds {tasks} prompt(s), numbered from"
      " 0."
    )
