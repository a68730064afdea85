"""Readouts: logits, and folds over the vocabulary that losses and teachers rest on, against dense jnp."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promot_jax.errors import ConfigError
from promot_jax.models import readout as readouts
from promot_jax.models.readout import LogSum, Readout

B, T, D, E, V = 2, 3, 5, 7, 37  # 37 is prime: no number of chunks divides it
CHUNKS = pytest.mark.parametrize("chunk", [None, 1, 5, 16, 36, 100])


@functools.cache
def arrays():
  """Hidden states and kernels of a student [D] and a teacher [E], a bias, targets."""
  random = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(random.normal(size=shape), jnp.float32)

  return {
    "hidden": normal(B, T, D),
    "kernel": normal(D, V),
    "bias": normal(V),
    "teacher_hidden": normal(B, T, E),
    "teacher_kernel": normal(E, V),
    "targets": jnp.asarray(random.integers(0, V, (B, T)), jnp.int32),
  }


def dense(hidden, kernel, bias):
  """Logits [B T V] with a scale of 0.5."""
  return 0.5 * jnp.einsum("btd,dv->btv", hidden, kernel) + bias


def same_gradients(folded, whole, *points):
  for name, one, other in zip(
    "abcde",
    jax.grad(folded, range(len(points)))(*points),
    jax.grad(whole, range(len(points)))(*points),
  ):
    np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6, err_msg=name)


def test_logits_are_float32_scaled_and_shifted():
  given = arrays()
  kernel = given["kernel"].astype(jnp.bfloat16)
  readout = Readout(kernel=kernel, bias=given["bias"], scale=0.5)
  logits = readout.logits(given["hidden"].astype(jnp.bfloat16))
  exact = dense(
    given["hidden"].astype(jnp.bfloat16).astype(jnp.float32),
    kernel.astype(jnp.float32),
    given["bias"],
  )
  assert logits.dtype == jnp.float32 and readout.size == V
  np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-5)


@CHUNKS
def test_log_normalizer_and_logit_of_a_label_are_those_of_whole_logits(chunk):
  """What preference losses are made of: log p of given tokens, summed over a sequence."""
  given = arrays()

  def folded(hidden, kernel, bias):
    def measure(part, logits):
      chosen = jnp.where(part.ids == given["targets"][..., None], logits, 0.0).sum(axis=-1)
      return LogSum.of(logits), chosen

    def merge(one, other):
      return one[0].merge(other[0]), one[1] + other[1]

    start = (LogSum.of_nothing((B, T)), jnp.zeros((B, T)))
    readout = Readout(kernel=kernel, bias=bias, scale=0.5)
    log_sum, chosen = readout.fold(hidden, measure, merge, start, chunk=chunk)
    return jnp.square((chosen - log_sum.value).sum(axis=-1)).sum()

  def whole(hidden, kernel, bias):
    log_p = jax.nn.log_softmax(dense(hidden, kernel, bias))
    chosen = jnp.take_along_axis(log_p, given["targets"][..., None], axis=-1)[..., 0]
    return jnp.square(chosen.sum(axis=-1)).sum()

  points = given["hidden"], given["kernel"], given["bias"]
  np.testing.assert_allclose(folded(*points), whole(*points), rtol=1e-5)
  same_gradients(folded, whole, *points)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Divergence:
  """KL(teacher || student) of some tokens, before it is normalized.

  difference: sum(exp(t - largest t) * (t - s)).
  """

  teacher: LogSum
  student: LogSum
  difference: jax.Array

  @classmethod
  def measure(cls, part, student, teacher):
    del part
    log_sum = LogSum.of(teacher)
    weight = jnp.exp(teacher - log_sum.largest[..., None])
    difference = (weight * (teacher - student)).sum(axis=-1)
    return cls(teacher=log_sum, student=LogSum.of(student), difference=difference)

  def merge(self, other):
    together = self.teacher.merge(other.teacher)
    return Divergence(
      teacher=together,
      student=self.student.merge(other.student),
      difference=self.difference * jnp.exp(self.teacher.largest - together.largest)
      + other.difference * jnp.exp(other.teacher.largest - together.largest),
    )

  @property
  def value(self):
    expected = self.difference / self.teacher.total
    return expected - self.teacher.value + self.student.value


@CHUNKS
def test_divergence_from_a_teacher_is_that_of_whole_distributions(chunk):
  given = arrays()
  teacher = Readout(kernel=given["teacher_kernel"])

  def folded(hidden, kernel, bias, teacher_hidden):
    nothing = LogSum.of_nothing((B, T))
    found = Readout(kernel=kernel, bias=bias, scale=0.5).fold(
      hidden,
      Divergence.measure,
      Divergence.merge,
      Divergence(teacher=nothing, student=nothing, difference=jnp.zeros((B, T))),
      chunk=chunk,
      beside=[(teacher, teacher_hidden)],
    )
    return (found.value * jnp.arange(1.0, T + 1)).sum()

  def whole(hidden, kernel, bias, teacher_hidden):
    log_p = jax.nn.log_softmax(jnp.einsum("bte,ev->btv", teacher_hidden, given["teacher_kernel"]))
    log_q = jax.nn.log_softmax(dense(hidden, kernel, bias))
    return ((jnp.exp(log_p) * (log_p - log_q)).sum(axis=-1) * jnp.arange(1.0, T + 1)).sum()

  points = given["hidden"], given["kernel"], given["bias"], given["teacher_hidden"]
  np.testing.assert_allclose(folded(*points), whole(*points), rtol=1e-5)
  same_gradients(folded, whole, *points)


@pytest.mark.parametrize("chunk", [None, 16])
def test_an_ensemble_is_folded_twice_once_for_its_normalizers(chunk):
  """Entropy of the mean of two members' distributions: log-mean-exp over members inside of the fold."""
  given = arrays()
  members = [
    (Readout(kernel=given["kernel"], bias=given["bias"], scale=0.5), given["hidden"]),
    (Readout(kernel=given["teacher_kernel"]), given["teacher_hidden"]),
  ]
  (first, hidden), *others = members

  def normalizers(part, *logits):
    del part
    return [LogSum.of(each) for each in logits]

  def merge(one, other):
    return [a.merge(b) for a, b in zip(one, other)]

  nothing = [LogSum.of_nothing((B, T))] * 2
  log_z = first.fold(hidden, normalizers, merge, nothing, chunk=chunk, beside=others)

  def entropy(part, *logits):
    log_p = jnp.stack([each - z.value[..., None] for each, z in zip(logits, log_z)])
    mean = jax.nn.logsumexp(log_p, axis=0) - jnp.log(2.0)
    return -part.of_tokens(jnp.exp(mean) * mean).sum(axis=-1)

  found = first.fold(hidden, entropy, jnp.add, jnp.zeros((B, T)), chunk=chunk, beside=others)
  mean = np.mean([jax.nn.softmax(readout.logits(states)) for readout, states in members], axis=0)
  np.testing.assert_allclose(found, -(mean * np.log(mean)).sum(-1), rtol=1e-5)


def test_logits_of_models_with_other_vocabularies_are_not_compared():
  given = arrays()
  other = Readout(kernel=given["teacher_kernel"][:, :-1])
  with pytest.raises(ConfigError, match="Logits of 37 and of 36 tokens"):
    Readout(kernel=given["kernel"]).fold(
      given["hidden"],
      lambda part, one, two: one.sum(),
      jnp.add,
      jnp.zeros(()),
      beside=[(other, given["teacher_hidden"])],
    )


@pytest.mark.parametrize("size, chunk", [(250112, 16384), (32128, 8192), (50257, 10000), (7, 3)])
def test_chunks_cover_the_vocabulary_and_stay_below_the_limit(size, chunk):
  groups, chunks, run = readouts.chunk_plan(size, chunk)
  assert groups * run <= chunk
  assert size <= groups * chunks * run < size + chunks * groups
  if size in (250112, 32128):  # the vocabularies of mT5 and T5 are cut without padding
    assert groups * chunks * run == size
    assert groups % 16 == 0  # so a mesh of up to 16 parts of the vocabulary stays balanced
