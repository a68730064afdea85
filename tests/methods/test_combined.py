"""Several methods as one, and prompts through a network."""

import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import initializers
from promot_jax.methods.combined import Combined
from promot_jax.methods.prefix import PrefixTuning, Reparameterization
from promot_jax.methods.prompt import PromptNetwork, SoftPrompt
from tiny_models import same_arrays, tiny

WIDTH = 12
BATCH = {
  "encoder_input_tokens": np.asarray([[4, 9, 6], [8, 3, 0]], np.int32),
  "decoder_input_tokens": np.asarray([[0, 5], [0, 7]], np.int32),
  "prompt_ids": np.asarray([1, 0], np.int32),
}


def model():
  return tiny("t5", decoder_layers=1)


def both(**fields):
  prompt = SoftPrompt(length=2, **fields)
  return Combined(methods=[prompt, PrefixTuning(length=3)])


def test_together_they_are_what_they_are_one_after_the_other():
  prompt, prefix = both().methods
  together = both().attach(model(), nnx.Rngs(1))
  rngs = nnx.Rngs(1)
  apart = prefix.attach(prompt.attach(model(), rngs), rngs)
  np.testing.assert_array_equal(together.hidden(BATCH), apart.hidden(BATCH))
  names = paths.match(both().parameters, paths.named_leaves(together))
  backbone = paths.named_leaves(model())
  assert set(names) == set(paths.named_leaves(together)) - set(backbone)


def test_detaching_takes_all_of_them_off_bit_for_bit():
  detached = both().detach(both().attach(model(), nnx.Rngs(1)))
  same_arrays(detached, model())


def test_two_of_a_kind_and_nothing_at_all_are_refused():
  twice = Combined(methods=[SoftPrompt(length=2), SoftPrompt(length=3)])
  with pytest.raises(errors.ConfigError, match="already has a soft prompt"):
    twice.attach(model(), nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="is empty"):
    Combined(methods=[])
  with pytest.raises(errors.ConfigError, match="'lora', which is no method"):
    Combined(methods=["lora"])


def test_networks_are_dropped_from_all_of_them_and_outputs_stay():
  method = Combined(
    methods=[
      SoftPrompt(
        length=2,
        tasks=2,
        initializer=initializers.SampledVocabulary(),
        network=PromptNetwork(hidden=5, hidden_layers=2, activation="relu"),
      ),
      PrefixTuning(length=3, tasks=2, reparameterization=Reparameterization(hidden=4)),
    ]
  )
  attached = method.attach(model(), nnx.Rngs(1))
  folded = method.fold(attached)
  assert not any("network" in name for name in paths.named_leaves(folded))
  np.testing.assert_allclose(folded.hidden(BATCH), attached.hidden(BATCH), atol=1e-6)
  detached = method.folded().detach(folded)
  assert list(paths.named_leaves(detached)) == list(paths.named_leaves(model()))


def test_a_prompt_through_a_network_is_the_networks_output():
  network = PromptNetwork(hidden=5, hidden_layers=1, activation="tanh")
  rows = np.random.default_rng(0).normal(size=(2, WIDTH)).astype(np.float32)
  method = SoftPrompt(length=2, initializer=initializers.FromArray(array=rows), network=network)
  attached = method.attach(model(), nnx.Rngs(1))
  first, second = attached.prompt_network.layers
  hidden = np.tanh(rows @ np.asarray(first.kernel[...]) + np.asarray(first.bias[...]))
  expected = hidden @ np.asarray(second.kernel[...]) + np.asarray(second.bias[...])
  found = paths.named_leaves(method.fold(attached))["encoder/prompt/prompt"]
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert np.abs(np.asarray(first.kernel[...])).max() <= WIDTH**-0.5  # as torch draws it
  with pytest.raises(errors.ConfigError, match="already has"):
    method.attach(attached, nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="'sine'"):
    PromptNetwork(activation="sine")
