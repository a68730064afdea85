"""Cross-entropy numerics: against numpy in float64, the chunked form against the whole one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promot_jax import errors
from promot_jax.models.readout import Readout
from promot_jax.training import losses

B, T, D, V = 2, 3, 8, 37  # 37 is prime: no number of chunks divides it


def example(vocabulary_size=V, dtype=np.float32):
  generator = np.random.default_rng(0)
  return {
    "hidden": generator.normal(size=(B, T, D)).astype(dtype),
    "kernel": generator.normal(size=(D, vocabulary_size)).astype(dtype),
    "targets": generator.integers(0, vocabulary_size, (B, T)).astype(np.int32),
    "weights": np.array([[1, 0.5, 0], [1, 1, 2]], np.float32),
  }


def cross_entropy(hidden, kernel, targets, weights, *, scale=1.0, bias=None, **options):
  """Loss terms of plain arrays."""
  readout = Readout(kernel=kernel, bias=bias, scale=scale)
  return losses.cross_entropy(readout, hidden, targets, weights, **options)


def expected_terms(logits, targets, weights, *, label_smoothing, z_loss):
  """The definition, token by token, in float64."""
  size = logits.shape[-1]
  sums = dict.fromkeys(("cross_entropy", "z_loss", "weight", "correct"), 0.0)
  for index in np.ndindex(targets.shape):
    token = logits[index].astype(np.float64)
    log_z = np.log(np.sum(np.exp(token)))
    soft = np.full(size, label_smoothing / (size - 1))
    soft[targets[index]] = 1 - label_smoothing
    entropy = -sum(q * np.log(q) for q in soft if q > 0)
    weight = float(weights[index])
    sums["cross_entropy"] += weight * (-(soft * (token - log_z)).sum() - entropy)
    sums["z_loss"] += weight * z_loss * log_z**2
    sums["weight"] += weight
    sums["correct"] += weight * (int(token.argmax()) == targets[index])
  return sums


@pytest.mark.parametrize("chunk", [None, 1, 5, 16, 36, 37, 100])
@pytest.mark.parametrize("label_smoothing, z_loss", [(0.0, 0.0), (0.1, 1e-2)])
def test_loss_terms_equal_their_definition(chunk, label_smoothing, z_loss):
  data = example()
  data["targets"][1, 1] = (data["hidden"][1, 1] @ data["kernel"] * 0.7).argmax()  # one is correct
  terms = cross_entropy(
    **jax.tree.map(jnp.asarray, data),
    scale=0.7,
    label_smoothing=label_smoothing,
    z_loss=z_loss,
    chunk=chunk,
  )
  logits = 0.7 * data["hidden"].astype(np.float64) @ data["kernel"].astype(np.float64)
  expected = expected_terms(
    logits, data["targets"], data["weights"], label_smoothing=label_smoothing, z_loss=z_loss
  )
  for name, value in expected.items():
    np.testing.assert_allclose(getattr(terms, name), value, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
  "vocabulary_size, chunk", [(37, 5), (37, 30), (96, 7), (128, 32), (250, 60)]
)
def test_chunked_loss_has_the_value_and_gradients_of_the_full_loss(vocabulary_size, chunk):
  data = jax.tree.map(jnp.asarray, example(vocabulary_size))

  def loss(hidden, kernel, chunk):
    terms = cross_entropy(
      hidden,
      kernel,
      data["targets"],
      data["weights"],
      scale=0.3,
      label_smoothing=0.1,
      z_loss=1e-2,
      chunk=chunk,
    )
    return terms.cross_entropy + terms.z_loss

  gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)
  full, full_gradients = gradient(data["hidden"], data["kernel"], None)
  chunked, chunked_gradients = gradient(data["hidden"], data["kernel"], chunk)
  np.testing.assert_allclose(chunked, full, rtol=1e-6)
  for one, other in zip(chunked_gradients, full_gradients):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [None, 5, 36])
def test_a_bias_of_the_logits_is_an_input_that_is_always_1(chunk):
  data = example()
  bias = np.random.default_rng(8).normal(size=V).astype(np.float32)
  options = {"label_smoothing": 0.1, "z_loss": 1e-3, "chunk": chunk}
  actual = cross_entropy(**data, scale=0.5, bias=jnp.asarray(bias), **options)
  ones = jnp.ones((*data["hidden"].shape[:-1], 1))
  wider = {
    "hidden": jnp.concatenate([data["hidden"], ones], -1),
    "kernel": jnp.concatenate([data["kernel"], 2 * bias[None]], 0),
  }
  expected = cross_entropy(**{**data, **wider}, scale=0.5, **options)
  for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_bfloat16_weights_give_float32_logits():
  data = example()
  rounded = {name: jnp.asarray(data[name], jnp.bfloat16) for name in ("hidden", "kernel")}
  exact = {name: np.asarray(value, np.float64) for name, value in rounded.items()}
  expected = expected_terms(
    exact["hidden"] @ exact["kernel"],
    data["targets"],
    data["weights"],
    label_smoothing=0.0,
    z_loss=0.0,
  )
  for chunk in (None, 6):
    terms = cross_entropy(
      rounded["hidden"], rounded["kernel"], data["targets"], data["weights"], chunk=chunk
    )
    assert terms.cross_entropy.dtype == jnp.float32
    # bfloat16 logits would be off by 0.4 %.
    np.testing.assert_allclose(terms.cross_entropy, expected["cross_entropy"], rtol=1e-6)


def test_logits_of_all_tokens_never_exist_whole():
  tokens, width, size, chunk = 6, 4, 64, 16
  hidden, kernel = jnp.ones((tokens, width)), jnp.ones((width, size))
  targets, weights = jnp.zeros((tokens,), jnp.int32), jnp.ones((tokens,))

  def loss(hidden, kernel):
    return cross_entropy(hidden, kernel, targets, weights, chunk=chunk).cross_entropy

  def largest(function):
    shapes = _shapes(jax.make_jaxpr(jax.grad(function, argnums=(0, 1)))(hidden, kernel).jaxpr)
    return max(np.prod(shape) for shape in shapes if tokens in shape)

  assert largest(loss) == tokens * chunk
  assert largest(lambda h, k: (h @ k).sum()) == tokens * size  # the measure sees whole logits


def test_a_frozen_kernel_costs_no_kernel_gradient():
  data = jax.tree.map(jnp.asarray, example(vocabulary_size=64))

  def loss(hidden, kernel):
    return cross_entropy(hidden, kernel, data["targets"], data["weights"], chunk=16).cross_entropy

  def products(argnums):
    gradient = jax.jit(jax.grad(loss, argnums=argnums))
    lowered = gradient.lower(data["hidden"], data["kernel"])
    return lowered.as_text().count("stablehlo.dot_general")

  # Logits, logits again in the backward pass, gradient of the hidden states; of the kernel.
  assert products((0,)) == 3
  assert products((0, 1)) == 4


def test_ties_go_to_the_smallest_id_as_in_an_arg_max():
  hidden, readout = jnp.ones((3, 4)), Readout(kernel=jnp.zeros((4, 12)))
  targets = jnp.array([0, 5, 11])
  for chunk in (None, 5):
    assert losses.token_statistics(readout, hidden, targets, chunk=chunk).best.tolist() == [0, 0, 0]


def test_large_logits_do_not_overflow():
  hidden = jnp.full((1, 2), 200.0)
  kernel = jnp.array([[1.0, -1.0, 0.5], [1.0, -1.0, 0.5]])
  for chunk in (None, 1):
    terms = cross_entropy(hidden, kernel, jnp.array([2]), jnp.ones((1,)), z_loss=1e-4, chunk=chunk)
    np.testing.assert_allclose(terms.cross_entropy, 200.0, rtol=1e-6)
    np.testing.assert_allclose(terms.z_loss, 1e-4 * 400.0**2, rtol=1e-6)


def test_impossible_settings_are_refused():
  data = example()
  with pytest.raises(errors.ConfigError, match=r"label_smoothing=1\.0"):
    cross_entropy(**data, label_smoothing=1.0)
  with pytest.raises(errors.ConfigError, match="chunk=0"):
    cross_entropy(**data, chunk=0)


@pytest.mark.parity
def test_loss_without_smoothing_equals_torch_cross_entropy():
  torch = pytest.importorskip("torch", reason="needs the [torch] extra")
  data = example()
  hidden = torch.tensor(data["hidden"], requires_grad=True)
  kernel = torch.tensor(data["kernel"], requires_grad=True)
  targets = torch.tensor(data["targets"], dtype=torch.int64)
  per_token = torch.nn.functional.cross_entropy(
    (hidden @ kernel).reshape(-1, V), targets.reshape(-1), reduction="none"
  )
  expected = (per_token * torch.tensor(data["weights"]).reshape(-1)).sum()
  expected.backward()
  for chunk in (None, 7):
    value, gradients = jax.value_and_grad(
      lambda h, k, chunk=chunk: (
        cross_entropy(h, k, data["targets"], data["weights"], chunk=chunk).cross_entropy
      ),
      argnums=(0, 1),
    )(data["hidden"], data["kernel"])
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradients[0], hidden.grad.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients[1], kernel.grad.numpy(), rtol=1e-5, atol=1e-6)


def _shapes(jaxpr):
  """Shapes of all values in a jaxpr and in those inside it."""
  for equation in jaxpr.eqns:
    for variable in (*equation.invars, *equation.outvars):
      yield tuple(getattr(variable.aval, "shape", ()))
    for parameter in equation.params.values():
      for inner in parameter if isinstance(parameter, (tuple, list)) else [parameter]:
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          yield from _shapes(inner)
