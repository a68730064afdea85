"""Every backbone is what `Backbone` says; what only decodes is not."""

import inspect

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax.models import bart_sizes, decoder_sizes, sizes, stack
from promot_jax.models.backbone import Backbone, Decodable
from promot_jax.models.bart import Bart
from promot_jax.models.decoder_lm import DecoderLM
from promot_jax.models.t5 import T5
from promot_jax.token_ids import TokenIds
from tiny_models import batch_of, tiny

BACKBONES = {
  "t5": (lambda: T5(sizes.t5_1_1_small(), nnx.Rngs(0)), TokenIds(pad=0, eos=1, decoder_start=0)),
  "tied t5": (lambda: T5(sizes.t5_small(), nnx.Rngs(0)), TokenIds(pad=0, eos=1, decoder_start=0)),
  "bart": (
    lambda: Bart(bart_sizes.bart_base(), nnx.Rngs(0)),
    TokenIds(pad=1, eos=2, decoder_start=2, forced_first=0, forced_last=2),
  ),
  "gpt2": (
    lambda: DecoderLM(decoder_sizes.gpt2_small(), nnx.Rngs(0)),
    TokenIds(pad=-1, eos=50256, decoder_start=None),
  ),
}


@pytest.mark.parametrize("make, ids", BACKBONES.values(), ids=BACKBONES)
def test_a_backbone_has_a_readout_a_reader_and_token_ids(make, ids):
  model = nnx.eval_shape(make)
  assert isinstance(model, Decodable)
  for name, wanted in inspect.getmembers(Backbone, inspect.isfunction):
    if not name.startswith("_"):
      assert (
        inspect.signature(getattr(type(model), name)).parameters.keys()
        == inspect.signature(wanted).parameters.keys()
      )
  assert model.reader.prompt is None
  assert TokenIds.of(model) == TokenIds.of(model.config) == ids
  readout = jax.eval_shape(
    lambda state: nnx.merge(nnx.split(model)[0], state).readout, nnx.state(model)
  )
  assert readout.kernel.shape == (model.config.width, model.config.vocab_size)
  assert (readout.bias is not None) == (model.config.__class__.__name__ == "BartConfig")


def test_a_module_is_no_backbone():
  assert not isinstance(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), Decodable)


@pytest.mark.parametrize("make", [make for make, _ in BACKBONES.values()], ids=BACKBONES)
def test_stacks_are_told_by_configuration_and_model_alike(make):
  model = nnx.eval_shape(make)
  assert {
    name: stack.count(part.layers) for name, part in model.stacks.items()
  } == model.config.stack_layers
  assert model.reader is next(iter(model.stacks.values()))
  for name, part in model.stacks.items():
    assert getattr(model, name) is part


@pytest.mark.parametrize("kind", ["t5", "bart", "gpt2"])
def test_embeddings_are_read_in_place_of_their_tokens_when_decoding_begins(kind):
  model = tiny(kind)
  batch = batch_of(model)
  embeddings = model.token_embedder(np.maximum(batch["encoder_input_tokens"], 0))
  expected, _ = model.prefill(batch, max_length=3)
  logits, cache = model.prefill(batch, max_length=3, input_embeddings=embeddings)
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
  other, _ = model.prefill(batch, max_length=3, input_embeddings=embeddings[:, ::-1])
  assert np.abs(np.asarray(other - expected)).max() > 1e-3
  assert cache.position.shape == ()
