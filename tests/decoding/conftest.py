"""A toy language model whose next-token logits depend on the input and on all earlier tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax.token_ids import T5

STATES = 997
STEPS = []
"""Grows by one at each decode step of a counting toy that really runs."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
  """All tokens of each row [R, 1 + T] after the input's number, like a key-value cache."""

  tokens: jax.Array
  position: jax.Array

  def repeat(self, count):
    return History(jnp.repeat(self.tokens, count, axis=0), self.position)

  def reorder(self, indices):
    return History(self.tokens[indices], self.position)


class Toy(nnx.Module):
  """Logits are a row of a random table; the row is a hash of input and earlier tokens."""

  token_ids = T5

  def __init__(self, vocabulary, *, seed=0, eos_bonus=0.0, scale=2.0, counting=False):
    table = np.random.default_rng(seed).normal(size=(STATES, vocabulary), scale=scale)
    table[:, 1] += eos_bonus
    self.table = nnx.Param(jnp.asarray(table, jnp.float32))
    self.counting = counting

  def prefill(self, batch, *, max_length):
    inputs = batch["encoder_input_tokens"]
    tokens = jnp.full((inputs.shape[0], max_length + 1), -1, jnp.int32).at[:, 0].set(inputs[:, 0])
    return self._logits(tokens), History(tokens, jnp.zeros((), jnp.int32))

  def decode_step(self, tokens, cache):
    if self.counting:
      jax.debug.callback(lambda: STEPS.append(1))
    position = cache.position + 1
    written = jax.lax.dynamic_update_slice(cache.tokens, tokens[:, None], (0, position))
    return self._logits(written), History(written, position)

  def hidden(self, batch):
    """The index of the table's row at each target position, [B, T, 1]."""
    inputs, targets = batch["encoder_input_tokens"], batch["decoder_input_tokens"]
    factors = self._factors(targets.shape[1])
    columns = jnp.concatenate([inputs[:, :1], targets[:, 1:]], axis=1)
    return jnp.cumsum((columns + 1) * factors, axis=1)[:, :, None] % STATES

  def logits(self, hidden):
    return self.table[...][hidden[..., 0]]

  def _logits(self, tokens):
    # unwritten positions hold -1 and add nothing
    return self.table[...][((tokens + 1) * self._factors(tokens.shape[1])).sum(axis=1) % STATES]

  def _factors(self, length):
    return jnp.asarray([31**place % STATES for place in range(length)], jnp.int32)


@pytest.fixture(scope="session")
def toy():
  """Makes toy models: toy(vocabulary, seed=, eos_bonus=, scale=, counting=)."""
  return Toy


@pytest.fixture
def steps():
  """The list that counting toys append to, emptied."""
  STEPS.clear()
  return STEPS


@pytest.fixture(scope="session")
def toy_log_p():
  """log p of the next token by plain numpy: toy_log_p(model, input number, tokens) -> [V]."""

  def log_p(model, number, tokens):
    table = np.asarray(model.table[...], np.float64)
    values = [number, *tokens]
    row = sum((value + 1) * (31**place % STATES) for place, value in enumerate(values)) % STATES
    return table[row] - np.log(np.exp(table[row]).sum())

  return log_p
