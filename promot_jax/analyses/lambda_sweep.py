"""What an ensemble of two scores under each share of its first member (Hewitt et al., 2021, Figures 2 to 4).

The share, the paper's lambda, is chosen on the selection split of the tuned task alone.  Other tasks, such as
those outside of the training distribution, show what each share would have given there and choose nothing.
All shares are decoded together where answers are generated (`models.sweep`).
"""

import dataclasses
from collections.abc import Iterator, Sequence

from promot_jax.analyses import charts, courses, scores
from promot_jax.analyses.charts import Chart, Point
from promot_jax.analyses.findings import Findings, Source
from promot_jax.errors import ConfigError
from promot_jax.evaluation.together import Prefixes
from promot_jax.experiments import data, sweep
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.experiments.sweep import Swept
from promot_jax.networks import ensemble

RECIPE_VALUES = ("LambdaSweep",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """The headline score of a task under a share, with its 95 % interval where it has one.

  share: of the first member; chosen: whether the selection split chooses it.
  role: of the split, 'selection' or 'report'.
  """

  run: str
  share: float
  task: str
  split: str
  role: str
  metric: str
  score: float
  low: float | None
  high: float | None
  examples: int
  chosen: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class LambdaSweep:
  """Scores of the selection split under every share, and the choice.

  shares: of the first member, from 0 to 1; at least one.
  tasks: whose reported splits are measured, too: the tuned task or others; they choose nothing.
  shots: demonstrations of the others.
  limit: only the first examples of each of these tasks; None: as many as the run's plan has.
  """

  shares: Sequence[float]
  tasks: Sequence[str] = ()
  shots: int = 1
  limit: int | None = None

  def __post_init__(self):
    courses.require_names(self.tasks, what="LambdaSweep.tasks")
    object.__setattr__(
      self, "shares", ensemble.require_shares(self.shares, what="LambdaSweep.shares")
    )
    if not self.shares:
      raise ConfigError("LambdaSweep.shares is empty; give at least one number from 0 to 1.")

  def __call__(self, sources: Sequence[Source]) -> Findings:
    directories = courses.runs_of(sources)
    for directory in directories:
      if not ensemble.of_two(directory.experiment.network):
        raise ConfigError(
          f"'{directory.experiment.name}' in {directory.folder} is no ensemble of two members, so it has no"
          " share to sweep; name a run of methods/ensemble.gin."
        )
    names = courses.names(directories)
    rows: list[Row] = []
    notes: list[str] = []
    for name, directory in zip(names, directories, strict=True):
      own = data.selection_tasks(directory.experiment, directory.session.reader)
      selection = sweep.measure(directory, self.shares, own)
      choice = sweep.chosen(selection)
      others = self._others(directory)
      for role, swept in (("selection", selection), ("report", others)):
        rows += _rows(name, role, swept, choice.value)
      notes.append(f"{name}: {choice.why}.")
      prefixes = selection.prefixes + others.prefixes
      if prefixes.share is not None:
        notes.append(
          f"{name}: {prefixes.share:.0%} of the {prefixes.total} prefixes that the shares decoded are"
          " distinct."
        )
    said = "; ".join(
      f"{row.run}, {row.task} {row.split}: {row.score:.1f} at {row.share:g}"
      for row in rows
      if row.chosen
    )
    return Findings(
      title="Scores of an ensemble by the share of its first member",
      rows=rows,
      notes=notes,
      charts={
        "": Chart(
          panels=charts.by_run(rows, names, _points),
          across="share of the first member",
          up="score",
          words=f"Lines of scores by the share of the first member. Chosen: {said}.",
        )
      },
    )

  def _others(self, directory: ModelDirectory) -> Swept:
    experiment = directory.experiment
    tuned = set(self.tasks) & set(experiment.tasks)
    if not self.tasks:
      return Swept(results={}, prefixes=Prefixes())
    plan = dataclasses.replace(
      experiment.evaluation,
      tuned=bool(tuned),
      unseen=[task for task in self.tasks if task not in tuned],
      shots=(self.shots,),
      limit=self.limit or experiment.evaluation.limit,
    )
    changed = dataclasses.replace(experiment, evaluation=plan)
    tasks = data.report_tasks(changed, directory.session.reader)
    return sweep.measure(dataclasses.replace(directory, experiment=changed), self.shares, tasks)


def _rows(run: str, role: str, swept: Swept, chosen: float) -> Iterator[Row]:
  for share, results in swept.results.items():
    for result in results:
      score = scores.of_result(result)
      yield Row(
        run=run,
        share=share,
        task=result.task,
        split=result.split,
        role=role,
        metric=result.metric,
        score=score.value,
        low=score.low,
        high=score.high,
        examples=result.count,
        chosen=share == chosen,
      )


def _points(row: Row) -> Iterator[tuple[str, Point]]:
  text = "chosen" if row.chosen and row.role == "selection" else ""
  yield (
    f"{row.task} {row.split}",
    Point(x=row.share, y=row.score, low=row.low, high=row.high, text=text),
  )
