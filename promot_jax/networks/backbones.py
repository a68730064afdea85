"""From a backbone's configuration to the network: the one place that knows which type makes which."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from promot_jax.errors import ConfigError
from promot_jax.models.backbone import Backbone
from promot_jax.models.bart import Bart
from promot_jax.models.bart_config import BartConfig
from promot_jax.models.bert import Bert
from promot_jax.models.bert_config import BertConfig
from promot_jax.models.decoder_lm import DecoderLM
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.t5 import T5
from promot_jax.models.t5_config import T5Config

_NETWORKS: dict[type, Callable[[Any, nnx.Rngs], Backbone | Bert]] = {
  BartConfig: Bart,
  BertConfig: Bert,
  DecoderLMConfig: DecoderLM,
  T5Config: T5,
}


def build(config: Any, rngs: nnx.Rngs) -> Any:
  """A freshly initialized network.

  Raises:
    ConfigError: no network is made from a configuration of this type.
  """
  network = _NETWORKS.get(type(config))
  if network is None:
    known = ", ".join(kind.__name__ for kind in _NETWORKS)
    raise ConfigError(
      f"MODEL is a {type(config).__name__}; it must be the configuration of a backbone: {known}."
    )
  return network(config, rngs)
