"""Methods that read features of the batch: prompts and keys that each example's own input decides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Beam
from promot_jax.methods import sites
from promot_jax.methods.prefix_module import Prefix
from promot_jax.methods.prompt import Prompt
from promot_jax.models import preparation, scanning
from promot_jax.models.bart import Bart
from promot_jax.models.bart_config import BartConfig
from promot_jax.models.decoder_lm import DecoderLM
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.t5 import T5
from promot_jax.models.t5_config import T5Config

B, S, T, D, VOCABULARY, LENGTH = 2, 5, 4, 8, 19, 3
SIZES = {"vocab_size": VOCABULARY, "width": D, "heads": 2, "mlp_width": 11}
STACKS = {"encoder_layers": 1, "decoder_layers": 2}
QUICK = {("t5", False), ("bart", True), ("gpt2", False)}
each_form = pytest.mark.parametrize(
  "kind,scanned",
  [
    pytest.param(
      kind,
      scanned,
      marks=[] if (kind, scanned) in QUICK else [pytest.mark.slow],
      id=f"{kind}-{'scanned' if scanned else 'unrolled'}",
    )
    for kind in ("t5", "bart", "gpt2")
    for scanned in (False, True)
  ],
)


class PromptOfInput(preparation.Generator):
  """Input vectors [B P D] that are a linear function of the embedded input's sum."""

  reads = ("encoder_input_tokens",)

  def __init__(self, kernel):
    self.kernel = nnx.Param(kernel)  # [D P*D]

  def fill(self, model, call):
    tokens = call.feature("encoder_input_tokens")
    reader = getattr(model, "encoder", model.decoder)
    reader.prompt = Prompt(self.vectors(model.token_embedder(tokens)))

  def vectors(self, embedded):
    """[B S D] -> [B P D]."""
    return (embedded.sum(axis=1) @ self.kernel[...]).reshape(-1, LENGTH, D)


class ScaledPrefix(preparation.Unready):
  """A prefix that is multiplied by a feature `weight` [B] of each example."""

  reads = ("weight",)

  def __init__(self, prefix):
    self.own = prefix

  def waits(self, call):
    return True

  def ready(self, call):
    weight = call.feature("weight")[:, None, None, None]
    # [... G P K] -> [... B G P K]: scanned layers have their axis in front
    keys, values = (leaf[..., None, :, :, :] for leaf in (self.own.keys[...], self.own.values[...]))
    return Prefix(keys * weight, values * weight)


@functools.cache
def backbone(kind, scanned):
  rngs = nnx.Rngs(0)
  if kind == "t5":
    model = T5(T5Config(**SIZES, **STACKS, head_width=5), rngs)
  elif kind == "bart":
    model = Bart(BartConfig(**SIZES, **STACKS, max_positions=16, init_std=0.3), rngs)
  else:
    one = {"layers": 2, "head_width": 6, "eos": 1, "embedding_std": 0.3, "init_std": 0.3}
    config = DecoderLMConfig(**SIZES, **one)
    model = DecoderLM(config, rngs)
  return scanning.stack_layers(model) if scanned else model


def site_of(model):
  return "cross" if hasattr(model, "encoder") else "decoder"


def drawn(model):
  """(kernel of the prompt, keys and values of the prefix) at random."""
  random = np.random.default_rng(1)
  shape = sites.sites(model)[site_of(model)].shape(2)

  def draw(*shape):
    return jnp.asarray(random.normal(size=shape), jnp.float32)

  return 0.3 * draw(D, LENGTH * D), draw(*shape), draw(*shape)


def reading(model):
  """The model with a prompt and a prefix that read the batch."""
  kernel, keys, values = drawn(model)
  model = paths.copy(model)
  model.prompt_network = PromptOfInput(kernel)
  sites.fill(model, site_of(model), lambda take: ScaledPrefix(Prefix(take(keys), take(values))))
  return model


def fixed(model, batch, row):
  """The model with what one example's features make of it, as parameters that read nothing."""
  kernel, keys, values = drawn(model)
  embedded = model.token_embedder.embedding[...][batch["encoder_input_tokens"][row]]
  model = paths.copy(model)
  reader = getattr(model, "encoder", model.decoder)
  reader.prompt = Prompt((embedded.sum(axis=0) @ kernel).reshape(LENGTH, D))
  weight = batch["weight"][row]
  sites.fill(model, site_of(model), lambda take: Prefix(take(keys) * weight, take(values) * weight))
  return model


