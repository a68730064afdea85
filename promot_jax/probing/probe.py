"""Probing: a small classifier on what a frozen network makes of an input.

Nothing of the network is trained, so its features are computed once; the classifier is trained on
all of them at once.  A linear head says what can be read off the representation, a hidden layer what
is in it.

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
import optax
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import settings
from promot_jax.models import stack
from promot_jax.models.head import POOLINGS, pooled
from promot_jax.types import Array

RECIPE_VALUES = ("Probe",)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
  """A trained classifier.

  mean, deviation: [D] of the training features, by which features are standardized.
  parameters: kernels and biases, first layer first.
  step: at which it was kept; accuracy: on the selection split, 0 to 1.
  """

  mean: np.ndarray
  deviation: np.ndarray
  parameters: Any
  step: int
  accuracy: float

  def predict(self, features: np.ndarray) -> np.ndarray:
    """Most probable class, int [N], of features [N D]."""
    x = (np.asarray(features, np.float32) - self.mean) / self.deviation
    return np.asarray(jnp.argmax(_scores(self.parameters, jnp.asarray(x)), axis=-1))


def fit(
  probe: Probe,
  train: tuple[np.ndarray, np.ndarray],
  select: tuple[np.ndarray, np.ndarray],
  *,
  classes: int,
  seed: int = 0,
) -> Head:
  """Trains a head.

  Args:
    train, select: (features [N D], labels int [N]); labels of `select` outside of the classes count
      as wrong.
    classes: number of classes.
    seed: of the first values.
  """
  features = np.asarray(train[0], np.float32)
  mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
  parts = [
    (jnp.asarray((np.asarray(x, np.float32) - mean) / deviation), jnp.asarray(labels, jnp.int32))
    for x, labels in (train, select)
  ]
  keys = jax.random.split(jax.random.key(seed), 2)
  sizes = [features.shape[1], *([] if probe.hidden is None else [probe.hidden]), classes]
  parameters = [
    (
      jax.random.normal(key, (a, b)) * a**-0.5 if len(sizes) > 2 else jnp.zeros((a, b)),
      jnp.zeros(b),
    )
    for a, b, key in zip(sizes, sizes[1:], keys)
  ]
  best = _fit(parameters, *parts, probe=probe)
  kept, step, accuracy = jax.device_get(best)
  return Head(
    mean=mean, deviation=deviation, parameters=kept, step=int(step), accuracy=float(accuracy)
  )


def feature_function(model: nnx.Module, layer: int | None) -> Callable[[Any], dict[str, Array]]:
  """A compiled function: batch -> features [B D] (float32) by pooling.

  Raises:
    ConfigError: the model has no such layer.
  """
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


def _scores(parameters: Any, x: Array) -> Array:
  """[N D] -> [N classes]."""
  for kernel, bias in parameters[:-1]:
    x = jax.nn.relu(x @ kernel + bias)
  kernel, bias = parameters[-1]
  return x @ kernel + bias


@functools.partial(jax.jit, static_argnames="probe")
def _fit(parameters, train, select, *, probe: Probe):
  """(parameters, step, accuracy) of the best head on `select`."""
  optimizer = optax.adamw(probe.learning_rate, weight_decay=probe.weight_decay)

  def loss(parameters):
    scores = _scores(parameters, train[0])
    return optax.softmax_cross_entropy_with_integer_labels(scores, train[1]).mean()

  def step(carry, _):
    parameters, state = carry
    updates, state = optimizer.update(jax.grad(loss)(parameters), state, parameters)
    return (optax.apply_updates(parameters, updates), state), None

  def period(carry, number):
    trained, best, best_step, best_accuracy = carry
    trained, _ = jax.lax.scan(step, trained, length=probe.eval_period)
    accuracy = jnp.mean(jnp.argmax(_scores(trained[0], select[0]), axis=-1) == select[1])
    better = accuracy > best_accuracy
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), trained[0], best)
    best_step = jnp.where(better, (number + 1) * probe.eval_period, best_step)
    return (trained, best, best_step, jnp.maximum(accuracy, best_accuracy)), None

  start = ((parameters, optimizer.init(parameters)), parameters, jnp.asarray(0), jnp.asarray(-1.0))
  periods = max(1, probe.steps // probe.eval_period)
  (_, best, best_step, accuracy), _ = jax.lax.scan(period, start, jnp.arange(periods))
  return best, best_step, accuracy
