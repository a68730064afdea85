"""Models that one can name: an architecture, where its values come from, and the words it reads.

A network is a frozen value.  It says what it is (`identity`) and whether it can be made (`check`) before
anything is read, gives its shapes (`abstract`), and makes itself (`build`), with a mesh straight into its
shards.  `Network` is one backbone and one checkpoint; whatever has the same members may stand where it
stands, such as `interpolated.Interpolated`.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
from flax import nnx
from jax.sharding import Mesh

from promot_jax import identity, partitioning, paths
from promot_jax.checkpoints import huggingface, locations, restore, sources
from promot_jax.errors import ConfigError
from promot_jax.identity import Part
from promot_jax.methods.base import Method
from promot_jax.models.ensemble import require_one
from promot_jax.networks import backbones, micro_model
from promot_jax.printable import without_secrets

RECIPE_VALUES = ("Network",)

MICRO = sources.MICRO
"""`checkpoint` of the weights that come with the package."""
RANDOM = sources.RANDOM
"""`checkpoint` of a backbone that keeps its random initialization."""

Load = Callable[["AnyNetwork"], nnx.Module]
"""Gives the built model of a network, the same one each time it is asked for."""


class AnyNetwork(Protocol):
  """What every named model offers.  Implementations are frozen keyword-only dataclasses."""

  @property
  def backbone(self) -> Any:
    """The configuration of the architecture."""

  @property
  def vocabulary(self) -> str:
    """What its texts are made of, as `data.vocabularies` names it."""

  @property
  def about(self) -> str:
    """What a person knows it by, such as the path of its checkpoint."""

  @property
  def pretrained(self) -> "AnyNetwork":
    """The network that training began with; itself, where nothing was trained or several began it."""

  @property
  def settings(self) -> dict[str, Any]:
    """Numbers and choices by which it was put together, for the record of a run."""

  def seeded(self, seed: int) -> "AnyNetwork":
    """The same network; what it draws at random is drawn by this seed, where it has none of its own."""

  def spelled(self, vocabulary: str) -> "AnyNetwork":
    """The same network that is given texts in another vocabulary."""

  def identity(self) -> str:
    """Tells two networks apart without reading all of them: what results and caches are keyed by."""

  def content(self) -> Part | None:
    """Changes with the values that the identity names; None where that takes reading them."""

  def check(self) -> None:
    """Fails now, before data are read and anything is written, if the network cannot be made.

    Raises:
      ConfigError: a checkpoint is absent, no checkpoint, or of another model.
      DamagedCheckpoint: its parts contradict each other, or a value is not finite.
    """

  def abstract(self, *, load: Load | None = None) -> Any:
    """The model as shapes.

    Args:
      load: gives the shapes of the networks that this one is made of, the same ones each time, so that
        what `build` would share is one object (`loaded.Shapes`); None: what is shared is not told.
    """

  def build(
    self,
    mesh: Mesh | None = None,
    *,
    load: Load | None = None,
    report: Callable[[str], None] = lambda line: None,
  ) -> nnx.Module:
    """The model with its values, on the mesh.

    Args:
      mesh: None: a single device.
      load: gives the networks that this one is made of, so that they share what is loaded; None: they
        are built for this one.
      report: called with a line about what was read.

    Raises:
      ConfigError: a checkpoint is absent or of another model; the message is a table of what differs.
      DamagedCheckpoint: it cannot be read, or a value is not finite.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
  """A backbone with the values of a checkpoint.

  backbone: configuration of the network (its type decides the architecture).
  checkpoint: 'micro' (shipped weights), 'random', or a checkpoint: a path, 'hf:NAME' or a gs:// URL
    (`checkpoints.sources`).
  vocabulary: 't5' or 'mt5', where the micro source brings its own words; or a tokenizer of the
    model's, 'hf:FOLDER' or 'sentencepiece:FILE' (`data.vocabularies`).
  allow_nan: take NaN and infinite values of the checkpoint as they are instead of refusing.
  seed: of a random initialization; None: the experiment's.
  """

  backbone: Any
  checkpoint: str
  vocabulary: str = "t5"
  allow_nan: bool = False
  seed: int | None = None

  @property
  def about(self) -> str:
    return without_secrets(self.checkpoint)

  @property
  def pretrained(self) -> "Network":
    return self

  @property
  def settings(self) -> dict[str, Any]:
    return {}

  def seeded(self, seed: int) -> "Network":
    return dataclasses.replace(self, seed=seed) if self.seed is None else self

  def spelled(self, vocabulary: str) -> "Network":
    return dataclasses.replace(self, vocabulary=vocabulary)

  def identity(self) -> str:
    if self.checkpoint == MICRO:
      if not micro_model.available(self.backbone):
        return "micro"
      return f"micro:{micro_model.digest(self.backbone)}"
    if self.checkpoint == RANDOM:
      # Another configuration draws other values by the same seed.
      config = hashlib.sha256(repr(self.backbone).encode()).hexdigest()[:12]
      return f"random:{self.seed or 0}:{config}"
    return self.about  # without a token, so that a new one goes on with the same run

  def content(self) -> Part | None:
    found = sources.content(self.checkpoint)
    return Part(digest=found, about=self.about) if found else None

  def check(self) -> None:
    """As the protocol says.

    A checkpoint on this machine is read once for NaN, one array after the other; the values of a
    remote one are looked at while they are restored, so that nothing travels twice.
    """
    source = sources.resolve(self.checkpoint)
    if source.kind == "micro":
      micro_model.require(self.backbone)
    elif source.kind != "random":
      leaves = self._open(source)
      restore.check_restorable(self.abstract(), leaves)
      if not locations.is_remote(source.place) and not self.allow_nan:
        restore.check_finite(leaves)

  def abstract(self, *, load: Load | None = None) -> Any:
    del load  # it is made of no other one
    return nnx.eval_shape(self._create)

  def build(
    self,
    mesh: Mesh | None = None,
    *,
    load: Load | None = None,
    report: Callable[[str], None] = lambda line: None,
  ) -> nnx.Module:
    if self.checkpoint == RANDOM:
      report("start     random initialization: nothing pretrained is restored")
      return partitioning.build(self._create, mesh) if mesh else self._create()
    # Shapes with shardings, filled from the file: nothing is drawn only to be replaced, and no
    # device holds the whole model.
    model = self.abstract()
    if mesh is not None:
      model = partitioning.abstract(model, mesh)
    source = sources.resolve(self.checkpoint)
    leaves = self._open(source)
    model = restore.restore_into(model, leaves, finite=not self.allow_nan)
    report(
      f"start     {source.text} ({source.kind}): {len(leaves)} arrays, {paths.count(model):,} parameters"
      " restored"
    )
    # What generation_config.json asks for and is not done here changes answers, so it is said.
    if source.kind == "hf" and (note := huggingface.decoding_note(source.place)):
      report(f"decoding  {note}")
    return model

  def stored(self) -> Mapping[str, Any] | None:
    """The arrays of the checkpoint by our names, to be read one by one; None: they are drawn, not stored."""
    source = sources.resolve(self.checkpoint)
    return None if source.kind == "random" else self._open(source)

  def _create(self) -> nnx.Module:
    return backbones.build(self.backbone, nnx.Rngs(self.seed or 0))

  def _open(self, source: sources.Source) -> Mapping[str, Any]:
    if source.kind == "micro":
      return micro_model.weights(self.backbone)
    return sources.open_source(source, self.backbone)


