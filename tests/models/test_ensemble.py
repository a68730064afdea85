"""Ensembles against float64 numpy over their members' logits: whole, in parts, cached."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.decoding import scoring
from promot_jax.methods.bias import BitFit
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prefix import PrefixTuning
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models import ensemble, preparation
from promot_jax.models.ensemble import Ensemble, EnsembleReadout
from promot_jax.models.readout import LogSum, Readout
from tiny_models import batch_of, close, logits, moved, tiny

MEMBERS = {
  "t5": [("t5", 0, PrefixTuning(length=2)), ("t5", 1, None)],
  "bart": [("bart", 0, SoftPrompt(length=3)), ("bart", 0, LoRA(rank=2))],
  "gpt2": [("gpt2", 0, PrefixTuning(length=2)), ("gpt2", 0, LoRA(rank=2)), ("gpt2", 3, None)],
  "t5, two prompts": [("t5", 0, SoftPrompt(length=3)), ("t5", 0, SoftPrompt(length=3))],
  "gpt2, BitFit twice": [("gpt2", 0, BitFit()), ("gpt2", 0, BitFit())],
  "gpt2, two LoRAs": [("gpt2", 0, LoRA(rank=1)), ("gpt2", 0, LoRA(rank=1))],
}
SHARES = {2: [0.3, 0.7], 3: [0.25, 0.0, 0.75]}


def members(kind):
  """Adapted members, of which some share a backbone."""
  found = []
  for number, (name, seed, method) in enumerate(MEMBERS[kind]):
    model = tiny(name, seed=seed)
    if method is not None:
      model = moved(method.attach(model, nnx.Rngs(0)), method, seed=number)
    found.append(model)
  return found


def ensemble_of(kind, space="probability"):
  parts = members(kind)
  return Ensemble(parts, weights=SHARES[len(parts)], space=space)


@pytest.fixture(
  scope="module", params=["t5", "gpt2", "t5, two prompts", "gpt2, two LoRAs", "gpt2, BitFit twice"]
)
def expected(request):
  """A kind of members, a batch for them, and their logits of its targets."""
  batch = batch_of(tiny(request.param.split(",")[0]))
  return request.param, batch, [logits(member, batch) for member in members(request.param)]


def log_softmax(values):
  values = np.asarray(values, np.float64)
  values = values - values.max(-1, keepdims=True)
  return values - np.log(np.exp(values).sum(-1, keepdims=True))


def by_numpy(stored, weights, space):
  """log p of the combined distribution, float64."""
  pairs = [(share, each) for share, each in zip(weights, stored) if share]
  if space == "probability":
    terms = np.stack([np.log(share) + log_softmax(each) for share, each in pairs])
    largest = terms.max(0)
    return largest + np.log(np.exp(terms - largest).sum(0))
  own = log_softmax if space == "log" else lambda values: np.asarray(values, np.float64)
  return log_softmax(sum(share * own(each) for share, each in pairs))


@pytest.mark.parametrize("space", ensemble.SPACES)
@pytest.mark.parametrize("weights", [[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
def test_logits_are_combined_by_the_definition(space, weights):
  draw = np.random.default_rng(0).normal
  # The largest lie some hundreds apart: exp of them has no float32, and most members' p are 0 there.
  stored = [draw(size=(2, 3, 7), scale=scale).astype(np.float32) for scale in (1, 200, 30)]
  found = ensemble.combined(stored, jnp.asarray(weights), space=space)
  assert found.dtype == jnp.float32
  expected = by_numpy(stored, weights, space)
  np.testing.assert_allclose(log_softmax(found), expected, rtol=1e-6, atol=1e-4)
  if space == "probability":
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)  # normalized already


def test_averages_of_log_probabilities_and_of_logits_are_one_distribution():
  draw = np.random.default_rng(1).normal
  stored, weights = [draw(size=(4, 9), scale=3) for _ in range(2)], np.asarray([0.4, 0.6])
  log, plain = (
    log_softmax(ensemble.combined(stored, weights, space=space)) for space in ("log", "logits")
  )
  np.testing.assert_allclose(log, plain, atol=1e-5)
  assert np.abs(log - by_numpy(stored, weights, "probability")).max() > 0.1


def test_targets_have_the_combined_distribution_of_the_members(expected):
  kind, batch, stored = expected
  model = ensemble_of(kind)
  together = by_numpy(stored, SHARES[len(stored)], "probability")
  close(logits(model, batch), together)
  targets = batch["decoder_target_tokens"]
  chosen = np.take_along_axis(together, targets[..., None], axis=-1)[..., 0]
  np.testing.assert_allclose(scoring.score(model, batch), chosen.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("space", ensemble.SPACES)
def test_logits_in_parts_are_those_of_the_whole_also_in_an_ensemble_of_ensembles(space):
  draw, targets = np.random.default_rng(0).normal, np.asarray([[5, 0, 16]])
  plain = [
    Readout(kernel=draw(size=(width, 17)).astype(np.float32), bias=bias, scale=scale)
    for width, bias, scale in (
      (4, None, 0.5),
      (3, draw(size=17).astype(np.float32), 1.0),
      (4, None, 1.0),
    )
  ]
  hidden = [draw(size=(1, 3, each.kernel.shape[0])).astype(np.float32) for each in plain]
  inner = EnsembleReadout(members=tuple(plain[:2]), weights=jnp.asarray(SHARES[2]), space=space)
  outer = EnsembleReadout(
    members=(inner, plain[2]), weights=jnp.asarray([0.6, 0.4]), space="probability"
  )
  states = ((hidden[0], hidden[1]), hidden[2])

  def measure(part, own):
    return LogSum.of(own), jnp.where(part.ids == targets[..., None], own, 0.0).sum(axis=-1)

  def folded(chunk):
    total, chosen = outer.fold(
      states,
      measure,
      lambda one, other: (one[0].merge(other[0]), one[1] + other[1]),
      (LogSum.of_nothing(targets.shape), jnp.zeros(targets.shape)),
      chunk=chunk,
    )
    return chosen - total.value

  first, second, third = (each.logits(own) for each, own in zip(plain, hidden))
  stored = [by_numpy([first, second], SHARES[2], space), third]
  expected = by_numpy(stored, [0.6, 0.4], "probability")
  expected = np.take_along_axis(expected, targets[..., None], axis=-1)[..., 0]
  for chunk in (None, 5):  # 17 tokens in parts of 5: the last is filled up
    close(folded(chunk), expected)


def test_cached_decoding_gives_the_logits_of_teacher_forcing(expected):
  kind, batch, stored = expected
  model, targets = ensemble_of(kind), batch["decoder_target_tokens"]
  # Two of one method are one batched program, but for what exchanges arrays when a call is prepared.
  assert (model.same is not None) == ("two" in kind)

  @jax.jit
  def decoded(state):
    network = preparation.prepare(
      nnx.merge(nnx.graphdef(model), state), batch
    )  # as `generate` does
    own, cache = network.prefill(batch, max_length=targets.shape[1])
    found = [own]
    for position in range(targets.shape[1] - 1):
      own, cache = network.decode_step(targets[:, position], cache)
      found.append(own)
    return jnp.stack(found, axis=1)

  together = by_numpy(stored, SHARES[len(stored)], "probability")
  close(decoded(nnx.state(model)), together, 3e-5)


def test_one_member_twice_is_this_member():
  network, batch = tiny("t5"), batch_of(tiny("t5"))
  expected, _ = network.prefill(batch, max_length=2)
  found, cache = Ensemble([network, network], weights=[0.5, 0.5], space="logits").prefill(
    batch, max_length=2
  )
  close(found, expected)
  assert cache.stacked


def test_members_keep_their_arrays_and_are_left_alone():
  parts = members("bart")
  model = Ensemble([*parts, parts[0]], weights=[0.2, 0.3, 0.5], space="logits")
  leaves = paths.named_leaves(model)
  for number, part in enumerate([*parts, parts[0]]):
    for name, leaf in paths.named_leaves(part).items():
      assert leaves[f"members/{number}/{name}"] is leaf
  assert "weights" not in paths.parameter_names(model)
