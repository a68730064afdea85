"""How far a run has moved from the pretrained model on its own task: the divergence of their next tokens.

For each target token of held-out examples, under teacher forcing,

  KL(p_theta || p_0) = sum_v p_theta(v) (log p_theta(v) - log p_0(v))

and the same with the two exchanged; the figures are means over the target tokens, in nats.  That the
divergence on the new task goes with what is forgotten is the claim of Shenfeld et al., 2025
(arXiv:2509.04259).  Both models see the same tokens: the tuned task in the form it is tuned in.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from promot_jax import limits, partitioning
from promot_jax.analyses import charts, courses
from promot_jax.analyses.charts import Chart, Point
from promot_jax.analyses.courses import Course, Moment
from promot_jax.analyses.findings import Findings, Source
from promot_jax.analyses.remembered import Remembered
from promot_jax.data import examples as example_lists
from promot_jax.errors import ConfigError
from promot_jax.experiments import data, drift
from promot_jax.experiments.restored import Restored

RECIPE_VALUES = ("DivergenceFromPretrained",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """Means over target tokens, in nats.

  method: 'on' or 'off', or 'none' of a run without one.
  divergence: of the run's model from the pretrained one, KL(p_theta || p_0); reverse: KL(p_0 || p_theta).
  """

  run: str
  step: int
  method: str
  divergence: float
  reverse: float
  tokens: int
  examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DivergenceFromPretrained:
  """Divergences at the kept steps of a stage.

  method: of a run that has one, whether it is 'on', 'off', or both.
  limit: only the first held-out examples of each tuned task; None: as many as validations read.
  batch_size: examples at once.
  stage, steps: as of `forgetting_curve.ForgettingCurve`.
  """

  method: Sequence[str] = ("on", "off")
  limit: int | None = 512
  batch_size: int = 64
  stage: str = ""
  steps: Sequence[int] = ()

  def __post_init__(self):
    for state in courses.require_names(self.method, what="DivergenceFromPretrained.method"):
      if state not in ("on", "off"):
        raise ConfigError(
          f"DivergenceFromPretrained.method has {state!r}; use 'on', 'off' or both."
        )
    if self.limit is not None:
      limits.require_whole("DivergenceFromPretrained", least=1, limit=self.limit)
    limits.require_whole("DivergenceFromPretrained", least=1, batch_size=self.batch_size)
    courses.require_steps(self.steps, what="DivergenceFromPretrained.steps")

  def __call__(self, sources: Sequence[Source]) -> Findings:
    found, notes = courses.of(sources, stage=self.stage, steps=self.steps)
    for course in found:
      courses.require_target_tokens(course)
    rows = [row for course in found for row in self._rows(course)]
    panels = charts.by_run(rows, [course.name for course in found], _points)
    last = "; ".join(
      f"{row.run}, method {row.method}: {row.divergence:.3f} at step {row.step}"
      for row in {(row.run, row.method): row for row in rows}.values()
    )
    return Findings(
      title="Divergence from the pretrained model on the tuned task",
      rows=rows,
      notes=notes,
      charts={
        "": Chart(
          panels=panels,
          across="step",
          up="KL, nats a token",
          words=f"Lines of the divergence along training. {last}.",
        )
      },
    )

  def _rows(self, course: Course) -> Iterator[Row]:
    experiment, directory = course.experiment, course.directory
    tasks = data.validation_tasks(experiment, course.stage.name, directory.session.reader)
    limit = None if self.limit is None else int(self.limit)
    examples = example_lists.concatenate(
      [
        task.examples.select(range(len(task.examples))[:limit]).with_prompt_ids(task.bank_row or 0)
        for task in tasks
      ]
    )
    remembered = Remembered(analysis="kl_from_pretrained", settings={"batch_size": self.batch_size})
    models = Restored(directory)
    batches = functools.partial(drift.in_batches, directory, examples, int(self.batch_size))
    chunk = getattr(course.stage.objective, "vocabulary_chunk", None)

    def compute(moment: Moment) -> dict[str, Any]:
      directory.events.line(f"divergence of {course.name} at step {moment.step}")
      model, method = models.model(moment.checkpoint), moment.checkpoint.method
      start = directory.session.pretrained(experiment)
      states = {"none": model}
      if method is not None:
        states = {"on": model, "off": method.detach(model)}
      return {
        state: dataclasses.asdict(
          drift.divergences(each, start, batches, chunk=chunk, fetch=partitioning.fetch)
        )
        for state, each in states.items()
      }

    for moment in course.moments:
      directory.session.stop_if_asked()
      figures = remembered.figures(
        directory,
        moment.checkpoint,
        examples=examples.content.digest,
        compute=functools.partial(compute, moment),
      )
      for state, each in figures.items():
        if state in (*self.method, "none"):
          yield Row(run=course.name, step=moment.step, method=state, examples=len(examples), **each)


def _points(row: Row) -> Iterator[tuple[str, Point]]:
  state = {"none": "", "on": ", method on", "off": ", method off"}[row.method]
  yield f"tuned || pretrained{state}", Point(x=row.step, y=row.divergence)
  yield f"pretrained || tuned{state}", Point(x=row.step, y=row.reverse)
