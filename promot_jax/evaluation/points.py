"""Rows of a comparison at several values of settings: which value validation chooses, and what each gave.

A report shows the chosen one among the methods, and all of them in a table and a figure of their own: the others are
evidence, and to pick one of them by what is reported would be to choose on the test set.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax.evaluation.records import RunRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Points:
  """One row's points.

  methods: of its runs, in the order of their values.
  chosen: the one with the best mean validation score over the seeds, the one of the smallest values on ties.
  why: as one line; it says so where some points had no validation, or fewer seeds, and took no part.
  """

  row: str
  methods: Sequence[str]
  chosen: str
  why: str


def choose(records: Mapping[str, Sequence[RunRecord]]) -> list[Points]:
  """The choice of every row that has points, in the order in which rows are found.

  Args:
    records: method -> its runs', one a seed.
  """
  rows: dict[str, list[str]] = {}
  for method, runs in records.items():
    if runs and runs[0].point:
      rows.setdefault(runs[0].row, []).append(method)
  return [_chosen(row, {name: records[name] for name in names}) for row, names in rows.items()]


def _chosen(row: str, records: Mapping[str, Sequence[RunRecord]]) -> Points:
  ordered = sorted(records, key=lambda method: _order(records[method][0].point))
  seeds = {method: {each.seed for each in records[method]} for method in ordered}
  validated = {
    method: [each.validation for each in records[method] if each.validation is not None]
    for method in ordered
  }
  # Means over other seeds are of other starts, so that only points with all of them are compared.
  most = max((len(values) for values in validated.values()), default=0)
  complete = [method for method in ordered if most and len(validated[method]) == most]
  same = [method for method in complete if seeds[method] == seeds[complete[0]]]
  if not same:
    first = ordered[0]
    return Points(
      row=row,
      methods=ordered,
      chosen=first,
      why=f"{told(records[first][0].point)} is shown, the first one, because none was validated",
    )
  higher = records[same[0]][0].higher_is_better
  means = {method: statistics.fmean(validated[method]) for method in same}
  best = max(means.values()) if higher else min(means.values())
  tied = [method for method in same if means[method] == best]
  parts = [
    f"{told(records[tied[0]][0].point)} is chosen, the {'max' if higher else 'min'}imum of the validation score"
    f" {best:.6g}, a mean over {most} seed{'s' if most > 1 else ''}, over {len(same)} values"
  ]
  if len(tied) > 1:
    parts.append(
      f"{', '.join(told(records[method][0].point) for method in tied)} tie, and the smallest is taken"
    )
  if left := [method for method in ordered if method not in same]:
    parts.append(
      f"without {', '.join(told(records[method][0].point) for method in left)}, of which seeds are missing"
    )
  return Points(row=row, methods=ordered, chosen=tied[0], why="; ".join(parts))


def told(point: Mapping[str, Any]) -> str:
  """The settings of a point in print: 'light weight 0.5'."""
  return ", ".join(f"{name.lower().replace('_', ' ')} {value}" for name, value in point.items())


def _order(point: Mapping[str, Any]) -> tuple:
  """Numbers by size, before texts by name."""
  return tuple(
    (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))
    for value in point.values()
  )
