"""The objective on held-out examples under teacher forcing: a validation that decodes nothing.

The loss is the mean over target tokens (or sequences, as the objective weighs them) of the whole split:
sums and weights are added over the batches and divided once, so that neither padding nor the size of a
batch changes it.  No dropout, as validation has no key.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax.training.objectives import Batch, Objective
from promot_jax.training.selection import LOSS, TOKEN_ACCURACY

Sums = dict[str, tuple[float, float]]
"""Metric -> (sum, weight)."""


def sums(
  model: nnx.Module,
  objective: Objective,
  batches: Iterable[Batch],
  *,
  teacher: nnx.Module | None = None,
  fetch: Callable[[Any], np.ndarray] = np.asarray,
) -> Iterator[Sums]:
  """Sums and weights of 'loss', and of 'token_accuracy' where the objective counts it, a batch each.

  Compiled once per model structure and batch shape; weights are arguments.

  Args:
    batches: placed on the devices; rows that only fill a batch have loss weights of 0.
    teacher: for an objective that learns from one.
    fetch: gives an output to the host; the batch after it is at work meanwhile.
  """
  graphdef, state = nnx.split(model)
  waiting = None
  for batch in batches:
    # Started before the former one is read, so that the device has no time to wait.
    started = compiled(state, dict(batch), teacher, graphdef=graphdef, objective=objective)
    if waiting is not None:
      yield _read(waiting, fetch)
    waiting = started
  if waiting is not None:
    yield _read(waiting, fetch)


def add(parts: Iterable[Sums]) -> Sums:
  """The sums of all parts, in float64."""
  total: Sums = {}
  for part in parts:
    for name, (value, weight) in part.items():
      former, former_weight = total.get(name, (0.0, 0.0))
      total[name] = (former + value, former_weight + weight)
  return total


def means(total: Sums) -> dict[str, float]:
  """sum / weight; NaN where the weight is 0."""
  return {
    name: value / weight if weight else float("nan") for name, (value, weight) in total.items()
  }


def _sums(state, batch, teacher=None, *, graphdef, objective):
  loss, metrics = objective(nnx.merge(graphdef, state), batch, teacher=teacher, key=None)
  # A normalizer may be a constant or count padding, and would then depend on how batches are cut: the
  # weights of the tokens do not.
  by_token = metrics.get("loss_per_nonpadding_target_token")
  # Nor may a batch weigh anything of which nothing counts, though nothing is divided by 0.
  weigh = getattr(objective, "counted", objective.normalizer)
  found = {LOSS: by_token or (loss, jnp.asarray(weigh(batch), jnp.float32))}
  # Under another name than a task's own accuracy, which is of decoded answers.
  if "accuracy" in metrics:
    found[TOKEN_ACCURACY] = metrics["accuracy"]
  return found


compiled = jax.jit(_sums, static_argnames=("graphdef", "objective"))
"""The compiled programs; `compiled._cache_size()` counts them."""


def _read(found: Any, fetch: Callable[[Any], np.ndarray]) -> Sums:
  return {
    name: (float(fetch(value)), float(fetch(weight))) for name, (value, weight) in found.items()
  }
