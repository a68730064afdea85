"""The benchmarks compare equal work: from equal values both sides' losses are equal, before and after
an update.  Tiny shapes; what the steps cost is no matter for a test."""

import os
import pathlib
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [torch] extra")
pytest.importorskip("transformers", reason="needs the [torch] extra")
pytest.importorskip("peft", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def tuned_models(monkeypatch):
  monkeypatch.syspath_prepend(str(FOLDER))
  with mock.patch.dict(os.environ):  # the benchmarks set some for a process of their own
    import side_by_side  # noqa: F401
    import tuned_models
  return tuned_models


# The decoder of this T5 has fewer layers than the encoder, by which PEFT sizes its prefix.
@pytest.mark.parametrize("case_name,method", [("quick", "prefix"), ("quick-gpt2", "lora")])
def test_both_sides_of_the_benchmark_of_methods_have_equal_losses(tuned_models, case_name, method):
  import side_by_side

  case = side_by_side.CASES[case_name]
  weights = side_by_side.initial_weights(case.config)
  ours, theirs = tuned_models.pair(case, weights, method)
  for seed, tolerance in ((0, 5e-5), (1, 5e-3)):  # as in the benchmark
    batch = side_by_side.make_batch(case, seed)
    np.testing.assert_allclose(ours(batch), theirs(batch), rtol=tolerance)


@pytest.mark.parametrize("case_name,undefined", [("quick", {"infix"}), ("quick-gpt2", set())])
def test_the_benchmark_of_methods_has_every_method(tuned_models, case_name, undefined):
  import side_by_side

  names = {
    "full", "prompt", "p_tuning", "prefix", "prefix_network", "infix", "lora", "ia3", "adapter",
    "adapter_lin", "bitfit", "top_layers",
  }  # fmt: skip
  assert set(tuned_models.methods(side_by_side.CASES[case_name])) == names - undefined
