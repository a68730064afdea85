"""A network with the method of a file: what another run, or PEFT, trained beside the same backbone."""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from promot_jax import identity
from promot_jax.errors import ConfigError
from promot_jax.identity import Part
from promot_jax.methods import files
from promot_jax.methods.formats import Trained
from promot_jax.networks import trained_methods
from promot_jax.networks.network import AnyNetwork, Load, require

RECIPE_VALUES = ("Adapted",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapted:
  """A network, and the place of the values that a method trained on top of it.

  network: whatever the method was trained with; its arrays are shared with whoever else has them.
  method: a method file (`promot convert RUN FILE --to=method`), or an adapter of PEFT: its folder, or
    'hf:NAME'.
  """

  network: AnyNetwork
  method: str

  def __post_init__(self):
    require(self.network, what="Adapted.network")
    if not isinstance(self.method, str) or not self.method:
      raise ConfigError(
        f"Adapted.method={self.method!r} is no path; name a method file, or an adapter of PEFT."
      )

  @property
  def backbone(self) -> Any:
    return self.network.backbone

  @property
  def vocabulary(self) -> str:
    return self.network.vocabulary

  @property
  def about(self) -> str:
    return f"{self.network.about} with the method of {self.method}"

  @property
  def pretrained(self) -> AnyNetwork:
    return self.network.pretrained

  @property
  def settings(self) -> dict[str, Any]:
    return self.network.settings

  def seeded(self, seed: int) -> "Adapted":
    return dataclasses.replace(self, network=self.network.seeded(seed))

  def spelled(self, vocabulary: str) -> "Adapted":
    return dataclasses.replace(self, network=self.network.spelled(vocabulary))

  def identity(self) -> str:
    return f"{self.network.identity()}/method {self.method_digest()}"

  def content(self) -> Part | None:
    return self.network.content()  # the file's is in the identity

  def check(self) -> None:
    """As the protocol says; also that the file belongs to a network of these shapes.

    Whether it was trained with these very weights is seen when they are there (`build`).
    """
    self.abstract()
    self.network.check()

  def abstract(self, *, load: Load | None = None) -> Any:
    network = load(self.network) if load else self.network.abstract()
    return trained_methods.attached_shapes(network, self.trained(), where=self.method)

  def build(
    self,
    mesh: Mesh | None = None,
    *,
    load: Load | None = None,
    report: Callable[[str], None] = lambda line: None,
  ) -> nnx.Module:
    # Through `load`, so that the arrays of the backbone are those that the start and other
    # adapters have.
    network = load(self.network) if load else self.network.build(mesh, report=report)
    given = self.trained()
    model, method = trained_methods.attached(network, given, where=self.method, mesh=mesh)
    report(f"start     {self.method}: {type(method).__name__}, {len(given.leaves)} arrays attached")
    return model

  def trained(self) -> Trained:
    """What the file holds; raises what `methods.files.open_method` raises."""
    return files.open_method(self.method, self.backbone)[1]

  def method_digest(self) -> str:
    """Tells the values of the file apart; raises as `trained`."""
    return identity.of_file(files.open_method(self.method, self.backbone)[0])
