"""Prefix tuning on tiny backbones: where the prefix stands, what it starts from, networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tiny_models
from promot_jax import errors, paths
from promot_jax.methods import initializers, prefix, sites
from promot_jax.methods.prefix import PrefixTuning, Reparameterization
from promot_jax.methods.prompt import SoftPrompt, prompt_count
from promot_jax.models.positions import relative_position_bucket
from tiny_models import batch_from, logits, same_arrays, tiny, tokens

LENGTH = 3
WORDS = [5, 9, 7]

# sums of some ten terms through one layer or two
close = functools.partial(tiny_models.close, relative=2e-6)


def texts(model):
  """Inputs [2 4] and targets [2 5]."""
  return tokens(model, 2, 4, seed=1), tokens(model, 2, 5, seed=2)


def normal(**fields):
  return PrefixTuning(length=LENGTH, initializer=prefix.NormalPrefix(std=1.0), **fields)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_activations_of_words_as_prefix_are_the_words_before_the_input(kind):
  model = tiny(kind)
  source, target = texts(model)
  method = PrefixTuning(length=len(WORDS), initializer=prefix.FromWords(ids=WORDS))
  attached = method.attach(model, nnx.Rngs(0))
  before = np.broadcast_to(np.asarray(WORDS, np.int32), (2, len(WORDS)))
  expected = logits(model, batch_from(model, np.concatenate([before, source], axis=1), target))
  close(logits(attached, batch_from(model, source, target)), expected)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_counted_prefix_of_the_decoder_is_a_target_that_was_already_read(kind):
  model = tiny(kind)
  source = np.asarray([WORDS], np.int32)  # the words' activations were made with this input
  target = tokens(model, 1, 4, seed=2)
  method = PrefixTuning(
    length=len(WORDS),
    sites=["decoder"],
    positions="peft",
    initializer=prefix.FromWords(ids=WORDS),
  )
  attached = method.attach(model, nnx.Rngs(0))
  batch = batch_from(model, source, target)
  longer = dict(batch)
  longer["decoder_input_tokens"] = np.concatenate([source, batch["decoder_input_tokens"]], axis=1)
  close(logits(attached, batch), logits(model, longer)[:, len(WORDS) :])


@pytest.mark.parametrize("positions", ["paper", "adapterhub"])
def test_relative_bias_toward_the_prefix_is_what_the_setting_says(positions):
  model = normal(positions=positions).attach(tiny("t5"), nnx.Rngs(0))
  table = np.asarray(model.encoder.relpos_bias.rel_embedding[...])  # [H buckets]
  seen = []

  class Spy(nnx.Module):
    def __init__(self, inner):
      self.inner, self.positions = inner, inner.positions
      self.displacement = inner.displacement

    def __call__(self, keys, values, bias, mask):
      result = self.inner(keys, values, bias, mask)
      seen.append(np.asarray(result[2]))
      return result

  attention = model.encoder.layers[0].attention
  attention.prefix = Spy(attention.prefix)
  source = tokens(model, 1, 4, seed=1)
  model.encode({"encoder_input_tokens": source})
  (bias,) = seen
  columns = np.arange(LENGTH + 4)
  rows = np.arange(4)[:, None]
  moved = 0 if positions == "adapterhub" else LENGTH  # AdapterHub: keys as if LENGTH after queries
  relative = columns[None, :] - rows - moved
  buckets = relative_position_bucket(relative, buckets=32, max_distance=128, bidirectional=True)
  expected = table[:, buckets]
  if positions == "paper":
    expected = np.where(columns < LENGTH, 0.0, expected)
  np.testing.assert_allclose(bias[0], expected, atol=1e-6)


@pytest.mark.parametrize("network", [None, Reparameterization(hidden=6, width=4)])
@pytest.mark.parametrize("kind", ["t5", "bart", "llama"])
def test_every_slot_of_the_prefix_receives_a_gradient(kind, network):
  model = tiny(kind)
  method = normal(reparameterization=network)
  attached = method.attach(model, nnx.Rngs(3))
  batch = batch_from(model, *texts(model))
  graphdef, trainable, frozen = paths.split(attached, method.parameters)

  @jax.jit
  def gradient(trainable, frozen):
    def loss(trainable):
      whole = nnx.merge(graphdef, trainable, frozen)
      return jnp.sum(jax.nn.log_softmax(whole.logits(whole.hidden(batch)))[..., 5])

    return jax.grad(loss)(trainable)

  found = paths.named_leaves(gradient(trainable, frozen))
  names = list(found)
  for site in sites.sites(model):
    where = sites.PLACES[site][1] + "/" if network is None else f"/{site}/"
    assert any(where in name for name in names), f"{site} has no parameter among {names}"
  for name, leaf in found.items():
    by_position = np.abs(np.asarray(leaf)).reshape(-1, leaf.shape[-1]).sum(axis=-1)
    assert (by_position > 0).all(), name


def test_a_bank_starts_from_what_each_task_was_given():
  start = [prefix.FromWords(ids=WORDS), prefix.NormalPrefix(std=0.0)]
  bank = PrefixTuning(
    length=3, tasks=2, initializer=initializers.PerTask(initializers=start)
  ).attach(tiny("gpt2"), nnx.Rngs(0))
  expected = sites.activations(tiny("gpt2"), WORDS)["decoder"].keys
  for layer, attention in enumerate(sites.attentions(bank, "decoder")):
    words, zeros = attention.prefix.keys[...]
    np.testing.assert_array_equal(words, expected[layer])
    assert not zeros.any()


def test_folding_drops_the_network_and_keeps_the_outputs():
  model = tiny("t5")
  method = normal(reparameterization=Reparameterization(hidden=6, width=4), tasks=2)
  attached = method.attach(model, nnx.Rngs(3))
  folded = method.fold(attached)
  assert not any("network" in name for name in paths.named_leaves(folded))
  batch = batch_from(model, *texts(model), prompt_ids=np.asarray([1, 0], np.int32))
  np.testing.assert_array_equal(logits(folded, batch), logits(attached, batch))
  paths.match(method.folded().parameters, paths.named_leaves(folded))


def test_the_network_is_fitted_to_the_activations_of_words_and_its_table_is_not():
  model = tiny("gpt2")
  shape = Reparameterization(hidden=40, width=30, fit_steps=400, fit_learning_rate=1e-2)
  method = PrefixTuning(
    length=2, initializer=prefix.FromWords(ids=WORDS[:2]), reparameterization=shape
  )
  start = method.attach(model, nnx.Rngs(3))
  plain = PrefixTuning(length=2, reparameterization=shape).attach(model, nnx.Rngs(3))
  network, drawn = start.prefix_network.decoder, plain.prefix_network.decoder
  np.testing.assert_array_equal(network.table[...], drawn.table[...])
  wanted = sites.activations(model, WORDS[:2])["decoder"]
  error = [float(jnp.mean(jnp.square(made().keys - wanted.keys))) for made in (drawn, network)]
  assert error[1] < 1e-3 * error[0]


def test_dropout_of_the_prefix_happens_in_training_only():
  model = tiny("bart")
  plain, dropped = (normal(dropout_rate=rate).attach(model, nnx.Rngs(3)) for rate in (0.0, 0.5))
  batch = batch_from(model, *texts(model))
  np.testing.assert_array_equal(logits(dropped, batch), logits(plain, batch))
  keyed = [dropped.hidden(batch, key=jax.random.key(seed)) for seed in (0, 0, 1)]
  np.testing.assert_array_equal(keyed[0], keyed[1])
  assert np.abs(keyed[0] - keyed[2]).max() > 1e-3


def test_sites_are_switched_one_by_one_and_detached_together():
  model = tiny("t5")
  for site in sites.PLACES:
    attached = normal(sites=[site]).attach(model, nnx.Rngs(3))
    assert sites.occupied(attached) == [site]
    detached = normal().detach(attached)
    assert sites.occupied(detached) == []
    same_arrays(detached, model)


def test_what_does_not_fit_is_refused_with_a_sentence():
  model = tiny("gpt2")
  with pytest.raises(errors.ConfigError, match="site 'cross', and DecoderLM has decoder"):
    PrefixTuning(sites=["cross"]).attach(model, nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="already has a prefix"):
    PrefixTuning().attach(PrefixTuning().attach(model, nnx.Rngs(0)), nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="no prefix to detach"):
    PrefixTuning().detach(model)
  with pytest.raises(errors.ConfigError, match="length 2 cannot start from 3 tokens"):
    PrefixTuning(length=2, initializer=prefix.FromWords(ids=WORDS)).attach(model, nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match=r"\[99\] cannot be run"):
    PrefixTuning(initializer=prefix.FromWords(ids=[99])).attach(model, nnx.Rngs(0))
  arrays = {"decoder": (np.zeros((2, 2, LENGTH, 4)),) * 2}
  with pytest.raises(errors.ConfigError, match=r"needs \[2, 2, 3, 6\]"):
    start = prefix.FromArrays(arrays=arrays)
    PrefixTuning(length=LENGTH, initializer=start).attach(model, nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="banks of 2 and 3 tasks"):
    both = SoftPrompt(length=2, tasks=2).attach(model, nnx.Rngs(0))
    prompt_count(PrefixTuning(tasks=3).attach(both, nnx.Rngs(0)))
  for fields, words in (
    ({"length": 0}, "length is 0"),
    ({"sites": ["middle"]}, "middle"),
    ({"positions": "none"}, "'none'"),
    ({"dropout_rate": 1.0}, "dropout_rate=1.0 must"),
    ({"initializer": "normal"}, "no initializer"),
  ):
    with pytest.raises(errors.ConfigError, match=words):
      PrefixTuning(**fields)
