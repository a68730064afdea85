"""Infix tuning: the vectors stand between the input and its last token, and x does not see them."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

import tiny_models
from promot_jax import errors, paths
from promot_jax.methods import initializers
from promot_jax.methods.infix import InfixTuning, InfixVectors
from promot_jax.methods.prefix import PrefixTuning
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models.scanning import stack_layers
from tiny_models import same_arrays, tiny

LENGTH = 3
SOURCE = np.asarray([[4, 9, 6, 17, 12], [8, 3, 12, -1, -1]], np.int32)  # the last token separates
TARGET = np.asarray([[5, 7, 11, 1], [6, 13, 1, -1]], np.int32)
INFIX = [14, 3, 10]


def model():
  return tiny("llama")


@functools.partial(jax.jit, static_argnames="graphdef")
def _run(state, batch, graphdef):
  whole = nnx.merge(graphdef, state)
  logits = whole.logits(whole.hidden(batch))
  steps, cache = [], None
  first, cache = whole.prefill(
    {"encoder_input_tokens": batch["encoder_input_tokens"]}, max_length=4
  )
  steps.append(first)
  for position in range(3):
    following, cache = whole.decode_step(batch["decoder_target_tokens"][:, position], cache)
    steps.append(following)
  return logits, jax.numpy.stack(steps, axis=1)


def run(attached, source=SOURCE):
  graphdef, state = nnx.split(attached)
  batch = {"encoder_input_tokens": source, "decoder_target_tokens": TARGET}
  return [np.asarray(leaf)[:, :3] for leaf in _run(state, batch, graphdef)]


close = functools.partial(tiny_models.close, relative=3e-6)


def test_an_infix_of_embedded_words_is_these_words_before_the_last_token():
  method = InfixTuning(
    length=3, depth="embedding", initializer=initializers.FromText(ids=INFIX, fill=None)
  )
  longer = np.full((2, 8), -1, np.int32)
  for row, tokens in enumerate(SOURCE):
    real = [token for token in tokens if token >= 0]
    joined = [*real[:-1], *INFIX, real[-1]]
    longer[row, : len(joined)] = joined
  expected, _ = run(model(), longer)
  forced, stepped = run(method.attach(model(), nnx.Rngs(1)))
  close(forced, expected)
  close(stepped, expected)


def test_added_keys_and_values_reach_cached_steps_and_scanned_layers_alike():
  attached = InfixTuning(length=LENGTH, std=1.0).attach(model(), nnx.Rngs(1))
  forced, stepped = run(attached)
  without, _ = run(InfixTuning(length=LENGTH, std=0.0).attach(model(), nnx.Rngs(1)))
  assert np.abs(forced - without).max() > 1e-2 * np.abs(forced).max()
  close(stepped, forced)
  for found in run(stack_layers(attached)):
    close(found, forced)


def test_the_input_does_not_see_the_infix():
  attached = InfixTuning(length=LENGTH, std=1.0).attach(model(), nnx.Rngs(1))
  batch = {"encoder_input_tokens": SOURCE}
  plain, _ = model().encode(batch)
  seen, mask = attached.encode(batch)
  np.testing.assert_allclose(seen[0, :4], plain[0, :4], atol=1e-6)
  np.testing.assert_array_equal(mask[1], [1, 1, 0, 0, 0, 1, 1, 1, 1])


def test_detaching_gives_the_backbone_back():
  method = InfixTuning(length=LENGTH)
  attached = method.attach(model(), nnx.Rngs(1))
  assert len(paths.match(method.parameters, paths.named_leaves(attached))) == 1 + 2 * 2
  same_arrays(method.detach(attached), model())


def test_what_has_no_place_between_input_and_output_is_refused():
  with pytest.raises(
    errors.ConfigError, match="reads x in its encoder and writes y in its decoder"
  ):
    InfixTuning().attach(tiny("t5"), nnx.Rngs(0))
  for other in (SoftPrompt(length=2), PrefixTuning(length=2)):
    with pytest.raises(errors.ConfigError, match="is taken"):
      InfixTuning().attach(other.attach(model(), nnx.Rngs(0)), nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="no infix"):
    InfixTuning().detach(SoftPrompt(length=2).attach(model(), nnx.Rngs(0)))
  with pytest.raises(errors.ConfigError, match="depth is 'deep'"):
    InfixTuning(depth="deep")


def test_the_last_real_token_is_moved_whichever_side_is_padded():
  embeddings = np.arange(2 * 3 * 1, dtype=np.float32).reshape(2, 3, 1) + 1
  mask = np.asarray([[True, True, False], [False, True, True]])
  found, seen = InfixVectors(np.full((1, 1), 9.0))(embeddings, mask)
  np.testing.assert_array_equal(found[:, 3:, 0], [[9, 2], [9, 6]])
  np.testing.assert_array_equal(seen, [[1, 0, 0, 1, 1], [0, 1, 0, 1, 1]])
