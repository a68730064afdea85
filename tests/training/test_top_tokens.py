"""What is kept of a teacher's distributions, and the divergence from it, against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax.models.readout import LOWEST, Readout
from promot_jax.token_ids import T5
from promot_jax.training import top_tokens
from promot_jax.training.distillation import Distillation
from promot_jax.training.objectives import Supervised

B, T, D, E, V = 2, 3, 6, 5, 11
RANDOM = np.random.default_rng(5)


class Given(nnx.Module):
  """Hidden states of its own, whatever the batch is."""

  token_ids = T5

  def __init__(self, width, size=V):
    self.states = nnx.Param(jnp.asarray(RANDOM.normal(size=(B, T, width)), jnp.float32))
    self.kernel = nnx.Param(jnp.asarray(2 * RANDOM.normal(size=(width, size)), jnp.float32))

  def hidden(self, batch, *, key=None):
    return self.states[...]

  @property
  def readout(self):
    return Readout(kernel=self.kernel[...])

  @property
  def exact(self):
    return np.asarray(self.states[...], np.float64) @ np.asarray(self.kernel[...], np.float64)


TEACHER, STUDENT = Given(E), Given(D)
BATCH = {
  "decoder_target_tokens": np.asarray([[5, 2, 1], [3, 1, 0]], np.int32),
  "decoder_loss_weights": np.asarray([[1, 1, 1], [1, 0.5, 0]], np.float32),
}


def softmax(logits):
  mass = np.exp(logits - logits.max(-1, keepdims=True))
  return mass / mass.sum(-1, keepdims=True)


def kept(count, *, chunk=None, temperature=1.0):
  graphdef, state = nnx.split(TEACHER)
  tokens, log_p = top_tokens.distributions(
    state, BATCH, graphdef=graphdef, count=count, temperature=temperature, chunk=chunk
  )
  return np.asarray(tokens), np.asarray(log_p)


def by_numpy(count, *, weight, temperature):
  """(loss, its gradient by the student's logits) where the others than the teacher's k are one event."""
  weights = BATCH["decoder_loss_weights"].astype(np.float64)
  target = np.eye(V)[BATCH["decoder_target_tokens"]]
  p, q = softmax(TEACHER.exact / temperature), softmax(STUDENT.exact / temperature)
  among = p >= np.sort(p, axis=-1)[..., [V - count]]
  rest, own = (np.where(among, 0, each).sum(-1, keepdims=True) for each in (p, q))
  divergence = (np.where(among, p * np.log(p / q), 0)).sum(-1)
  divergence += np.where(
    rest > 0, rest * np.log(np.where(rest > 0, rest, 1) / np.where(rest > 0, own, 1)), 0
  )[..., 0]
  whole = softmax(STUDENT.exact)
  entropy = -(target * np.log(whole)).sum(-1)
  loss = (1 - weight) * entropy + weight * temperature**2 * divergence
  # Of the others' mass each has the student's own share.
  aim = np.where(among, p, rest * q / np.where(own > 0, own, 1))
  gradient = (1 - weight) * (whole - target) + weight * temperature * (q - aim)
  return (loss * weights).sum(), gradient * weights[..., None]


@pytest.mark.parametrize(("count", "chunk"), [(1, None), (5, 4), (V, 4)])
def test_the_most_probable_tokens_are_kept_and_the_mass_of_all_others(count, chunk):
  tokens, log_p = kept(count, chunk=chunk, temperature=0.7)
  p = softmax(TEACHER.exact / 0.7)
  np.testing.assert_array_equal(tokens, np.argsort(-p, axis=-1)[..., :count])
  largest = np.take_along_axis(p, tokens, axis=-1)
  np.testing.assert_allclose(np.exp(log_p[..., :-1]), largest, rtol=1e-5)
  np.testing.assert_allclose(np.exp(log_p[..., -1]), 1 - largest.sum(-1), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(
  ("count", "weight", "temperature", "chunk"),
  [(1, 0.3, 1.0, None), (4, 1.0, 2.5, 4), (V, 0.6, 1.0, 4)],
)
def test_loss_and_gradient_are_those_of_the_kept_tokens_and_one_more_event(
  count, weight, temperature, chunk
):
  tokens, log_p = kept(count, temperature=temperature)
  # In no order, and with a row of which nothing is kept, as where a batch is filled up.
  order = RANDOM.permutation(count)
  log_p = np.concatenate([log_p[..., order], log_p[..., -1:]], axis=-1)
  tokens = tokens[..., order]
  tokens[1, 2], log_p[1, 2] = 0, LOWEST
  batch = {**BATCH, top_tokens.TOKENS: tokens, top_tokens.LOG_P: log_p}
  objective = Distillation(
    weight=weight, temperature=temperature, supervised=Supervised(vocabulary_chunk=chunk)
  )
  graphdef, state = nnx.split(STUDENT)

  def loss_of(state):
    return objective(nnx.merge(graphdef, state), batch)[0]

  loss, found = jax.jit(jax.value_and_grad(loss_of))(state)
  expected, by_logits = by_numpy(count, weight=weight, temperature=temperature)
  assert float(loss) == pytest.approx(expected, rel=2e-5)
  hidden = np.asarray(STUDENT.states[...], np.float64)
  kernel = np.einsum("btd,btv->dv", hidden, by_logits)
  np.testing.assert_allclose(found["kernel"][...], kernel, atol=5e-5)
  states = by_logits @ np.asarray(STUDENT.kernel[...], np.float64).T
  np.testing.assert_allclose(found["states"][...], states, atol=5e-5)
  if count == V:
    whole, _ = objective(STUDENT, BATCH, teacher=TEACHER)
    assert float(loss) == pytest.approx(float(whole), rel=1e-5)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_a_gradient_is_off_by_no_more_than_twice_the_mass_that_was_left_out(count):
  _, found = by_numpy(count, weight=1.0, temperature=1.0)
  _, whole = by_numpy(V, weight=1.0, temperature=1.0)
  rest = np.exp(kept(count)[1][..., -1])
  off = np.abs(found - whole).sum(-1)
  assert (off <= 2 * rest * BATCH["decoder_loss_weights"] + 1e-7).all() and off.max() > 1e-4
  loss, _ = by_numpy(count, weight=1.0, temperature=1.0)
  assert loss < by_numpy(V, weight=1.0, temperature=1.0)[0]


def test_of_mt5s_vocabulary_neither_teachers_nor_students_logits_exist_whole(module_of_tests):
  size, chunk, count = 250_112, 4096, 8
  shapes_of = module_of_tests("training/test_losses")._shapes
  student = jax.eval_shape(lambda: Given(D, size))
  graphdef, state = nnx.split(student)
  tokens = jax.ShapeDtypeStruct((B, T, count), jnp.int32)
  log_p = jax.ShapeDtypeStruct((B, T, count + 1), jnp.float32)
  objective = Distillation(supervised=Supervised(vocabulary_chunk=chunk))

  def asked(state, other):
    return objective(nnx.merge(graphdef, state), BATCH, teacher=nnx.merge(graphdef, other))[0]

  def read(state, tokens, log_p):
    batch = {**BATCH, top_tokens.TOKENS: tokens, top_tokens.LOG_P: log_p}
    return objective(nnx.merge(graphdef, state), batch)[0]

  def keep(state, tokens, log_p):
    return top_tokens.distributions(
      state, BATCH, graphdef=graphdef, count=count, temperature=1.0, chunk=chunk
    )

  cases = [
    (jax.grad(asked), (state, state)),
    (jax.grad(read), (state, tokens, log_p)),
    (keep, (state, tokens, log_p)),
  ]
  for function, arguments in cases:
    for shape in shapes_of(jax.make_jaxpr(function)(*arguments).jaxpr):
      # Weights and their gradients have D rows; logits would have B T.
      assert np.prod(shape) <= max(D * size, B * T * 2 * chunk), shape
