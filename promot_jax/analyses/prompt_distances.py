"""How different trained prompts are: of one template, of one data set, of different data sets.

Levine et al., 2022, "Standing on the Shoulders of Giant Frozen Language Models", Table 8: the mean cosine
distance, 1 - cos, of the prompts of each of these pairs.  A prompt is taken as one vector, all of its
positions one after the other; other methods' values likewise.  The paper's prompts are computed for each
input; here they are any that were trained: rows of the banks of runs, seeds of a run, method files.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from promot_jax.analyses import courses
from promot_jax.analyses.charts import Chart, Panel, Point, Series
from promot_jax.analyses.findings import Findings, Source
from promot_jax.errors import ConfigError, DataError
from promot_jax.experiments import checkpoint as checkpoints
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.experiments.restored import Restored
from promot_jax.methods import files
from promot_jax.methods.formats import Context, Trained
from promot_jax.networks import trained_methods
from tasks import catalog

RECIPE_VALUES = ("PromptDistances",)

RELATIONS = ("same template", "same data set", "different data sets")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
  """Trained values of any shape, what they were trained on, and where they are from."""

  data_set: str
  template: str
  name: str
  values: np.ndarray

  @property
  def vector(self) -> np.ndarray:
    return np.asarray(self.values, np.float64).ravel()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """Cosine distances, 0 to 2, of all pairs of one relation: their mean and their limits."""

  relation: str
  pairs: int
  mean: float
  smallest: float
  largest: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptDistances:
  """Distances between the prompts of runs and files.

  labels: a file's path -> 'DATA_SET/TEMPLATE', or 'DATA_SET' alone; of a bank a list of them, one a row.
    Without an entry a file is a data set of its own.  Rows of runs have the names of their tasks.
  """

  labels: Mapping[str, str | Sequence[str]] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not isinstance(self.labels, Mapping):
      raise ConfigError(
        f"PromptDistances.labels={self.labels!r} must be paths with labels: {{'a.npz': 'rte/first'}}."
      )

  def __call__(self, sources: Sequence[Source]) -> Findings:
    if not sources:
      raise ConfigError("no prompt is named; name method files, or model directories.")
    known = {str(source) for source in sources if isinstance(source, pathlib.Path)}
    if unknown := sorted(set(map(str, self.labels)) - known):
      raise ConfigError(
        f"PromptDistances.labels has '{unknown[0]}', which is none of the named files:"
        f" {', '.join(sorted(known)) or 'none'}."
      )
    directories = [source for source in sources if isinstance(source, ModelDirectory)]
    labelled = dict(zip(map(id, directories), courses.names(directories), strict=True))
    prompts: list[Prompt] = []
    for source in sources:
      if isinstance(source, pathlib.Path):
        prompts += self._of_file(source)
      else:
        prompts += _of_run(source, labelled[id(source)])
    rows = distances(prompts)
    return Findings(
      title="Cosine distances between prompts",
      rows=rows,
      notes=[f"{len(prompts)} prompts: {', '.join(f'{p.name} ({_label(p)})' for p in prompts)}"],
      charts={"": _chart(rows)},
    )

  def _of_file(self, path: pathlib.Path) -> Iterator[Prompt]:
    trained = files.open_trained(path, Context())
    label = self.labels.get(str(path), path.stem)
    rows = trained.method.tasks
    labels = [label] * rows if isinstance(label, str) else list(label)
    if len(labels) != rows:
      raise ConfigError(
        f"PromptDistances.labels of {path} are {len(labels)}, and it has {rows} rows; give one each."
      )
    if isinstance(label, str) and rows > 1:  # nothing is known of what its rows have in common
      labels = [f"{label} row {row}" for row in range(rows)]
    for row, each in enumerate(labels):
      data_set, _, template = each.partition("/")
      name = f"{path.name} row {row}" if rows > 1 else path.name
      yield Prompt(
        data_set=data_set, template=template or data_set, name=name, values=_values(trained, row)
      )


def distances(prompts: Sequence[Prompt]) -> list[Row]:
  """A row for each relation that two of the prompts have.

  Raises:
    DataError: there are fewer than two.
    ConfigError: two are of different sizes, or one is zero.
  """
  if len(prompts) < 2:
    raise DataError(f"{len(prompts)} prompt has no distance to another; name more of them.")
  vectors = [prompt.vector for prompt in prompts]
  for prompt, vector in zip(prompts, vectors, strict=True):
    if vector.size != vectors[0].size:
      raise ConfigError(
        f"{prompts[0].name} has {vectors[0].size} values and {prompt.name} {vector.size}: distances are"
        " between prompts of one length and one model."
      )
    if not np.any(vector):
      raise ConfigError(f"{prompt.name} is zero, which has no direction.")
  units = np.stack([vector / np.linalg.norm(vector) for vector in vectors])
  # Rounding puts the distance of equal prompts a little below 0.
  apart = np.clip(1.0 - units @ units.T, 0.0, 2.0)  # [N N]
  found: dict[str, list[float]] = {relation: [] for relation in RELATIONS}
  for first in range(len(prompts)):
    for second in range(first + 1, len(prompts)):
      found[_relation(prompts[first], prompts[second])].append(float(apart[first, second]))
  return [
    Row(
      relation=relation,
      pairs=len(values),
      mean=float(np.mean(values)),
      smallest=min(values),
      largest=max(values),
    )
    for relation, values in found.items()
    if values
  ]


def _relation(one: Prompt, other: Prompt) -> str:
  if one.data_set != other.data_set:
    return RELATIONS[2]
  return RELATIONS[0] if one.template == other.template else RELATIONS[1]


def _of_run(directory: ModelDirectory, name: str) -> Iterator[Prompt]:
  """The rows of a run's method, one for each task."""
  experiment = directory.experiment
  if experiment.method is None or not experiment.stages:
    raise ConfigError(f"'{name}' in {directory.folder} has trained no method, so it has no prompt.")
  model = Restored(directory).model(checkpoints.last(experiment))
  trained = trained_methods.trained(model, experiment.method)
  # What all tasks share is of the mixture as a whole.
  tasks = experiment.tasks if trained.method.tasks > 1 else [experiment.task]
  for row, task in enumerate(tasks):
    base, _ = catalog.split_shots(task)
    yield Prompt(
      data_set=experiment.unit_of(task),
      template=base,
      name=f"{name} {base}" if len(tasks) > 1 else name,
      values=_values(trained, row),
    )


def _values(trained: Trained, row: int) -> np.ndarray:
  """All values of one row, in the order of their names."""
  own = trained.of_task(row).leaves
  return np.concatenate([np.asarray(own[name], np.float64).ravel() for name in sorted(own)])


def _label(prompt: Prompt) -> str:
  if prompt.template == prompt.data_set:
    return prompt.data_set
  return f"{prompt.data_set}/{prompt.template}"


def _chart(rows: Sequence[Row]) -> Chart:
  points = [
    Point(x=place, y=row.mean, low=row.smallest, high=row.largest, text=f"{row.mean:.3f}")
    for place, row in enumerate(rows)
  ]
  said = "; ".join(f"{row.relation} {row.mean:.3f} of {row.pairs} pairs" for row in rows)
  return Chart(
    panels=[Panel(series=[Series(name="mean", points=points, joined=False)])],
    across="pairs of prompts",
    up="cosine distance",
    ticks=[row.relation.replace(" ", "\n", 1) for row in rows],
    words=f"Means of cosine distances, with bars from the smallest to the largest. {said}.",
  )
