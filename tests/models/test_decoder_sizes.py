"""The named decoder-only sizes have exactly the parameters of the published checkpoints."""

import pytest
from flax import nnx

from promot_jax import partitioning, paths
from promot_jax.models import decoder_sizes
from promot_jax.models.decoder_lm import DecoderLM

# Parameters of the released checkpoints, tied tables counted once.  Of PaLM 8B ("8.63 billion" in
# the paper), written out: 32 layers of query and out 4096 x 4096, key and value 4096 x 256, three
# mlp kernels 4096 x 16384 and a norm; the table; the last norm.
PUBLISHED = {
  "gpt2_small": 124_439_808,
  "gpt2_medium": 354_823_168,
  "gpt2_large": 774_030_080,
  "gpt2_xl": 1_557_611_200,
  "llama_like_1b": 1_235_814_400,
  "llama_like_3b": 3_212_749_824,
  "llama_like_8b": 8_030_261_248,
  "palm_8b": 32 * (2 * 4096 * (4096 + 256) + 3 * 4096 * 16_384 + 4096) + 256_001 * 4096,
}


def abstract(size, **changes):
  # Scanned: one layer is traced instead of up to 48, and nothing is allocated.
  config = decoder_sizes.SIZES[size](scan_layers=True, **changes)
  return nnx.eval_shape(lambda: DecoderLM(config, nnx.Rngs(0)))


def test_every_size_is_checked():
  assert PUBLISHED.keys() == decoder_sizes.SIZES.keys()


@pytest.mark.parametrize("size", sorted(PUBLISHED))
def test_size_has_the_parameters_of_the_published_checkpoint(size):
  assert paths.count(abstract(size)) == PUBLISHED[size]


def test_a_size_can_be_changed_by_keyword():
  config = decoder_sizes.gpt2_small(dropout_rate=0.1, layers=2, vocab_size=64)
  assert (config.dropout_rate, config.layers, config.vocab_size) == (0.1, 2, 64)
  assert (config.width, config.heads, config.pad) == (768, 12, -1)


def test_the_large_weights_of_eight_billion_parameters_are_divided_over_a_mesh():
  for size in ("palm_8b", "llama_like_8b"):
    plan = partitioning.byte_plan(abstract(size), {"data": 4, "model": 8})
    assert plan.parameters < 4 * PUBLISHED[size] / 8 * 1.001


def test_biases_are_divided_like_the_kernels_that_they_are_added_to():
  spec = partitioning.T5_RULES.spec
  layer = "decoder/layers/3"
  for name in ("self_attention/query", "self_attention/key", "self_attention/value", "mlp/wi"):
    kernel, bias = spec(f"{layer}/{name}/kernel", (8, 16)), spec(f"{layer}/{name}/bias", (16,))
    assert tuple(bias) == tuple(kernel)[1:] == ("model",)
  for name in ("self_attention/out", "mlp/wo"):
    assert tuple(spec(f"{layer}/{name}/bias", (16,))) == (None,)
  assert tuple(spec("decoder/position_embedder/embedding", (40, 16))) == (None, None)


def test_the_vocabulary_of_gpt2_needs_padding_to_be_divided():
  from promot_jax.errors import ConfigError

  with pytest.raises(ConfigError, match="token_embedder/embedding"):
    partitioning.byte_plan(abstract("gpt2_small"), {"data": 1, "model": 2})
  padded = abstract("gpt2_small", vocab_size=50_304)
  partitioning.byte_plan(padded, {"data": 1, "model": 2})