def batch_of(model):
  random = np.random.default_rng(2)
  target = random.integers(3, VOCABULARY, (B, T)).astype(np.int32)
  start = np.full((B, 1), model.config.decoder_start or 0, np.int32)
  return {
    "encoder_input_tokens": random.integers(3, VOCABULARY, (B, S)).astype(np.int32),
    "decoder_input_tokens": np.concatenate([start, target[:, :-1]], axis=1),
    "decoder_target_tokens": target,
    "weight": np.asarray([0.5, -2.0], np.float32),
  }


@functools.partial(jax.jit, static_argnames="graphdef")
def _logits(state, batch, graphdef):
  model = nnx.merge(graphdef, state)
  return model.logits(model.hidden(batch))


def logits(model, batch):
  graphdef, state = nnx.split(model)
  return np.asarray(_logits(state, batch, graphdef))


@each_form
def test_each_example_gets_what_its_own_features_make_of_the_network(kind, scanned):
  plain = backbone(kind, scanned)
  model, batch = reading(plain), batch_of(plain)
  found = logits(model, batch)
  for row in range(B):
    alone = {name: leaf[row : row + 1] for name, leaf in batch.items()}
    np.testing.assert_allclose(found[row], logits(fixed(plain, batch, row), alone)[0], atol=2e-5)
    assert np.abs(found[row] - logits(fixed(plain, batch, 1 - row), alone)[0]).max() > 1e-2


@each_form
def test_cached_decoding_reads_the_features_of_the_batch_that_it_began_with(kind, scanned):
  plain = backbone(kind, scanned)
  model, batch = reading(plain), batch_of(plain)
  expected = logits(model, batch)

  @jax.jit
  def decoded(batch):
    # The model is not prepared beforehand, and each example has two rows.
    given = {name: batch[name] for name in ("encoder_input_tokens", "weight")}
    first, cache = model.prefill(given, max_length=T)
    cache, found = cache.repeat(2), [jnp.repeat(first, 2, axis=0)]
    for position in range(T - 1):
      tokens = jnp.repeat(batch["decoder_target_tokens"][:, position], 2)
      logits, cache = model.decode_step(tokens, cache)
      found.append(logits)
    return jnp.stack(found, axis=1), cache.features

  found, features = decoded(batch)
  np.testing.assert_allclose(found, np.repeat(expected, 2, axis=0), atol=2e-5)
  assert set(features) == {"encoder_input_tokens", "weight"}


def test_a_beam_of_a_batch_finds_what_each_example_finds_alone():
  plain = backbone("t5", False)
  model, batch = reading(plain), batch_of(plain)
  given = {"strategy": Beam(width=3), "max_length": T}
  together = generate(model, batch, **given)
  for row in range(B):
    alone = {name: leaf[row : row + 1] for name, leaf in batch.items()}
    expected = generate(fixed(plain, batch, row), alone, **given)
    np.testing.assert_array_equal(together.tokens[row], expected.tokens[0])
    np.testing.assert_allclose(together.scores[row], expected.scores[0], rtol=1e-5, atol=1e-5)


def test_a_feature_that_the_batch_lacks_is_named():
  model = reading(backbone("t5", False))
  batch = batch_of(model)
  del batch["weight"]
  with pytest.raises(errors.ConfigError, match="reads 'weight' of each example"):
    jax.eval_shape(model.hidden, batch)
  with pytest.raises(errors.ConfigError, match="reads 'weight' of each example"):
    generate(model, batch, strategy=Beam(width=2), max_length=2)


def test_a_feature_that_is_not_declared_cannot_be_read():
  class Undeclared(PromptOfInput):
    reads = ()

  model = paths.copy(backbone("t5", False))
  model.prompt_network = Undeclared(drawn(model)[0])
  # A decode could not give it at later steps, so it must not work at the first one either.
  with pytest.raises(errors.ConfigError, match="encoder_input_tokens"):
    jax.eval_shape(model.hidden, batch_of(model))


def test_a_network_without_such_modules_is_not_copied():
  model = backbone("t5", False)
  assert preparation.prepare(model, batch_of(model)) is model
  assert preparation.features_read(model, batch_of(model)) == {}
