"""Networks that are built once and kept, for everybody who names the same one; also as shapes only."""

from collections.abc import Callable
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from promot_jax import hosts
from promot_jax.networks.network import AnyNetwork


class Loaded:
  """The built networks of one mesh.

  Networks that are equal are the same model, so that its arrays are there once; so are those of the
  networks that another one is made of.
  """

  def __init__(self, mesh: Mesh | None, report: Callable[[str], None]):
    self.mesh = mesh
    self._report = report
    self._kept: list[tuple[AnyNetwork, nnx.Module]] = []

  def model(self, network: AnyNetwork) -> nnx.Module:
    """The model of a network, built the first time that it is asked for; raises what `build` raises."""
    for known, model in self._kept:
      if known == network:
        return model
    # Where one process cannot read a checkpoint, all of them end with its sentence.
    model = hosts.together(lambda: network.build(self.mesh, load=self.model, report=self._report))
    self._kept.append((network, model))
    return model

  def keep_only(self, *networks: AnyNetwork) -> None:
    """Forgets all other networks; arrays that nobody else holds are freed."""
    self._kept = [entry for entry in self._kept if entry[0] in networks]


class Shapes:
  """The shapes of networks as `Loaded` would have the arrays: what is one array there is one object."""

  def __init__(self):
    self._kept: list[tuple[AnyNetwork, Any]] = []

  def model(self, network: AnyNetwork) -> Any:
    """The shapes of a network, made the first time that they are asked for."""
    for known, model in self._kept:
      if known == network:
        return model
    model = network.abstract(load=self.model)
    self._kept.append((network, model))
    return model
