"""The network that an earlier run ended with: its start, its method, and what its stages chose.

A run notes in MODEL_DIR/network.json what it started from and which method it has, as plain values; the
values themselves are in the checkpoints of its stages, and are read from there.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
from flax import nnx
from jax.sharding import Mesh

from promot_jax import guarded_json, identity, paths
from promot_jax.checkpoints import manifest, step_files
from promot_jax.checkpoints.shared import open_store
from promot_jax.checkpoints.step_reader import MARKER, PARAMETERS
from promot_jax.errors import ConfigError, DamagedCheckpoint
from promot_jax.identity import Part
from promot_jax.methods.base import Method
from promot_jax.networks import described
from promot_jax.networks.network import AnyNetwork, Load, attach

RECIPE_VALUES = ("Run",)

NOTE = "network.json"
_SHAPE = {"start": dict, "stages": list, "seed": int}
_ADVICE = "The checkpoints are safe: promot train with the run's own command writes it again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """What a finished run in a model directory left.

  directory: of one experiment, as `promot train` wrote it.
  method: what becomes of the run's method: 'keep' leaves it attached, as a part of the network; 'drop'
    takes it off (ProMoT's tuned backbone); 'merge' adds it to the weights (LoRA, IA3, BitFit).
  spelling: vocabulary of the texts; None: the run's.
  to_come: what the run will be, while it has not left anything; set by whoever runs it before this network is
    needed (`beside`).
  """

  directory: str
  method: Literal["keep", "drop", "merge"] = "keep"
  spelling: str | None = None
  to_come: "ToCome | None" = dataclasses.field(
    # Not what it is, but what is known of it until then: no part of notes and comparisons.
    default=None,
    compare=False,
    repr=False,
    metadata={"described": False},
  )

  def __post_init__(self):
    if self.method not in ("keep", "drop", "merge"):
      raise ConfigError(f"Run.method={self.method!r} must be 'keep', 'drop' or 'merge'.")

  @property
  def backbone(self) -> Any:
    return self._noted().start.backbone

  @property
  def vocabulary(self) -> str:
    return self.spelling or self._noted().start.vocabulary

  @property
  def about(self) -> str:
    return self.directory if self.method == "keep" else f"{self.directory} (method: {self.method})"

  @property
  def pretrained(self) -> AnyNetwork:
    return self._noted().start.pretrained

  @property
  def settings(self) -> dict[str, Any]:
    return {}  # the run's own record has them

  def seeded(self, seed: int) -> "Run":
    return self  # what it drew at random was drawn by its own seed

  def spelled(self, vocabulary: str) -> "Run":
    return dataclasses.replace(self, spelling=vocabulary)

  def identity(self) -> str:
    note = self._noted()
    # The manifest has the checksum of each array, so the values are told apart without being read.
    steps = [
      identity.of_file(place / f"checkpoint_{step}" / manifest.FILE)
      for place, step in _chosen(self.directory, note)
    ]
    return "/".join([f"run:{self.method}", note.start.identity(), *steps])

  def content(self) -> Part | None:
    return self._noted().start.content()  # the steps are in the identity

  def check(self) -> None:
    """As the protocol says; also that every stage of the run is complete."""
    note = self._noted()
    # The iterator refuses on its way what is not complete.
    for _ in [] if isinstance(note, ToCome) else _chosen(self.directory, note):
      pass
    note.start.check()
    self.abstract()

  def abstract(self, *, load: Load | None = None) -> Any:
    note = self._noted()
    model = load(note.start) if load else note.start.abstract()
    model = paths.shapes_after(
      lambda start: attach(start, note.method, None, seed=note.seed), model
    )
    if load:
      # What the stages trained is no longer the start's.
      if isinstance(note, ToCome):
        trained = {name for pattern in note.trains for name in _names(model, pattern)}
      else:
        trained = {name for *_, names in _trained(self.directory, note) for name in names}
      model = paths.replace_leaves(
        model,
        {
          name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if name in trained else leaf
          for name, leaf in paths.named_leaves(model).items()
        },
      )
    return paths.shapes_after(lambda ended: self._ended(ended, note), model)

  def build(
    self,
    mesh: Mesh | None = None,
    *,
    load: Load | None = None,
    report: Callable[[str], None] = lambda line: None,
  ) -> nnx.Module:
    note = self._noted()
    start = load(note.start) if load else note.start.build(mesh, report=report)
    model = attach(start, note.method, mesh, seed=note.seed)
    untrained = set() if note.method is None else _names(model, note.method.parameters)
    # In the order of the stages: a later one's values take the place of an earlier one's.
    for place, step, own in _trained(self.directory, note):
      store = open_store(place)
      leaves = paths.named_leaves(model)
      if unknown := [name for name in own if name not in leaves]:
        raise ConfigError(
          f"{place} has parameter '{unknown[0]}', which the network of {self.directory} has not; it is"
          " of another version, or was changed."
        )
      wanted = {f"{PARAMETERS}{name}": leaves[name] for name in own}
      restored = store.restore(step, wanted, prefix=PARAMETERS).leaves
      values = {name.removeprefix(PARAMETERS): leaf for name, leaf in restored.items()}
      model = paths.replace_leaves(model, {**leaves, **values})
      untrained -= set(own)
    if untrained and self.method != "drop":
      raise ConfigError(
        f"'{min(untrained)}' of the method in {self.directory} was drawn at random and never trained, so"
        " no checkpoint has it; use Run.method='drop'."
      )
    report(f"start     {self.about}: {len(note.stages)} stages restored")
    return self._ended(model, note)

  def _ended(self, model: nnx.Module, note: "Note") -> nnx.Module:
    if note.method is None or self.method == "keep":
      return model
    if self.method == "drop":
      return note.method.detach(model)
    if type(note.method).merge is Method.merge:
      raise ConfigError(
        f"Run.method='merge': what {type(note.method).__name__} adds has no place in the weights of the"
        " backbone; use 'keep' or 'drop'."
      )
    return note.method.merge(model)

  def _noted(self) -> "Note":
    if self.to_come and not (pathlib.Path(self.directory).expanduser() / NOTE).exists():
      return self.to_come
    return read(self.directory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
  """What a run says of its network: where it began, its method, its stages' names, its seed."""

  start: AnyNetwork
  method: Any
  stages: Sequence[str]
  seed: int

  def text(self) -> str:
    """As network.json has it."""
    return guarded_json.text(
      {
        "start": described.describe(self.start),
        "method": described.describe(self.method),
        "stages": list(self.stages),
        "seed": self.seed,
      }
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToCome(Note):
  """What a run will note, and which parameters its stages will train.

  trains: of each stage: patterns.
  """

  trains: Sequence[Any] = ()


def beside(network: Any, runs: Mapping[str, Run]) -> Any:
  """A network with the runs that stand beside it in the place of those that it names.

  Args:
    network: any; what it is made of is looked at, too.
    runs: name -> the run.  A `Run` whose directory is a bare name of these is meant.
  """
  if isinstance(network, Run):
    found = runs.get(network.directory)
    if found is None:
      return network
    return dataclasses.replace(network, directory=found.directory, to_come=found.to_come)
  changed = {}
  for name, parts in _parts(network).items():
    now = [beside(part, runs) for part in parts]
    if any(one is not other for one, other in zip(now, parts, strict=True)):
      changed[name] = tuple(now) if isinstance(getattr(network, name), list | tuple) else now[0]
  return dataclasses.replace(network, **changed) if changed else network


def directories(network: Any) -> set[str]:
  """Of the runs that a network is made of."""
  if isinstance(network, Run):
    return {network.directory}
  return {
    directory
    for parts in _parts(network).values()
    for part in parts
    for directory in directories(part)
  }


def _parts(network: Any) -> dict[str, list[Any]]:
  """Field -> its values, of which some may be networks."""
  if not dataclasses.is_dataclass(network) or isinstance(network, type):
    return {}
  values = {field.name: getattr(network, field.name) for field in dataclasses.fields(network)}
  return {
    name: list(value) if isinstance(value, list | tuple) else [value]
    for name, value in values.items()
  }


def read(directory: str) -> Note:
  """The note of a run.

  Raises:
    ConfigError: there is none, or it is of a version whose values this one does not have.
    DamagedRecord: it is not as it was written.
  """
  path = pathlib.Path(directory).expanduser() / NOTE
  record = guarded_json.read(path, shape=_SHAPE, advice=_ADVICE)
  if record is None:
    raise ConfigError(
      f"'{directory}' has no {NOTE}: it is no directory of one experiment, its training is not finished, or"
      " an earlier version made it. In the last case repeat its promot train command, which trains nothing"
      " again and writes the file."
    )
  content: Mapping[str, Any] = record.content

  def built(description: Any) -> Any:
    return described.build(description, where=str(path))

  return Note(
    start=built(content["start"]),
    method=built(content.get("method")),
    stages=[str(name) for name in content["stages"]],
    seed=content["seed"],
  )


def _chosen(directory: str, note: Note) -> Iterator[tuple[pathlib.Path, int]]:
  """(folder, chosen step) of each stage."""
  for name in note.stages:
    place = pathlib.Path(directory).expanduser() / "stages" / name
    marker = guarded_json.read(place / MARKER, shape={"step": int}, advice=_ADVICE)
    if marker is None:
      raise ConfigError(
        f"stage '{name}' in {directory} is not complete; finish it with promot train."
      )
    step = marker.content["step"]
    if not (place / f"checkpoint_{step}" / manifest.FILE).is_file():
      raise DamagedCheckpoint(f"{place} has no step {step}, which its stage chose.")
    yield place, step


def _trained(directory: str, note: Note) -> Iterator[tuple[pathlib.Path, int, Sequence[str]]]:
  """(folder, chosen step, names of the parameters that it has) of each stage."""
  for place, step in _chosen(directory, note):
    _, table = step_files.describe(place / f"checkpoint_{step}")
    yield (
      place,
      step,
      [each.removeprefix(PARAMETERS) for each in table if each.startswith(PARAMETERS)],
    )


def _names(model: nnx.Module, pattern: str) -> set[str]:
  return set(paths.match(pattern, paths.named_leaves(model)))
