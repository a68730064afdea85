"""Whether a gradient learns the task or only its format (Wang et al., 2024, Figures 3 and 7).

With inputs x_i, labels y_i and a permutation s of the examples,

  cosine(step) = <g, h> / (|g| |h|),   g = sum_i grad loss(x_i, y_i),   h = sum_i grad loss(x_i, y_s(i))

at the weights of that step of tuning on true labels.  h knows which answers there are and not which input
they belong to.  Near 1 both gradients point the same way: what is learned is the format.  The loss is the
plain cross-entropy of the target tokens, without dropout.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax import limits, partitioning, paths
from promot_jax.analyses import charts, courses
from promot_jax.analyses.charts import Chart, Point
from promot_jax.analyses.courses import Course, Moment
from promot_jax.analyses.findings import Findings, Source
from promot_jax.analyses.remembered import Remembered
from promot_jax.data import examples as example_lists
from promot_jax.data.examples import Examples
from promot_jax.errors import ConfigError
from promot_jax.experiments import data, drift, shapes
from promot_jax.experiments.restored import Restored
from promot_jax.models import scanning
from promot_jax.training.objectives import Batch, Objective, Supervised

RECIPE_VALUES = ("GradientCosine",)

LAST = "{last}"
"""In a pattern: the number of the last layer of the decoder."""
WEIGHTS: Mapping[str, str] = {
  "mlp": "decoder/layers/{last}/mlp/wi.*/kernel",
  "query": "decoder/layers/{last}/self_attention/query/kernel",
  "key": "decoder/layers/{last}/self_attention/key/kernel",
  "value": "decoder/layers/{last}/self_attention/value/kernel",
}
"""The groups of Figure 3."""
CROSS_ENTROPY = Supervised(loss_normalizing_factor=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """A cosine, -1 to 1, None where a gradient is zero; the norms are of the gradients' sums over examples."""

  run: str
  step: int
  weights: str
  parameters: int
  cosine: float | None
  norm: float
  norm_shuffled: float
  examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientCosine:
  """Cosines at the kept steps of a stage.

  weights: name -> pattern of parameters (`promot_jax.paths`, as of unrolled layers), each a line; '{last}'
    stands for the number of the decoder's last layer.
  examples: how many training examples the gradients are of.
  batch_size: of them at once.
  seed: chooses the examples and the permutation of their labels.
  stage, steps: as of `forgetting_curve.ForgettingCurve`.
  """

  weights: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(WEIGHTS))
  examples: int = 256
  batch_size: int = 64
  seed: int = 0
  stage: str = ""
  steps: Sequence[int] = ()

  def __post_init__(self):
    limits.require_whole("GradientCosine", least=2, examples=self.examples)
    limits.require_whole("GradientCosine", least=1, batch_size=self.batch_size)
    limits.require_whole("GradientCosine", least=0, seed=self.seed)
    courses.require_steps(self.steps, what="GradientCosine.steps")
    texts = isinstance(self.weights, Mapping) and self.weights
    if not texts or not all(isinstance(each, str) for each in self.weights.values()):
      raise ConfigError(
        f"GradientCosine.weights={self.weights!r} must be names with patterns:"
        f" {{'mlp': '{WEIGHTS['mlp']}'}}."
      )

  def __call__(self, sources: Sequence[Source]) -> Findings:
    found, notes = courses.of(sources, stage=self.stage, steps=self.steps)
    for course in found:  # before a model is restored
      self._check(course)
    rows = [row for course in found for row in self._rows(course)]
    panels = charts.by_run(rows, [course.name for course in found], _points)
    ends = "; ".join(
      f"{row.run}, {row.weights}: {_shown(row.cosine)} at step {row.step}"
      for row in {(row.run, row.weights): row for row in rows}.values()
    )
    return Findings(
      title="Gradients on true and on shuffled labels",
      rows=rows,
      notes=notes,
      charts={
        "": Chart(
          panels=panels,
          across="step",
          up="cosine",
          words=f"Lines of the cosine of the two gradients by weights. {ends}.",
        )
      },
    )

  def _check(self, course: Course) -> None:
    courses.require_target_tokens(course)
    for moment in course.moments:
      model = shapes.abstract_checkpoint(course.experiment, moment.checkpoint)
      named(self.weights, paths.parameter_names(_unrolled(model, nnx.eval_shape)))

  def _rows(self, course: Course) -> Iterator[Row]:
    directory = course.directory
    tasks = self._examples(course)
    own = example_lists.concatenate(tasks)
    # Each task's among themselves: an answer of another task would tell of the wrong format.
    other = example_lists.concatenate([shuffled(each, seed=int(self.seed)) for each in tasks])
    settings = {"weights": self.weights, "batch_size": self.batch_size, "seed": self.seed}
    remembered = Remembered(analysis="gradient_cosine", settings=settings)
    models = Restored(directory)

    def compute(moment: Moment) -> dict[str, Any]:
      directory.events.line(f"gradients of {course.name} at step {moment.step}")
      found = cosines(
        models.model(moment.checkpoint),
        *(drift.in_batches(directory, each, int(self.batch_size)) for each in (own, other)),
        weights=self.weights,
        fetch=partitioning.fetch,
      )
      return {name: dataclasses.asdict(each) for name, each in found.items()}

    for moment in course.moments:
      directory.session.stop_if_asked()
      figures = remembered.figures(
        directory,
        moment.checkpoint,
        examples=own.content.digest,
        compute=functools.partial(compute, moment),
      )
      for name, each in figures.items():
        yield Row(run=course.name, step=moment.step, weights=name, examples=len(own), **each)

  def _examples(self, course: Course) -> list[Examples]:
    """Training examples of each task of the stage, as many of each."""
    tasks = data.train_examples(
      course.experiment, course.stage.name, course.directory.session.reader
    )
    random = np.random.default_rng(int(self.seed))
    share = -(-int(self.examples) // len(tasks))
    chosen = [task.select(random.permutation(len(task))[:share].tolist()) for task in tasks]
    # The number of a task in the mixture is its row of a bank, as in training.
    return [each.with_prompt_ids(row) for row, each in enumerate(chosen)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
  """Of two gradients of one group of weights, and their norms; None where one of them is zero."""

  parameters: int
  cosine: float | None
  norm: float
  norm_shuffled: float


def cosines(
  model: nnx.Module,
  true: Iterable[Batch],
  other: Iterable[Batch],
  *,
  weights: Mapping[str, str] = WEIGHTS,
  objective: Objective = CROSS_ENTROPY,
  fetch: Callable[[Any], np.ndarray] = np.asarray,
) -> dict[str, Cosine]:
  """Name of a group of weights -> the cosine of its gradients on two lists of batches.

  Args:
    model: scanned or unrolled; its weights are named as those of the unrolled one.
    true, other: batches with one and with other labels.
    weights: as of `GradientCosine`.
    objective: gives the loss sum whose gradient is taken.
    fetch: gives the whole of an array.

  Raises:
    PathError: a pattern matches no parameter.
  """
  model = _unrolled(model, lambda convert, scanned: convert(scanned))
  groups = named(weights, paths.parameter_names(model))
  chosen = sorted({name for own in groups.values() for name in own})
  graphdef, picked, rest = paths.split(model, [re.escape(name) for name in chosen])
  first, second = (
    {
      name: np.asarray(fetch(leaf), np.float64).ravel()
      for name, leaf in paths.named_leaves(
        _gradient_sum(graphdef, picked, rest, batches, objective)
      ).items()
    }
    for batches in (true, other)
  )
  return {
    name: _cosine(*(np.concatenate([each[one] for one in own]) for each in (first, second)))
    for name, own in groups.items()
  }


def shuffled(examples: Examples, *, seed: int) -> Examples:
  """The examples with each other's targets."""
  # Apart from the stream that chose the examples.
  order = np.random.default_rng([seed, 1]).permutation(len(examples)).tolist()
  moved = examples.select(order)
  features = {**examples.features, "targets": moved.features["targets"]}
  return dataclasses.replace(examples, features=features, records=moved.records)


def named(weights: Mapping[str, str], names: Collection[str]) -> dict[str, list[str]]:
  """Name of a group -> the parameters that its pattern selects.

  Raises:
    PathError: a pattern matches none, with the nearest names.
  """
  layers = [int(found[1]) for name in names if (found := re.match(r"decoder/layers/(\d+)/", name))]
  last = str(max(layers, default=0))
  return {
    group: paths.match(pattern.replace(LAST, last), names) for group, pattern in weights.items()
  }


def _unrolled(model: Any, convert: Callable[[Callable, Any], Any]) -> Any:
  if not model.config.scan_layers:
    return model
  return convert(scanning.unstack_layers, model)


def _gradient_sum(
  graphdef: nnx.GraphDef,
  picked: nnx.State,
  rest: nnx.State,
  batches: Iterable[Batch],
  objective: Objective,
) -> nnx.State:
  total = None
  for batch in batches:
    found = _gradient(picked, rest, dict(batch), graphdef=graphdef, objective=objective)
    total = found if total is None else jax.tree.map(jnp.add, total, found)
  assert total is not None  # there are always examples
  return total


@functools.partial(jax.jit, static_argnames=("graphdef", "objective"))
def _gradient(picked, rest, batch, *, graphdef, objective):
  def loss(chosen):
    # No key, so no dropout: both gradients are of the same function.
    return objective(nnx.merge(graphdef, chosen, rest), batch, key=None)[0]

  gradient = jax.grad(loss)(picked)
  # Sums over many batches: bfloat16 drops small parts once the sum is large.
  return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradient)


def _cosine(first: np.ndarray, second: np.ndarray) -> Cosine:
  norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
  product = norms[0] * norms[1]
  return Cosine(
    parameters=first.size,
    cosine=float(first @ second) / product if product else None,
    norm=norms[0],
    norm_shuffled=norms[1],
  )


def _points(row: Row) -> Iterator[tuple[str, Point]]:
  if row.cosine is not None:
    yield row.weights, Point(x=row.step, y=row.cosine)


def _shown(cosine: float | None) -> str:
  return "no direction" if cosine is None else f"{cosine:.2f}"
