"""What a run gains against what it keeps, a point for each kept step (Wang et al., 2024, Figures 5 and 6).

The paper tunes on En-Fr for 20,000 steps, and draws BLEU there against the mean accuracy of the
classification tasks and the mean BLEU of the other pairs.  Runs whose points lie above and to the right of
another's have the better trade-off, whichever step one would choose.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from promot_jax.analyses import courses, scores
from promot_jax.analyses.charts import Chart, Panel, Point, Series
from promot_jax.analyses.courses import Course
from promot_jax.analyses.findings import Findings, Source
from promot_jax.analyses.scores import Wanted
from promot_jax.errors import ConfigError
from promot_jax.evaluation.averages import ordered

RECIPE_VALUES = ("TradeOff",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """Two scores of a step, 0 to 100: gained on the tuned task, kept on a group of others (their mean)."""

  run: str
  step: int
  task: str
  gained: float
  group: str
  kept: float
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TradeOff:
  """Points of all kept steps of a stage.

  groups: name -> tasks whose mean is one chart; none: one chart, the mean of the run's unseen tasks.
    Other fields as of `forgetting_curve.ForgettingCurve`.
  """

  groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  shots: int = 1
  method: str = "off"
  limit: int | None = None
  stage: str = ""
  steps: Sequence[int] = ()

  def __post_init__(self):
    if not isinstance(self.groups, Mapping):
      raise ConfigError(
        f"TradeOff.groups={self.groups!r} must be names with lists of tasks:"
        " {'classification': ['cb', 'wic']}."
      )
    for name, tasks in self.groups.items():
      courses.require_names(tasks, what=f"TradeOff.groups['{name}']")
    courses.require_steps(self.steps, what="TradeOff.steps")
    self.wanted()

  def wanted(self) -> Wanted:
    """What is measured at every moment."""
    tasks = dict.fromkeys(task for group in self.groups.values() for task in group)
    return Wanted(tasks=tuple(tasks), shots=self.shots, method=self.method, limit=self.limit)

  def __call__(self, sources: Sequence[Source]) -> Findings:
    found, notes = courses.of(sources, stage=self.stage, steps=self.steps, least=2)
    task = courses.one_tuned_task(found)
    rows = [row for course in found for row in self._rows(course)]
    groups = list(dict.fromkeys(row.group for row in rows))
    return Findings(
      title="Gained and kept, by step",
      rows=rows,
      notes=notes,
      charts={
        "" if len(groups) == 1 else _file_name(group): Chart(
          panels=[Panel(series=[_series(rows, course.name, group) for course in found])],
          across=f"{task} (tuned task)",
          up=f"{group}, {self.shots}-shot",
          words=_words(rows, group),
        )
        for group in groups
      },
    )

  def _rows(self, course: Course) -> Iterator[Row]:
    wanted = self.wanted()
    groups = self.groups or {scores.MEAN: ordered(course.experiment.unseen_tasks)}
    for moment, tuned, others in scores.along(course, wanted):
      for group, tasks in groups.items():
        kept = scores.mean_of(others, tasks, wanted)
        # A method that is only attached later leaves nothing to measure before.
        if kept is None:
          continue
        yield Row(
          run=course.name,
          step=moment.step,
          task=tuned[0].task,
          gained=tuned[0].score,
          group=group,
          kept=kept.value,
          low=kept.low,
          high=kept.high,
        )


def _series(rows: Sequence[Row], run: str, group: str) -> Series:
  own = [row for row in rows if (row.run, row.group) == (run, group)]
  # The ends are named: between them a line leads through the steps in their order.
  ends = {own[0].step, own[-1].step} if own else set()
  points = [
    Point(x=row.gained, y=row.kept, text=f"step {row.step}" if row.step in ends else "")
    for row in own
  ]
  return Series(name=run, points=points)


def _words(rows: Sequence[Row], group: str) -> str:
  last = {row.run: row for row in rows if row.group == group}
  said = "; ".join(
    f"{row.run} at step {row.step}: {row.gained:.1f} and {row.kept:.1f}" for row in last.values()
  )
  return f"Points of the tuned task's score and of {group}, a line for each run. {said}."


def _file_name(group: str) -> str:
  return "".join(letter if letter.isalnum() else "-" for letter in group.lower())
