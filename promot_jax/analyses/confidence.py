"""How sure models are in and out of distribution, each member of an ensemble by itself (Hewitt et al., 2021, section 6).

For each target token of reported examples, under teacher forcing,

  confidence = max_v p(v | input, targets before it)

and the figure is the mean over the target tokens of a task.  Accuracy is the share of these tokens that are the
most probable ones: a model is overconfident by as much as the former is above the latter.  The paper does not
print a formula; ours is over all tokens of the first reference, not over those that a model writes.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax import limits, partitioning
from promot_jax.analyses import charts, courses
from promot_jax.analyses.charts import Chart, Point
from promot_jax.analyses.findings import Findings, Source
from promot_jax.analyses.remembered import Remembered
from promot_jax.errors import ConfigError
from promot_jax.evaluation.task import EvalTask
from promot_jax.experiments import checkpoint_names, data, drift
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.experiments.restored import Restored
from promot_jax.models.ensemble import Ensemble
from promot_jax.networks import ensemble
from promot_jax.training import losses, validation_loss
from promot_jax.training.objectives import Batch, Metrics, target_weights
from promot_jax.training.selection import LOSS, TOKEN_ACCURACY

RECIPE_VALUES = ("ConfidenceByTask",)

_WHOLE = "all together"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """Means over a task's target tokens, from 0 to 1.

  model: the run's, or a member of its ensemble.
  tuned: whether the task is the tuned one, which is in distribution.
  """

  run: str
  model: str
  task: str
  split: str
  tuned: bool
  confidence: float
  accuracy: float
  tokens: int
  examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfidenceByTask:
  """Confidence of a run's chosen model on its tuned tasks and on others; of an ensemble also of each member.

  tasks: the others; none: the run's unseen tasks, as its plan has them.
  limit: only the first examples of each task; None: as many as the plan has.
  batch_size: examples at once.
  """

  tasks: Sequence[str] = ()
  limit: int | None = None
  batch_size: int = 64

  def __post_init__(self):
    courses.require_names(self.tasks, what="ConfidenceByTask.tasks")
    if self.limit is not None:
      limits.require_whole("ConfidenceByTask", least=1, limit=self.limit)
    limits.require_whole("ConfidenceByTask", least=1, batch_size=self.batch_size)

  def __call__(self, sources: Sequence[Source]) -> Findings:
    directories = courses.runs_of(sources)
    names = courses.names(directories)
    rows = [
      row
      for name, directory in zip(names, directories, strict=True)
      for row in self._rows(name, directory)
    ]
    tasks = list(dict.fromkeys(row.task for row in rows))

    def points(row: Row) -> Iterator[tuple[str, Point]]:
      yield row.model, Point(x=tasks.index(row.task), y=row.confidence)

    said = "; ".join(f"{row.run}, {row.model}, {row.task}: {row.confidence:.3f}" for row in rows)
    return Findings(
      title="Mean confidence in and out of distribution",
      rows=rows,
      charts={
        "": Chart(
          panels=charts.by_run(rows, names, points),
          across="task, the tuned one first",
          up="mean largest probability",
          words=f"Lines of the mean confidence by task. {said}.",
          ticks=tasks,
        )
      },
    )

  def _rows(self, name: str, directory: ModelDirectory) -> Iterator[Row]:
    experiment = directory.experiment
    plan = experiment.evaluation
    plan = dataclasses.replace(
      plan,
      tuned=True,
      unseen=tuple(self.tasks) or plan.unseen,
      # Each task once, as it is shown where a report has one column of it.
      shots=plan.shots[:1],
      unseen_method=plan.unseen_method[:1],
      limit=self.limit or plan.limit,
    )
    changed = dataclasses.replace(experiment, evaluation=plan)
    checkpoint = checkpoint_names.named(directory, checkpoint_names.CHOSEN)
    tasks = data.report_tasks(changed, directory.session.reader, checkpoint=checkpoint)
    remembered = Remembered(analysis="confidence", settings={"batch_size": self.batch_size})
    models = Restored(directory)
    for task in tasks:
      directory.session.stop_if_asked()
      if task.classes is not None:
        raise ConfigError(
          f"'{name}' answers {task.label} by a prediction head: it has no target tokens that its confidence"
          " could be measured on."
        )
      figures = remembered.figures(
        directory,
        checkpoint,
        examples=f"{task.examples.content.digest} {task.method} {task.bank_row}",
        compute=functools.partial(self._figures, directory, checkpoint, models, task),
      )
      for model, each in figures.items():
        yield Row(
          run=name,
          model=model,
          task=task.label,
          split=task.split,
          tuned=task.label in map(experiment.unit_of, experiment.tasks),
          examples=len(task.examples),
          **each,
        )

  def _figures(
    self, directory: ModelDirectory, checkpoint: Checkpoint, models: Restored, task: EvalTask
  ) -> dict[str, Any]:
    directory.events.line(f"confidence of {directory.experiment.name} on {task.label}")
    model = models.model(checkpoint)
    if task.method == "detached" and checkpoint.method is not None:
      model = checkpoint.method.detach(model)
    examples = task.examples
    if task.bank_row is not None:
      examples = examples.with_prompt_ids(task.bank_row)
    batches = functools.partial(drift.in_batches, directory, examples, int(self.batch_size))
    chunk = next(
      (
        found
        for stage in directory.experiment.stages
        if (found := getattr(stage.objective, "vocabulary_chunk", None))
      ),
      None,
    )
    return {
      name: dataclasses.asdict(confidence(each, batches, chunk=chunk, fetch=partitioning.fetch))
      for name, each in _parts(directory, model).items()
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certainty:
  """Means over so many target tokens of the largest probability, and of whether that is the target's."""

  confidence: float
  accuracy: float
  tokens: int


