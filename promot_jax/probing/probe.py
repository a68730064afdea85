"""Probing: a small classifier on what a frozen network makes of an input.

Nothing of the network is trained, so its features are computed once, and the stage that trains the
classifier reads them in place of tokens, all at once.  A linear head says what can be read off the
representation, a hidden layer what is in it.

Unlike other methods a probe is not attached: it reads `model.encode`, which is the encoder's output,
or of a decoder-only model its states at the positions of the input.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax import errors, partitioning, paths
from promot_jax.decoding.classes import log_probabilities
from promot_jax.methods import settings
from promot_jax.models import stack
from promot_jax.models.head import POOLINGS, pooled
from promot_jax.models.readout import Readout
from promot_jax.training import optimizers, schedules
from promot_jax.training.classification import CLASS_IDS, Classification
from promot_jax.training.stages import Stage
from promot_jax.types import Array, Batch, Float, Int, Key

RECIPE_VALUES = ("Probe",)

FEATURES = "features"
"""The feature float32 [B D] of a probe's batch: standardized features of the network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
  """A classifier on frozen features.

  Attributes:
    pooling: 'first' = the first token's vector, 'mean' = the mean over tokens, 'last' = the last
      token's (which of a decoder-only model is the only one that has read all of the input).
    layer: features after so many layers, without the final norm; None: the output of all of them.
    hidden: None for a linear head, else the features of its one hidden layer (ReLU).
    steps, learning_rate, weight_decay: of AdamW on all training examples at once.
    eval_period: steps between looks at the selection split; the best head is kept, of equal ones
      the first.
  """

  pooling: Literal["first", "mean", "last"] = "mean"
  layer: int | None = None
  hidden: int | None = None
  steps: int = 1000
  learning_rate: float = 1e-2
  weight_decay: float = 1e-3
  eval_period: int = 50

  def __post_init__(self):
    if self.pooling not in POOLINGS:
      raise errors.ConfigError(
        f"Probe.pooling is {self.pooling!r}; use one of {', '.join(POOLINGS)}."
      )
    settings.require_counts(self, "steps", "eval_period", optional=("hidden", "layer"))


class FeatureHead(nnx.Module):
  """A classifier on features [B D] of the batch, in the slot of a prediction head (`models.head`)."""

  def __init__(self, width: int, classes: int, *, hidden: int | None, seed: int):
    keys = jax.random.split(jax.random.key(seed), 2)
    # A linear head has one optimum and may begin at zero; a hidden layer would get no gradients
    # there.
    if hidden is None:
      self.kernel = nnx.Param(jnp.zeros((width, classes)))
    else:
      self.hidden_kernel = nnx.Param(jax.random.normal(keys[0], (width, hidden)) * width**-0.5)
      self.hidden_bias = nnx.Param(jnp.zeros(hidden))
      self.kernel = nnx.Param(jax.random.normal(keys[1], (hidden, classes)) * hidden**-0.5)
    self.bias = nnx.Param(jnp.zeros(classes))
    self.is_linear = hidden is None

  @property
  def readout(self) -> Readout:
    """Kernel and bias of the classes' logits."""
    return Readout(kernel=self.kernel[...], bias=self.bias[...])

  def vectors(
    self, model: nnx.Module, batch: Batch, *, key: Key | None = None
  ) -> Float[Array, "B H"]:
    """What the classes are read off: the features themselves, or the hidden layer's."""
    del model, key
    features = batch[FEATURES]
    if self.is_linear:
      return features
    return jax.nn.relu(features @ self.hidden_kernel[...] + self.hidden_bias[...])


