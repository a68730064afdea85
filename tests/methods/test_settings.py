"""Settings that methods have in common are checked when a method is written down."""

import pytest

from promot_jax import errors
from promot_jax.methods.adapter import Adapter
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.infix import InfixTuning
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prefix import PrefixTuning, Reparameterization
from promot_jax.methods.prompt import PromptNetwork, SoftPrompt
from promot_jax.methods.top_layers import TopLayers
from promot_jax.probing.probe import Probe

COUNTS = [
  (Adapter, "bottleneck"),
  (IA3, "tasks"),
  (InfixTuning, "length"),
  (LoRA, "rank"),
  (PrefixTuning, "length"),
  (Reparameterization, "width"),
  (Probe, "layer"),
  (PromptNetwork, "hidden"),
  (SoftPrompt, "tasks"),
  (TopLayers, "layers"),
]


@pytest.mark.parametrize("value", [0, -3, 2.5, "four", True])
@pytest.mark.parametrize("kind,name", COUNTS)
def test_what_is_counted_is_a_whole_number_of_at_least_one(kind, name, value):
  words = rf"{kind.__name__}\.{name} is {value!r}; it must be a whole number, at least 1"
  with pytest.raises(errors.ConfigError, match=words):
    kind(**{name: value})


@pytest.mark.parametrize("value", [1.0, -0.1, "0.1", None])
@pytest.mark.parametrize("kind", [LoRA, PrefixTuning])
def test_what_is_dropped_is_a_share_below_one(kind, value):
  with pytest.raises(errors.ConfigError, match=r"dropout_rate is .*at least 0 and below 1"):
    kind(dropout_rate=value)


def test_patterns_and_shares_that_are_none_are_refused():
  for targets in (None, [], ""):
    with pytest.raises(errors.ConfigError, match=r"LoRA\.targets is .*give patterns"):
      LoRA(targets=targets)
  with pytest.raises(errors.ConfigError, match=r"Adapter\.share is '3%'; it is a fraction"):
    Adapter(bottleneck=None, share="3%")


def test_a_single_name_is_a_list_of_one():
  assert PrefixTuning(sites="decoder") == PrefixTuning(sites=["decoder"])
  assert TopLayers(stacks="encoder").stacks == ("encoder",)
