"""A stage may have another dropout than the backbone, which keeps its own."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from promot_jax import errors
from promot_jax.checkpoints.store import Store
from promot_jax.models import sizes
from promot_jax.models.t5 import T5
from promot_jax.training import stage_dropout
from promot_jax.training.loop import train_stage


@pytest.fixture
def trained(tiny, tmp_path):
  """Digest of the parameters after a stage, and the rate of the model that it hands on."""

  class Dropping(tiny.TinyModel):
    """Drops inputs at its own rate instead of a fixed one."""

    def __init__(self, rate):
      super().__init__(nnx.Rngs(0))
      self.dropout_rate = rate

    def __call__(self, x, key=None):
      if key is not None:
        keep = jax.random.bernoulli(key, 1 - self.dropout_rate, x.shape)
        x = jnp.where(keep, x / (1 - self.dropout_rate), 0)
      return super().__call__(x)

  def call(own, *, stage_rate):
    stage = tiny.make_stage("model", "first/.*", 4, dropout_rate=stage_rate)
    result = train_stage(
      stage,
      Dropping(own),
      batches=tiny.batch_of,
      store=Store(tmp_path / f"{own}-{stage_rate}"),
      seed=3,
    )
    return tiny.digest(result.model), result.model.dropout_rate

  return call


def test_a_stage_trains_with_its_own_dropout_and_hands_on_the_backbones(trained):
  assert trained(0.5, stage_rate=0.25) == (trained(0.25, stage_rate=None)[0], 0.5)


def test_without_a_rate_the_stage_takes_the_backbones(trained):
  assert trained(0.5, stage_rate=None) == trained(0.5, stage_rate=0.5)
  assert trained(0.5, stage_rate=None)[0] != trained(0.0, stage_rate=None)[0]


def test_every_dropout_of_a_backbone_is_set():
  config = sizes.micro(vocab_size=24, dropout_rate=0.1, encoder_layers=1, decoder_layers=1)
  model = T5(config, nnx.Rngs(0))
  changed = stage_dropout.with_rate(model, 0.3)

  def rates(of):
    return {m.dropout_rate for _, m in nnx.iter_modules(of) if hasattr(m, "dropout_rate")}

  assert (rates(model), rates(changed)) == ({0.1}, {0.3})


def test_a_rate_for_a_model_without_dropout_is_refused(tiny):
  with pytest.raises(errors.ConfigError, match="TinyModel has no dropout"):
    stage_dropout.with_rate(tiny.TinyModel(nnx.Rngs(0)), 0.1)
  with pytest.raises(errors.ConfigError, match=r"dropout_rate=1\.0"):
    tiny.make_stage("model", "first/.*", 4, dropout_rate=1.0)
