"""An ensemble of two measured under several shares of its first member at once, and the share that is chosen.

Hewitt et al., 2021, call the share lambda and choose it among seven on held-out examples of the training
distribution.  Every result is the one that an evaluation of that share alone would leave, and is found again;
they lie in MODEL_DIR/shares, and the choice with its evidence in MODEL_DIR/share_choice.json.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from promot_jax import guarded_json, hosts
from promot_jax.errors import ConfigError
from promot_jax.evaluation import evaluator, together, whole_files
from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.together import Prefixes
from promot_jax.experiments import checkpoint, data, measurement, progress, value_choice
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.experiments.value_choice import Choice
from promot_jax.models.ensemble import Ensemble
from promot_jax.models.sweep import Sweep
from promot_jax.networks import ensemble
from promot_jax.networks.network import placed

CHOICE = "share_choice.json"
_SHAPE: guarded_json.Shape = {"share": (int, float), "why": str, "members": str, "candidates": list}
_ADVICE = "Delete it and repeat promot train, which finds what was measured and writes it again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swept:
  """Results by share, in the order of the tasks; prefixes: of what was decoded for them just now."""

  results: Mapping[float, Sequence[TaskResult]]
  prefixes: Prefixes


def measure(
  directory: ModelDirectory, shares: Sequence[float], tasks: Sequence[evaluator.EvalTask]
) -> Swept:
  """Scores of a directory's ensemble on each task under each share.

  Raises:
    PromotError: of members that cannot be built, data that do not fit, or a signal.
  """
  under = {share: with_share(directory, share) for share in shares}
  points = {
    share: dataclasses.replace(checkpoint.pretrained(each.experiment), name=f"share-{share:g}")
    for share, each in under.items()
  }
  store = directory.results(directory.folder / "shares")
  models = _Shared(directory)
  subjects = [measurement.subject_of(under[share], points[share], models) for share in under]
  weights = [point.start.weights for point in points.values()]
  prefixes = together.write(
    subjects,
    tasks,
    together=dataclasses.replace(subjects[0], make=lambda: models.sweep(weights)),
    setting=measurement.setting_of(directory.experiment),
    batching=measurement.batching_of(directory),
    kept=[evaluator.Kept(store=store, checkpoint=point.name) for point in points.values()],
    progress=progress.reporter(
      directory.events,
      f"{directory.experiment.name} {len(under)} shares",
      stop=directory.session.stop_if_asked,
    ),
  )
  results = {
    share: measurement.measure(each, points[share], tasks, models=models, store=store)
    for share, each in under.items()
  }
  return Swept(results=results, prefixes=prefixes)


def chosen(swept: Swept) -> Choice:
  """The share that is best on what was measured, the smallest on ties."""
  found = [value_choice.candidate(share, each) for share, each in swept.results.items()]
  metrics = [result.metric for result in next(iter(swept.results.values()))]
  return value_choice.choose(found, what="share", metrics=metrics)


def settle(directory: ModelDirectory) -> tuple[ModelDirectory, str]:
  """The directory with the share that its experiment's selection split chooses, and why.

  Measures what is not measured yet and records the choice; an experiment without shares is left as it is,
  and the reason is empty.

  Raises:
    PromotError: as `measure`.
  """
  experiment = directory.experiment
  if not experiment.shares:
    return directory, ""
  tasks = data.selection_tasks(experiment, directory.session.reader)
  choice = chosen(measure(directory, experiment.shares, tasks))
  record = {
    "share": choice.value,
    "why": choice.why,
    "members": _members(experiment),
    "tasks": [f"{task.label} {task.split}" for task in tasks],
    "candidates": [dataclasses.asdict(each) for each in choice.candidates],
  }
  path = directory.folder / CHOICE
  hosts.only_first(lambda: whole_files.write_text(path, guarded_json.text(record)))
  directory.events.line(choice.why)
  return with_share(directory, choice.value), choice.why


def settled(experiment: Experiment) -> Experiment:
  """An experiment with the share that was chosen in its directory; one without shares as it is.

  Raises:
    ConfigError: none was chosen yet, or among others, or of other members.
    DamagedRecord: the record of the choice is not as it was written.
  """
  if not experiment.shares:
    return experiment
  path = pathlib.Path(experiment.model_dir) / CHOICE

  def look() -> str:
    found = guarded_json.read(path, shape=_SHAPE, advice=_ADVICE)
    return json.dumps(None if found is None else found.content)

  record: Mapping[str, Any] | None = json.loads(hosts.first(look))
  shares = [] if record is None else [each["value"] for each in record["candidates"]]
  if (
    record is None
    or sorted(shares) != sorted(experiment.shares)
    or record["members"] != _members(experiment)
  ):
    asked = ", ".join(f"{share:g}" for share in experiment.shares)
    raise ConfigError(
      f"{experiment.model_dir} has no choice among the shares {asked} of its ensemble as it is now; repeat its"
      " promot train command, which measures them and chooses."
    )
  return _with_share(experiment, record["share"])


def _members(experiment: Experiment) -> str:
  """Tells two ensembles apart, whatever the share."""
  return _with_share(experiment, 0.0).start.identity()


def with_share(directory: ModelDirectory, share: float) -> ModelDirectory:
  """The directory with one share of the first member, and nothing to choose."""
  return dataclasses.replace(directory, experiment=_with_share(directory.experiment, share))


def _with_share(experiment: Experiment, share: float) -> Experiment:
  network = experiment.network
  assert isinstance(network, ensemble.Ensemble)  # others are refused shares
  made = dataclasses.replace(network, weights=(share, 1 - share))
  return dataclasses.replace(experiment, network=made, shares=())


class _Shared:
  """Models of one ensemble under any weights, whose members are built once."""

  def __init__(self, directory: ModelDirectory):
    self._directory = directory

  @functools.cached_property
  def _ensemble(self) -> Ensemble:
    model = self._directory.session.pretrained(self._directory.experiment)
    assert isinstance(model, Ensemble)
    return model

  def model(self, checkpoint: Checkpoint) -> nnx.Module:
    """The ensemble under the weights of the checkpoint's network."""
    members, space = list(self._ensemble.members), self._ensemble.space
    weights = checkpoint.start.weights
    return self._placed(Ensemble(members, weights=weights, space=space))

  def sweep(self, weights: Sequence[Sequence[float]]) -> nnx.Module:
    """The ensemble under all of these weights at once."""
    return self._placed(Sweep(self._ensemble, weights))

  def _placed(self, model: nnx.Module) -> nnx.Module:
    return placed(model, self._directory.mesh)
