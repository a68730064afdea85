"""The probabilities that a prediction head gives to its classes."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from promot_jax import errors
from promot_jax.types import Array, Float


def log_probabilities(model: nnx.Module, batch: Mapping[str, Any]) -> Float[Array, "B C"]:
  """log p(class | input), float32.

  Compiled once per model structure and batch shape; weights are arguments.

  Args:
    model: a backbone with a head.
    batch: encoder_input_tokens [B S], and whatever else its methods read; answers are ignored.

  Raises:
    ConfigError: it has no head.
  """
  if model.head is None:
    raise errors.ConfigError(
      "The model has no prediction head to read classes off; attach PredictionHead(classes=N)."
    )
  graphdef, state = nnx.split(model)
  # With the answers, batches that have some and batches that have none would be two programs.
  given = {name: array for name, array in batch.items() if not name.startswith("decoder_")}
  return compiled(state, given, graphdef=graphdef)


def _log_probabilities(state, batch, *, graphdef):
  model = nnx.merge(graphdef, state)
  return jax.nn.log_softmax(model.head.readout.logits(model.head.vectors(model, batch)))


compiled = jax.jit(_log_probabilities, static_argnames=("graphdef",))
"""The compiled programs; `compiled._cache_size()` counts them."""
