"""How a run gains its task and loses others, step by step (Wang et al., 2024, Figure 1).

The paper draws accuracy on the tuned task and few-shot exact match on a task that was not tuned on, along
fine-tuning.  Here it is any tasks, or their mean (Norm. Avg), along any stage of any run.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from promot_jax.analyses import charts, courses, scores
from promot_jax.analyses.charts import Chart, Point
from promot_jax.analyses.courses import Course
from promot_jax.analyses.findings import Findings, Source
from promot_jax.analyses.scores import Score, Wanted
from promot_jax.evaluation.averages import metric_of

RECIPE_VALUES = ("ForgettingCurve",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """A score, 0 to 100, with its 95 % interval over examples; tuned: of a task that was tuned on."""

  run: str
  step: int
  task: str
  tuned: bool
  shots: int
  metric: str
  score: float
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForgettingCurve:
  """Scores of tuned and other tasks at the kept steps of a stage.

  tasks: the others, each with a line; none: one line, the mean of the run's unseen tasks.
  shots: demonstrations of the others.
  method: whether they are measured with the run's method 'off' or 'on'.
  limit: only the first examples of each task; None: as many as the run's plan has.
  stage: name of the stage; '': the last.
  steps: only these, 0 is the beginning; none: all that were kept.
  """

  tasks: Sequence[str] = ()
  shots: int = 1
  method: str = "off"
  limit: int | None = None
  stage: str = ""
  steps: Sequence[int] = ()

  def __post_init__(self):
    courses.require_names(self.tasks, what="ForgettingCurve.tasks")
    courses.require_steps(self.steps, what="ForgettingCurve.steps")
    self.wanted()

  def wanted(self) -> Wanted:
    """What is measured at every moment."""
    return Wanted(tasks=self.tasks, shots=self.shots, method=self.method, limit=self.limit)

  def __call__(self, sources: Sequence[Source]) -> Findings:
    found, notes = courses.of(sources, stage=self.stage, steps=self.steps, least=2)
    rows = [row for course in found for row in self._rows(course)]
    panels = charts.by_run(rows, [course.name for course in found], _points)
    return Findings(
      title="Scores along training",
      rows=rows,
      notes=notes,
      charts={
        "": Chart(
          panels=panels,
          across="step",
          up=f"score (others {self.shots}-shot)",
          words=_words(rows),
        )
      },
    )

  def _rows(self, course: Course) -> Iterator[Row]:
    wanted = self.wanted()
    for moment, tuned, others in scores.along(course, wanted):

      def row(task: str, score: Score, metric: str, *, own: bool, shots: int, step=moment.step):
        return Row(
          run=course.name,
          step=step,
          task=task,
          tuned=own,
          shots=shots,
          metric=metric,
          score=score.value,
          low=score.low,
          high=score.high,
        )

      for result in tuned:
        score = scores.of_result(result)
        yield row(result.task, score, result.metric, own=True, shots=result.shots)
      if self.tasks:
        for result in others:
          metric = metric_of(result)
          score = scores.of_result(result, metric)
          yield row(result.task, score, metric, own=False, shots=result.shots)
      elif mean := scores.mean_of(others, course.experiment.unseen_tasks, wanted):
        yield row(scores.MEAN, mean, "mean", own=False, shots=self.shots)


def _points(row: Row) -> Iterator[tuple[str, Point]]:
  name = f"{row.task} (tuned)" if row.tuned else row.task
  yield name, Point(x=row.step, y=row.score, low=row.low, high=row.high)


def _words(rows: Sequence[Row]) -> str:
  said = []
  for run, task in dict.fromkeys((row.run, row.task) for row in rows):
    own = [row for row in rows if (row.run, row.task) == (run, task)]
    said.append(
      f"{run}, {task}: {own[0].score:.1f} at step {own[0].step}, {own[-1].score:.1f} at step"
      f" {own[-1].step}"
    )
  return f"Lines of scores along training. {'; '.join(said)}."
