"""Settings that methods have in common are checked when a method is written down."""

import pytest

from promot_jax import errors
from promot_jax.methods.adapter import Adapter
from promot_jax.methods.head import PredictionHead
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.infix import InfixTuning
from promot_jax.methods.initializers import RandomUniform
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prefix import PrefixTuning, Reparameterization
from promot_jax.methods.prefix_initializers import NormalPrefix, UniformPrefix
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


NUMBERS = [
  (Adapter, "std"),
  (InfixTuning, "std"),
  (LoRA, "alpha"),
  (NormalPrefix, "std"),
  (PredictionHead, "std"),
  (RandomUniform, "lowest"),
  (RandomUniform, "scale"),
  (Reparameterization, "fit_learning_rate"),
  (UniformPrefix, "highest"),
  (UniformPrefix, "lowest"),
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
  with pytest.raises(errors.ConfigError, match=r"dropout_rate=.*at least 0 and below 1"):
    kind(dropout_rate=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, "1", True])
@pytest.mark.parametrize("kind,name", NUMBERS)
def test_what_is_measured_is_a_finite_number(kind, name, value):
  words = rf"{kind.__name__}: {name}=.* must be a finite number"
  with pytest.raises(errors.ConfigError, match=words):
    kind(**{name: value})


def test_spreads_may_be_nothing_but_not_less():
  assert NormalPrefix(std=0).std == 0 and UniformPrefix(lowest=-1).lowest == -1
  for kind in (Adapter, InfixTuning, NormalPrefix, PredictionHead):
    with pytest.raises(errors.ConfigError, match=r"std=-0\.1 .* at least 0"):
      kind(std=-0.1)
  with pytest.raises(errors.ConfigError, match=r"LoRA: alpha=0 .* above 0"):
    LoRA(alpha=0)
  with pytest.raises(
    errors.ConfigError, match=r"UniformPrefix: lowest=1 must be below highest=1\.0"
  ):
    UniformPrefix(lowest=1)


def test_patterns_and_shares_that_are_none_are_refused():
  for targets in (None, [], ""):
    with pytest.raises(errors.ConfigError, match=r"LoRA\.targets is .*give patterns"):
      LoRA(targets=targets)
  with pytest.raises(errors.ConfigError, match=r"Adapter\.share is '3%'; it is a fraction"):
    Adapter(bottleneck=None, share="3%")


def test_a_single_name_is_a_list_of_one():
  assert PrefixTuning(sites="decoder") == PrefixTuning(sites=["decoder"])
  assert TopLayers(stacks="encoder").stacks == ("encoder",)
