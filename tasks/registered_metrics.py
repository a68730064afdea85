"""Metrics of tasks that others registered with seqio, called as seqio's Evaluator calls them.

| registered                                     | is called with                                          |
|------------------------------------------------|---------------------------------------------------------|
| `f(targets, predictions)`                      | postprocessed texts                                     |
| `f(targets, scores)`                           | log p of the targets                                    |
| `f(targets, predictions, aux_values)`          | postprocessed texts, {"scores": those of the outputs}   |
| `metric_objs`, clu metrics of seqio's protocol | examples, and token ids, log p, or ids and `aux_values` |
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax.errors import ConfigError
from promot_jax.metrics.model_outputs import ModelOutputs

_KINDS = ("PREDICTION", "SCORE", "PREDICTION_WITH_AUX")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OfScores:
  """`f(targets, scores)`."""

  function: Callable[..., Mapping[str, Any]]
  reads_outputs = True
  needs_likelihoods = True

  def __call__(self, targets: Sequence[Any], predictions: Sequence[Any], outputs: ModelOutputs):
    """Its scores."""
    del predictions
    return self.function(targets, np.array(outputs.likelihoods))

  @property
  def described(self) -> str:
    """For the settings of a result."""
    return f"{_name(self.function)} of scores"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class WithAuxiliary:
  """`f(targets, predictions, aux_values)`."""

  function: Callable[..., Mapping[str, Any]]
  reads_outputs = True

  def __call__(self, targets: Sequence[Any], predictions: Sequence[Any], outputs: ModelOutputs):
    """Its scores."""
    return self.function(targets, predictions, _auxiliary(outputs))

  @property
  def described(self) -> str:
    """For the settings of a result."""
    return f"{_name(self.function)} with aux_values"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OfObject:
  """One of `metric_objs`.

  kind: what it says that it reads of a model, one of those that there are here.
  features: the task's output features.
  """

  metric: Any
  kind: str
  features: Mapping[str, Any]
  reads_outputs = True

  @property
  def needs_likelihoods(self) -> bool:
    """See `ModelOutputs`."""
    return self.kind == "SCORE"

  def __call__(self, targets: Sequence[Any], predictions: Sequence[Any], outputs: ModelOutputs):
    """Its scores."""
    del targets, predictions  # it makes its own of the examples
    examples = [record["example"] for record in outputs.records]
    # seqio's protocol: examples, what the model gave, the features, and which of them is the
    # target.
    found = self.metric.from_model_output(examples, self._given(outputs), self.features, "targets")
    if hasattr(found, "actual_compute"):  # one that collects before it counts
      return found.actual_compute(examples, self.features, "targets", None)[0]
    return found.compute()

  def _given(self, outputs: ModelOutputs) -> Any:
    if self.kind == "SCORE":
      return np.array(outputs.likelihoods)
    # seqio's metrics of outputs expect one rectangle of ids, as T5X gives it.
    rows = np.full(
      (len(outputs.tokens), max(1, *map(len, outputs.tokens))),
      self.features["targets"].vocabulary.pad_id,
      np.int32,
    )
    for row, tokens in zip(rows, outputs.tokens, strict=True):
      row[: len(tokens)] = tokens
    return rows if self.kind == "PREDICTION" else (rows, _auxiliary(outputs))

  @property
  def described(self) -> str:
    """For the settings of a result."""
    return f"{_name(self.metric)} of {self.kind.lower()}"


def metrics(task: Any) -> tuple[Callable[..., Mapping[str, Any]], ...]:
  """All metrics of a `seqio.Task`, in seqio's order: the objects that it was given, then functions.

  Raises:
    ConfigError: it has none, or one that asks for what no model here gives.
  """
  try:
    functions = (
      *task.predict_metric_fns,
      *(OfScores(function=each) for each in task.score_metric_fns),
      *(WithAuxiliary(function=each) for each in task.predict_with_aux_metric_fns),
    )
    # seqio appends objects of its own around functions, which would be counted twice.
    objects = task.metric_objs[
      : len(task.metric_objs) - len(task.metric_fns)
    ]  # seqio wraps functions
  except ValueError as error:
    raise ConfigError(f"task '{task.name}': {error}") from error
  found = (*(_of_object(task, each) for each in objects), *functions)
  if not found:
    raise ConfigError(
      f"task '{task.name}' has no metric; register it with metric_fns of (targets, predictions) or of"
      " (targets, scores)."
    )
  return found


def _of_object(task: Any, metric: Any) -> OfObject:
  kind = getattr(getattr(metric, "model_output_type", None), "name", "nothing")
  if kind not in _KINDS or not hasattr(metric, "from_model_output"):
    raise ConfigError(
      f"task '{task.name}' has a metric {_name(metric)} of {kind}, and models here give"
      f" {', '.join(_KINDS)}; register the task without it."
    )
  return OfObject(metric=metric, kind=kind, features=task.output_features)


def _auxiliary(outputs: ModelOutputs) -> dict[str, np.ndarray]:
  """What T5X's models give with predictions."""
  return {"scores": np.array(outputs.scores)}


def _name(found: Any) -> str:
  """Of a function, class or object, without an address."""
  # A partial function has no name of its own.
  found = getattr(found, "func", found)
  return getattr(found, "__qualname__", type(found).__qualname__)
