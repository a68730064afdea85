"""TIES with each array trimmed by itself, against PEFT's."""

import jax.numpy as jnp
import numpy as np
import pytest

from promot_jax.networks.operations import Parameters
from promot_jax.networks.ties import Ties

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("density", [0.2, 0.55, 1.0])
def test_ties_of_each_array_is_that_of_peft(density):
  torch = pytest.importorskip("torch")
  merge = pytest.importorskip("peft.utils.merge_utils")
  draw = np.random.default_rng(0)
  base, *members = draw.normal(size=(4, 20, 30)).astype(np.float32)
  moves = [torch.from_numpy(member - base) for member in members]
  expected = base + merge.ties(moves, torch.ones(3), density).numpy()
  networks = [
    Parameters(shapes={"a": array.shape}, read=lambda name, array=array: jnp.asarray(array))
    for array in (base, *members)
  ]
  found = Ties(density=density, trim="array").on(networks[0], networks[1:])("a")
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
