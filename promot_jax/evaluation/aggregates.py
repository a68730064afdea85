"""What Hewitt et al., 2021, say of their Table 1 in percent: means over data sets and light methods.

With the scores in (i) and out of (o) distribution of full tuning, a light method, their ensemble and their cocktail:

  full tuning keeps    o(full) / o(light)                      of what the light method has there
  the light one keeps  i(light) / i(full)
  an ensemble gains    i(ensemble) / min(i(light), i(full)) - 1, and the same of o; a cocktail likewise

Each is the plain mean of the ratios, which are taken within one data set and one light method.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from promot_jax.evaluation import published
from promot_jax.evaluation.published import Figure
from promot_jax.evaluation.tables import OURS, QUOTED, Cell, Column, Row, Table

PAPER = published.PAPERS["hewitt2021"]
_LIGHT = ("prefix", "adapter")
_IN, _OUT = "test_id", "test_ood"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
  """Of one model, in and out of distribution."""

  inside: float
  outside: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
  """The four models of one data set and one light method."""

  full: Scores
  light: Scores
  ensemble: Scores
  cocktail: Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aggregate:
  """One mean in print, with what the paper's text says of it.

  ratio: of one setting; gain: whether it is told as what is more than 100 %.
  """

  label: str
  detail: str
  quoted: str
  ratio: Callable[[Setting], float]
  gain: bool = True

  def of(self, settings: Sequence[Setting]) -> float:
    """In percent, over at least one setting."""
    mean = statistics.fmean(map(self.ratio, settings))
    return 100 * (mean - self.gain)


def _weaker(setting: Setting) -> Scores:
  """The lower one of the two that are combined, in each distribution."""
  return Scores(
    inside=min(setting.light.inside, setting.full.inside),
    outside=min(setting.light.outside, setting.full.outside),
  )


_INSIDE, _OUTSIDE = "in distribution", "out of distribution"
AGGREGATES = (
  Aggregate(
    label="full tuning",
    detail=f"share of the light method's score {_OUTSIDE}",
    quoted="84",
    ratio=lambda each: each.full.outside / each.light.outside,
    gain=False,
  ),
  Aggregate(
    label="light method",
    detail=f"share of full tuning's score {_INSIDE}",
    quoted="81",
    ratio=lambda each: each.light.inside / each.full.inside,
    gain=False,
  ),
  Aggregate(
    label="ensemble",
    detail=f"gain over the weaker one {_INSIDE}",
    quoted="+37",
    ratio=lambda each: each.ensemble.inside / _weaker(each).inside,
  ),
  Aggregate(
    label="ensemble",
    detail=f"gain over the weaker one {_OUTSIDE}",
    quoted="+24",
    ratio=lambda each: each.ensemble.outside / _weaker(each).outside,
  ),
  Aggregate(
    label="cocktail",
    detail=f"gain over the weaker one {_INSIDE}",
    quoted="+39",
    ratio=lambda each: each.cocktail.inside / _weaker(each).inside,
  ),
  Aggregate(
    label="cocktail",
    detail=f"gain over the weaker one {_OUTSIDE}",
    quoted="+19",
    ratio=lambda each: each.cocktail.outside / _weaker(each).outside,
  ),
)


def settings_of(score: Callable[[Figure], float | None]) -> list[Setting]:
  """The settings of which every score of Table 1 is there, and none is 0, which would have no ratio.

  Args:
    score: of what a printed number measures.
  """
  found: dict[tuple[str, str, str], float] = {}
  for figure in published.figures():
    value = score(figure) if figure.paper == PAPER else None
    if value:
      found[figure.trained_on, figure.method, figure.split] = value

  def scores(data: str, method: str) -> Scores | None:
    inside, outside = (found.get((data, method, split)) for split in (_IN, _OUT))
    return Scores(inside=inside, outside=outside) if inside and outside else None

  settings = []
  for data in dict.fromkeys(data for data, _, _ in found):
    for light in _LIGHT:
      names = ("fine_tuning", light, f"ensemble_{light}", f"cocktail_{light}")
      full, own, ensemble, cocktail = (scores(data, name) for name in names)
      if full and own and ensemble and cocktail:
        settings.append(Setting(full=full, light=own, ensemble=ensemble, cocktail=cocktail))
  return settings


def table(score: Callable[[Figure], float | None], *, ours: str = "") -> Table | None:
  """Our means beside those of the printed table, and what the paper's text says; None without a setting.

  Args:
    score: ours of what a printed number measures.
    ours: what the title says of our runs.
  """
  own, printed = settings_of(score), settings_of(lambda figure: figure.value)
  if not own:
    return None
  return Table(
    title=f"Means over Table 1 of {PAPER}, in %{ours}",
    columns=(
      Column(group="mean", header="ours", kind=OURS),
      Column(group="mean", header="of the printed table", kind=QUOTED),
      Column(group="mean", header="in the paper's text", kind=QUOTED),
    ),
    rows=tuple(
      Row(
        label=each.label,
        detail=each.detail,
        cells=(
          _cell(each, own),
          dataclasses.replace(_cell(each, printed), source=f"{PAPER}, Table 1"),
          Cell(value=float(each.quoted), printed=each.quoted, source=PAPER),
        ),
      )
      for each in AGGREGATES
    ),
    notes=(
      f"Ours: means over {len(own)} of the paper's {len(printed)} pairs of a data set and a light method,"
      " those of which all scores are there. Ratios are of means over seeds.",
      f"The paper's two orders: {_orders(own)}; in the printed table {_orders(printed)}.",
    ),
  )


def _orders(settings: Sequence[Setting]) -> str:
  """How often full tuning is ahead in distribution, and the light method out of it."""
  inside = sum(each.full.inside > each.light.inside for each in settings)
  outside = sum(each.light.outside > each.full.outside for each in settings)
  return (
    f"full tuning ahead {_INSIDE} in {inside} of {len(settings)}, the light method ahead"
    f" {_OUTSIDE} in {outside} of {len(settings)}"
  )


def _cell(aggregate: Aggregate, settings: Sequence[Setting]) -> Cell:
  value = aggregate.of(settings)
  printed = f"{value:+.1f}" if aggregate.gain else f"{value:.1f}"
  return Cell(value=value, printed=printed)
