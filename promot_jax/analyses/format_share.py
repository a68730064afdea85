"""How many outputs are in the tuned task's format, step by step (Wang et al., 2024, Figure 2).

After tuning on RTE a model answers True or False to whatever it is asked.  What counts as the format is the
tuned task's own (`metrics.format_share`); the share is one of the scores that an evaluation keeps.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from promot_jax.analyses import charts, courses, scores
from promot_jax.analyses.charts import Chart, Point
from promot_jax.analyses.courses import Course
from promot_jax.analyses.findings import Findings, Source
from promot_jax.analyses.scores import Wanted
from promot_jax.errors import ConfigError
from promot_jax.experiments import data

RECIPE_VALUES = ("FormatShareCurve",)

SHARE = "format_share"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """Percentage of a task's outputs in the format, with its 95 % interval over examples."""

  run: str
  step: int
  task: str
  shots: int
  share: float
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FormatShareCurve:
  """Shares at the kept steps of a stage.

  tasks: on which outputs are looked at; none: the run's unseen tasks.  Other fields as of
    `forgetting_curve.ForgettingCurve`.
  """

  tasks: Sequence[str] = ("trivia_qa",)
  shots: int = 1
  method: str = "off"
  limit: int | None = None
  stage: str = ""
  steps: Sequence[int] = ()

  def __post_init__(self):
    courses.require_names(self.tasks, what="FormatShareCurve.tasks")
    courses.require_steps(self.steps, what="FormatShareCurve.steps")
    self.wanted()

  def wanted(self) -> Wanted:
    """What is measured at every moment."""
    return Wanted(
      tuned=False, tasks=self.tasks, shots=self.shots, method=self.method, limit=self.limit
    )

  def __call__(self, sources: Sequence[Source]) -> Findings:
    found, notes = courses.of(sources, stage=self.stage, steps=self.steps, least=2)
    for course in found:
      if data.format_metric(course.experiment) is None:
        raise ConfigError(
          f"'{course.name}' was tuned on {course.experiment.task}, whose outputs have no format that"
          " could be told from others; name runs that were tuned on a task with fixed answers."
        )
    rows = [row for course in found for row in self._rows(course)]
    panels = charts.by_run(rows, [course.name for course in found], _points)
    last = "; ".join(
      f"{row.run}, {row.task}: {row.share:.1f} % at step {row.step}"
      for row in {(row.run, row.task): row for row in rows}.values()
    )
    return Findings(
      title="Outputs in the tuned task's format",
      rows=rows,
      notes=notes,
      charts={
        "": Chart(
          panels=panels,
          across="step",
          up=f"% of outputs, {self.shots}-shot",
          limits=(-4, 104),
          words=f"Lines of the share of outputs in the tuned task's format. At the end {last}.",
        )
      },
    )

  def _rows(self, course: Course) -> Iterator[Row]:
    for moment, _, others in scores.along(course, self.wanted()):
      for result in others:
        # What is only measured by likelihoods has no outputs.
        if SHARE not in result.scores:
          continue
        share = scores.of_result(result, SHARE)
        yield Row(
          run=course.name,
          step=moment.step,
          task=result.task,
          shots=result.shots,
          share=share.value,
          low=share.low,
          high=share.high,
        )


def _points(row: Row) -> Iterator[tuple[str, Point]]:
  yield row.task, Point(x=row.step, y=row.share, low=row.low, high=row.high)