def confidence(
  model: nnx.Module,
  batches: Callable[[], Iterable[Batch]],
  *,
  chunk: int | None = None,
  fetch: Callable[[Any], np.ndarray] = np.asarray,
) -> Certainty:
  """How sure a model is of the target tokens of batches.

  Args:
    chunk: largest number of logits a token that exist at once; None: all of them.
    fetch: gives the whole of an array.
  """
  parts = validation_loss.sums(model, _Largest(chunk=chunk), batches(), fetch=fetch)
  total = validation_loss.add(parts)
  found, weight = validation_loss.means(total), total[LOSS][1]
  return Certainty(confidence=found[LOSS], accuracy=found[TOKEN_ACCURACY], tokens=round(weight))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Largest:
  """In an objective's place: the sum of the largest probabilities."""

  needs_teacher: ClassVar[bool] = False
  reads_teacher: ClassVar[bool] = False
  reads_classes: ClassVar[bool] = False

  chunk: int | None = None

  def __call__(
    self, model: Any, batch: Batch, *, teacher: Any = None, key: Any = None
  ) -> tuple[Any, Metrics]:
    targets, weights = batch["decoder_target_tokens"], target_weights(batch)
    found = losses.token_statistics(
      model.readout, model.hidden(batch, key=key), targets, chunk=self.chunk
    )
    # exp(largest - log Z): the sum is of exp(logits - largest).
    largest = (weights / found.log_sum.total).sum()
    correct = ((found.best == targets) * weights).sum()
    return largest, {"accuracy": (correct, weights.sum())}

  def normalizer(self, batch: Batch) -> Any:
    return jnp.asarray(target_weights(batch).sum())

  def whole(self) -> "_Largest":
    return dataclasses.replace(self, chunk=None)


def _parts(directory: ModelDirectory, model: nnx.Module) -> dict[str, nnx.Module]:
  """The members of an ensemble by what they are called, and the model."""
  network = directory.experiment.network
  if not isinstance(network, ensemble.Ensemble) or not isinstance(model, Ensemble):
    return {directory.experiment.name: model}
  called = [pathlib.PurePath(member.about).name for member in network.members]
  if len(set(called)) < len(called):
    called = [member.about for member in network.members]
  return {**dict(zip(called, model.members, strict=True)), _WHOLE: model}
