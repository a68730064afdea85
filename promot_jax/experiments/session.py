"""What the experiments of one process share: the backbone's first values, data, and when to stop."""

import functools
import pathlib
from collections.abc import Callable, Sequence

from flax import nnx
from jax.sharding import Mesh

from promot_jax import hosts, partitioning, signals
from promot_jax.errors import Preempted
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.reader import Reader
from promot_jax.networks.loaded import Loaded
from promot_jax.training import teacher_input
from promot_jax.training.events import Events


class Session:
  """What the experiments of one process use in common."""

  def __init__(
    self,
    *,
    stop: signals.Stop,
    console: Events,
    allow_change: bool = False,
    experiments: Sequence[Experiment] = (),
    started: Callable[[], None] = lambda: None,
  ):
    self.stop = stop
    # Where the pretrained model is evaluated, for those that have the same backbone.
    self.pretrained_results = [
      pathlib.Path(each.model_dir) / "evaluation" for each in experiments if not each.stages
    ]
    self.allow_change = allow_change
    self._started: Callable[[], None] | None = started
    self.console = console
    self.reader = Reader(console.line)
    self._loaded: Loaded | None = None
    stop.nothing_to_save = True

  @functools.lru_cache(maxsize=4)  # noqa: B019  (lives as long as the process's run)
  def mesh(self, shape) -> Mesh | None:
    """The mesh of an experiment; None for a single device."""
    mesh = partitioning.make_mesh(shape.data, shape.model)
    return mesh if mesh.size > 1 else None

  def pretrained(self, experiment: Experiment) -> nnx.Module:
    """The model that the experiment starts from; kept while experiments ask for the same."""
    loaded = self.loaded(experiment)
    beside = (*experiment.teachers.values(), *experiment.anchors.values())
    loaded.keep_only(experiment.start, *beside)  # frees former ones first
    return loaded.model(experiment.start)

  def start_of_all(self, experiment: Experiment) -> nnx.Module:
    """The pretrained network from which all that the experiment's start is made of began."""
    return self.loaded(experiment).model(experiment.start.pretrained)

  def teacher(self, experiment: Experiment, stage: str) -> nnx.Module | None:
    """The model that a stage learns from, which is the start itself where that is its network.

    None where it learns from none, or from its own average, which is part of its training state.
    """
    found = experiment.teachers.get(stage)
    if found is None:
      return None
    model = self.loaded(experiment).model(found)
    (own,) = (each for each in experiment.stages if each.name == stage)
    return teacher_input.reader(model, own.teacher_inputs)

  def anchor(self, experiment: Experiment, stage: str) -> nnx.Module | None:
    """The model near which a stage is held."""
    found = experiment.anchors.get(stage)
    return None if found is None else self.loaded(experiment).model(found)

  def forget_teachers(self, experiment: Experiment) -> None:
    """Frees the arrays of teachers that nothing else of the experiment has."""
    self.loaded(experiment).keep_only(experiment.start, *experiment.anchors.values())

  def loaded(self, experiment: Experiment) -> Loaded:
    """The networks on the experiment's mesh."""
    mesh = self.mesh(experiment.mesh)
    # Arrays lie on one mesh: for another one all networks are built anew.
    if self._loaded is None or self._loaded.mesh != mesh:
      self._loaded = Loaded(mesh, self.console.line)
    return self._loaded

  def accept(self) -> None:
    """Says, the first time only, that this run was checked as far as can be before its first step."""
    started, self._started = self._started, None
    if started is not None:
      hosts.only_first(started)

  def stop_if_asked(self) -> None:
    if hosts.anywhere(self.stop.requested):
      signal = self.stop.requested or "a signal to another process"
      raise hosts.of_all(Preempted(f"Stopped by {signal}. Repeat the same command to go on."))