class Classifier(nnx.Module):
  """What a probe's stage trains: a head whose backbone was there before, on disk as features."""

  def __init__(self, head: FeatureHead):
    self.head = head


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standard:
  """Mean and deviation [D] of the training features, by which all are standardized."""

  mean: Float[np.ndarray, "D"]
  deviation: Float[np.ndarray, "D"]

  @classmethod
  def of(cls, features: Float[np.ndarray, "N D"]) -> "Standard":
    """That of the training features."""
    # Constant features have no deviation to divide by.
    return cls(mean=features.mean(axis=0), deviation=features.std(axis=0) + 1e-6)

  def __call__(self, features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Float32, with the training features' mean at 0 and their deviation 1."""
    return ((np.asarray(features, np.float32) - self.mean) / self.deviation).astype(np.float32)


def stage(probe: Probe, name: str, examples: int) -> Stage:
  """The training of a probe on all of so many examples at once."""
  return Stage(
    name=name,
    trainable="head/.*",
    # Whole periods, so that the last step is validated like the others.
    steps=max(1, probe.steps // probe.eval_period) * probe.eval_period,
    batch_size=examples,
    optimizer=functools.partial(optimizers.adamw, weight_decay=probe.weight_decay, decayed=(".*",)),
    learning_rate=schedules.constant(probe.learning_rate),
    objective=Classification(),
    eval_period=probe.eval_period,
    log_period=probe.eval_period,
    metric="accuracy",
  )


def batch_of(
  features: Float[np.ndarray, "N D"], labels: Int[np.ndarray, "N"], *, rows: int
) -> dict[str, np.ndarray]:
  """All examples as one batch of so many rows; those that fill it up have no class."""
  more = rows - len(labels)
  return {
    FEATURES: np.pad(features, ((0, more), (0, 0))),
    CLASS_IDS: np.pad(np.asarray(labels, np.int32), (0, more), constant_values=-1),
    "decoder_loss_weights": np.ones((rows, 1), np.float32),
  }


def predict(model: nnx.Module, features: Float[np.ndarray, "N D"]) -> Int[np.ndarray, "N"]:
  """The most probable class of each example."""
  return partitioning.fetch(log_probabilities(model, {FEATURES: features})).argmax(axis=1)


def feature_function(model: nnx.Module, layer: int | None) -> Callable[[Any], dict[str, Array]]:
  """A compiled function: batch -> features [B D] (float32) by pooling.

  Raises:
    ConfigError: the model has no such layer.
  """
  # Weights are an argument of what is compiled, never closed over.
  graphdef, state = nnx.split(model if layer is None else _cut(model, layer))

  @jax.jit
  def compute(state: nnx.State, batch: Any) -> dict[str, Array]:
    hidden, mask = nnx.merge(graphdef, state).encode(batch)
    length = batch["encoder_input_tokens"].shape[1]
    return pooled(hidden[:, -length:], mask[:, -length:])  # a prompt's positions are no tokens

  return lambda batch: compute(state, batch)


def check_layer(model: nnx.Module, layer: int | None) -> None:
  """Raises unless the reading stack has this layer; an abstract model is enough.

  Raises:
    ConfigError: it has not.
  """
  name = next(iter(model.stacks))  # the reader's
  count = stack.count(model.reader.layers)
  if layer is not None and not 1 <= layer <= count:
    raise errors.ConfigError(
      f"Probe.layer is {layer}, and the {name} has layers 1 to {count}; choose one of them, or None"
      " for its output."
    )


def _cut(model: nnx.Module, layer: int) -> nnx.Module:
  """A copy whose reading stack ends after `layer` layers, without its final norm."""
  check_layer(model, layer)
  model = paths.copy(model)
  part = model.reader
  # Scanned layers are stacked along their first axis.
  if stack.is_scanned(part.layers):
    part.layers = jax.tree.map(lambda leaf: leaf[:layer], part.layers)
  else:
    part.layers = nnx.List(list(part.layers)[:layer])
  final_norm = f"{next(iter(model.stacks))}_norm"
  if getattr(part, final_norm) is not None:  # BART's layers end with their own
    setattr(part, final_norm, _Same())
  return model


class _Same(nnx.Module):
  def __call__(self, x: Array) -> Array:
    return x