def require(network: Any, *, what: str) -> None:
  """Whether a value is a network.

  Raises:
    ConfigError: it is not.
  """
  if not all(hasattr(network, name) for name in ("build", "abstract", "identity", "check")):
    raise ConfigError(
      f"{what}={network!r} is no network; in a gin file write @network.Network(), which MODEL and"
      " INITIAL_CHECKPOINT_PATH describe."
    )


def attach(model: nnx.Module, method: Method | None, mesh: Mesh | None, *, seed: int) -> nnx.Module:
  """The model with a method, its new parameters drawn by the seed and placed on the mesh.

  Raises:
    ConfigError: the method is not defined for the model, or the model is an ensemble.
  """
  if method is None:
    return model
  require_one(model, f"have a {type(method).__name__}")
  # A key apart from the backbone's, which is drawn by the seed itself.
  key = jax.random.fold_in(jax.random.key(seed), 1)
  return placed(method.attach(model, nnx.Rngs(key)), mesh)


def placed(model: nnx.Module, mesh: Mesh | None) -> nnx.Module:
  """The model on the mesh."""
  if mesh is None:
    return model
  graphdef, state = nnx.split(model)
  return nnx.merge(graphdef, partitioning.place(state, mesh))


def contents(networks: Sequence[AnyNetwork], *, about: str) -> Part | None:
  """Changes with what is known of the contents of networks; None where nothing is known of any."""
  parts = [network.content() for network in networks]
  # What one of them knows is still told: a change of it is a change of what is made of them.
  if not any(parts):
    return None
  return identity.part([part and part.digest for part in parts], about=about)


def part(network: AnyNetwork) -> Part:
  """A network as a part of what something was made from: its identity and its content."""
  content = network.content()
  return identity.part([network.identity(), content.digest if content else ""], about=network.about)
