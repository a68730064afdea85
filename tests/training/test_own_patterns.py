"""The words 'method' and '!method' in what a stage trains."""

import pytest

from promot_jax.errors import ConfigError
from promot_jax.methods import base
from promot_jax.methods.bias import BitFit
from promot_jax.methods.combined import Combined
from promot_jax.methods.lora import LoRA


@pytest.mark.parametrize(
  ("patterns", "expected"),
  [
    ("method", ("bitfit/.*",)),
    ("!method", ("!bitfit/.*",)),
    (["method", "token_embedder/.*"], ("bitfit/.*", "token_embedder/.*")),
    (".*/prompt/.*", ".*/prompt/.*"),
    (["encoder/method"], ["encoder/method"]),
  ],
)
def test_the_word_stands_for_the_methods_own_pattern(patterns, expected):
  assert base.own_patterns(patterns, BitFit(), owner="Stage 'a'") == expected


def test_of_combined_methods_it_stands_for_the_patterns_of_all():
  (found,) = base.own_patterns("method", Combined(methods=[LoRA(), BitFit()]), owner="Stage 'a'")
  assert LoRA.parameters in found and BitFit.parameters in found


def test_without_a_method_the_word_is_refused():
  with pytest.raises(ConfigError, match="Stage 'a' trains 'method', and its experiment has no"):
    base.own_patterns("method", None, owner="Stage 'a'")
