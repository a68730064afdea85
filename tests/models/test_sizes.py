"""The named sizes have exactly the parameters of the published checkpoints."""

import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.models import T5, sizes

# Parameters of the released checkpoints, tied tables counted once.
PUBLISHED = {
  "t5_small": 60_506_624,
  "t5_base": 222_903_552,
  "t5_large": 737_668_096,
  "t5_3b": 2_851_598_336,
  "t5_11b": 11_307_321_344,
  "t5_1_1_small": 76_961_152,
  "t5_1_1_base": 247_577_856,
  "t5_1_1_large": 783_150_080,
  "t5_1_1_xl": 2_849_757_184,
  "t5_1_1_xxl": 11_135_332_352,
  "mt5_small": 300_176_768,
  "mt5_base": 582_401_280,
  "mt5_large": 1_229_581_312,
  "mt5_xl": 3_742_619_648,
  "mt5_xxl": 12_921_057_280,
  "umt5_small": 306_601_984,
  "umt5_base": 592_043_520,
  "umt5_xl": 3_768_356_864,
  "umt5_xxl": 12_972_531_712,
}


@pytest.mark.parametrize("size", sorted(PUBLISHED))
def test_size_has_the_parameters_of_the_published_checkpoint(size):
  # Scanned: one layer is traced instead of up to 48, and nothing is allocated.
  config = sizes.SIZES[size](scan_layers=True)
  assert paths.count(nnx.eval_shape(lambda: T5(config, nnx.Rngs(0)))) == PUBLISHED[size]


def test_micro_has_the_parameters_of_the_feasibility_study():
  config = sizes.micro(vocab_size=614)
  assert paths.count(nnx.eval_shape(lambda: T5(config, nnx.Rngs(0)))) == 945_408


def test_a_size_can_be_changed_by_keyword():
  config = sizes.t5_1_1_base(dropout_rate=0.1, decoder_layers=2, vocab_size=64)
  assert (config.dropout_rate, config.decoder_layers, config.vocab_size) == (0.1, 2, 64)
  assert (config.width, config.encoder_layers) == (768, 12)
