"""Where the first values of a soft prompt come from.

An initializer is a value; called with a key, the shape [P, D], the vocabulary's embedding table
[V, D] and the number of the task, it gives the rows of one prompt in float32.  The choices are
those of Lester et al. (2021, arXiv:2104.08691) and of its released code.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import prompt_files
from promot_jax.methods import files, prompt_formats, settings
from promot_jax.methods.formats import Context, Formats, Stored
from promot_jax.types import Array, Float, Key

RECIPE_VALUES = (
  "RandomUniform",
  "SampledVocabulary",
  "ClassLabels",
  "FromText",
  "FromArray",
  "FromFile",
  "PerTask",
)


class Initializer(Protocol):
  """Gives the rows of one prompt, [P, D] float32.

  Raises:
    ConfigError: the values it stands for do not fit `shape` or the vocabulary.
  """

  def __call__(
    self, key: Key, shape: tuple[int, int], *, embedding: Float[Array, "V D"], task: int = 0
  ) -> Float[Array, "P D"]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomUniform:
  """Every value uniform in [lowest, scale).

  The defaults are what the released code draws; the paper's text says [-0.5, 0.5), which is
  `lowest=-0.5`.
  """

  scale: float = 0.5
  lowest: float = 0.0

  def __post_init__(self):
    settings.require_numbers(self, "scale", "lowest")

  def __call__(self, key, shape, *, embedding, task=0):
    if not self.lowest < self.scale:
      raise errors.ConfigError(
        f"RandomUniform draws from [lowest, scale), and [{self.lowest}, {self.scale}) is empty;"
        " choose scale above lowest."
      )
    return jax.random.uniform(key, shape, jnp.float32, self.lowest, self.scale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledVocabulary:
  """Rows of the embedding table, drawn from its first `population` rows (its commonest tokens).

  Drawn without replacement, unless the prompt is longer than the population.  None: all rows.
  """

  population: int | None = 5000

  def __call__(self, key, shape, *, embedding, task=0):
    if self.population is not None and self.population < 1:
      raise errors.ConfigError(
        f"SampledVocabulary.population is {self.population}; it must be at least 1."
      )
    rows = embedding.shape[0]
    population = rows if self.population is None else min(self.population, rows)
    # Distinct rows, as far as there are enough of them.
    ids = jax.random.choice(key, population, shape[:1], replace=shape[0] > population)
    return embedding[ids].astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassLabels:
  """Row i is the i-th label: the mean embedding of the label's tokens.

  Attributes:
    labels: token ids of each label, without EOS.
    fill: initializer of the rows after the last label; None repeats the labels in order.
  """

  labels: Sequence[Sequence[int]]
  fill: Initializer | None = dataclasses.field(default_factory=SampledVocabulary)

  def __call__(self, key, shape, *, embedding, task=0):
    if not self.labels or not all(len(label) for label in self.labels):
      raise errors.ConfigError(
        f"ClassLabels needs at least one label and no empty one, and has {list(self.labels)}."
      )
    _check_fits("class labels", len(self.labels), shape)
    for label in self.labels:
      _check_ids(label, embedding)
    # In float32: a mean of bfloat16 vectors would be rounded at every sum.
    rows = jnp.stack(
      [embedding[np.asarray(label)].astype(jnp.float32).mean(axis=0) for label in self.labels]
    )
    if self.fill is None:
      return rows[np.arange(shape[0]) % len(self.labels)]
    # All rows are drawn and the first ones overwritten: the rest does not depend on how many those
    # are.
    return self.fill(key, shape, embedding=embedding, task=task).at[: len(rows)].set(rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromText:
  """Row i is the embedding of the i-th token of a text.

  Attributes:
    ids: token ids of the text, without EOS.
    fill: initializer of the rows after the text; None repeats the text.
  """

  ids: Sequence[int]
  fill: Initializer | None = dataclasses.field(default_factory=SampledVocabulary)

  def __call__(self, key, shape, *, embedding, task=0):
    if not len(self.ids):
      raise errors.ConfigError("FromText has no token; give the token ids of a text.")
    _check_fits("tokens of text", len(self.ids), shape)
    _check_ids(self.ids, embedding)
    rows = embedding[np.asarray(self.ids)].astype(jnp.float32)
    if self.fill is None:
      return rows[np.arange(shape[0]) % len(self.ids)]
    return self.fill(key, shape, embedding=embedding, task=task).at[: len(rows)].set(rows)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FromArray:
  """Given values: [P, D] for every task, or [tasks, P, D] with each task's own."""

  array: Any

  def __call__(self, key, shape, *, embedding, task=0):
    return _given_rows(np.asarray(self.array), shape, task, "FromArray")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromFile:
  """What another run or another project trained: a prompt, a prefix, low-rank updates.

  Each method takes its own values, in any of the formats that it has (`methods.files`); of a file of
  several tasks, each task its own.

  Attributes:
    path: a method file, a step of a run, an adapter of PEFT; of a prompt also a .npy or .npz file or
      a checkpoint of T5X (all forms: promot_jax.checkpoints.prompt_files).
    name: which array of an .npz file; not needed when it holds only one.
  """

  path: str | os.PathLike
  name: str | None = None

  def __call__(self, key, shape, *, embedding, task=0):
    """The rows of a prompt."""
    found = self.stored(prompt_formats.FORMATS)
    prompt = np.asarray(prompt_files.prompt_of(found.leaves, where=os.fspath(self.path)))
    return _given_rows(prompt, shape, task, f"prompt file '{self.path}'")

  def stored(self, formats: Formats, config: Any = None) -> Stored:
    """What the file holds of a method with these formats; `config`: of the backbone."""
    return files.stored(self.path, formats, Context(config=config, name=self.name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerTask:
  """A different initializer for each task of a bank, in the order of the tasks.

  Of prompts, prefixes and low-rank updates alike: what it is called with goes to the task's own.
  """

  initializers: Sequence[Any]

  def __call__(self, *args: Any, task: int = 0, **given: Any) -> Any:
    return self.of(task)(*args, task=task, **given)

  def of(self, task: int) -> Any:
    """The initializer of a task.

    Raises:
      ConfigError: there is none.
    """
    if task >= len(self.initializers):
      raise errors.ConfigError(
        f"PerTask has {len(self.initializers)} initializers and none for task number {task};"
        " give one for each task."
      )
    return self.initializers[task]


def of_task(initializer: Any, task: int) -> Any:
  """The initializer that gives the values of a task: of `PerTask` the task's own.

  Raises:
    ConfigError: `PerTask` has none for it.
  """
  # One within another is allowed: each is asked for the same task.
  while isinstance(initializer, PerTask):
    initializer = initializer.of(task)
  return initializer


def _given_rows(
  array: np.ndarray, shape: tuple[int, int], task: int, origin: str
) -> Float[Array, "P D"]:
  rows = array
  if array.ndim == 3:
    if task >= array.shape[0]:
      raise errors.ConfigError(
        f"{origin} holds prompts of {array.shape[0]} tasks and none for task number {task}."
      )
    rows = array[task]
  if rows.shape != tuple(shape):
    raise errors.ConfigError(
      f"{origin} has shape {list(array.shape)}, but the prompt must be {list(shape)}"
      " ([length, width of the model]); set the length or take a prompt of this model's size."
    )
  # To numpy bfloat16 is no number, but a type that came with another library.
  if not (np.issubdtype(rows.dtype, np.number) or rows.dtype == jnp.bfloat16):
    raise errors.ConfigError(f"{origin} has dtype {rows.dtype}; a prompt is made of numbers.")
  # Prompts are trained in float32 whatever they were stored in.
  rows = rows.astype(np.float32)
  if not np.isfinite(rows).all():
    raise errors.ConfigError(f"{origin} contains values that are NaN or infinite.")
  return jnp.asarray(rows)


def _check_fits(what: str, number: int, shape: tuple[int, int]) -> None:
  if number > shape[0]:
    raise errors.ConfigError(
      f"A prompt of length {shape[0]} has no room for {number} {what}; set the length to at least"
      f" {number}."
    )


def _check_ids(ids: Sequence[int], embedding: Float[Array, "V D"]) -> None:
  unknown = [int(token) for token in ids if not 0 <= token < embedding.shape[0]]
  if unknown:
    raise errors.ConfigError(
      f"Token ids {unknown} are outside of the model's vocabulary of {embedding.shape[0]}; use the"
      " vocabulary that the model was trained with."
    )
