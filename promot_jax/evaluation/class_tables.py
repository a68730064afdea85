"""Classification tasks class by class: precision, recall and F1, and which class was taken for which.

They come from the stored predictions.  The classes of a task are the answers that occur as targets; what
a model writes besides is an error of the class it should have been, and has a column of its own.
"""

from collections.abc import Mapping, Sequence

from promot_jax import errors
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.runs import Group
from promot_jax.evaluation.samples import accepted
from promot_jax.evaluation.tables import Cell, Column, Row, Table
from promot_jax.metrics import class_f1

METRICS = ("accuracy", class_f1.MACRO)
"""Headline scores of classification tasks."""
MOST = 20
"""Different targets of a classification task: one with more is told by its score alone."""
_NO_CLASS = "no class"
_MACRO = "mean"


def of_group(group: Group) -> tuple[Table, ...]:
  """Two tables for each classification task and number of shots of which predictions are stored."""
  return tuple(
    table
    for task, shots in group.questions
    if (matrices := _matrices(group, task, shots))
    for table in _tables(group, f"{task}, {runs_lib.form_of(shots)}", matrices)
  )


def _matrices(
  group: Group, task: str, shots: int | None
) -> dict[str, tuple[class_f1.ConfusionMatrix, int]]:
  """Method -> its confusion matrix and the number of seeds that it adds up."""
  pairs: dict[str, tuple[list[tuple[str, str]], int]] = {}
  for method, runs in group.runs.items():
    found = runs_lib.answering(runs, task=task, shots=shots, method=method)
    answers: list[tuple[str, str]] = []
    for position, result in found.items():
      if result.metric not in METRICS or result.median_of:
        return {}
      try:
        for each in runs[position].store.predictions(runs[position].selected, result):
          targets = accepted(each.targets)
          if len(targets) != 1:  # several right answers are no classes
            return {}
          answers.append((str(targets[0]).strip(), each.prediction))
      except errors.DamagedRecord:  # of which the report tells elsewhere
        continue
    if answers:
      pairs[method] = answers, len(found)
  labels = sorted({target for answers, _ in pairs.values() for target, _ in answers})
  if not 1 < len(labels) <= MOST:
    return {}
  return {
    method: (class_f1.confusion_matrix(labels, *zip(*answers, strict=True)), count)
    for method, (answers, count) in pairs.items()
  }


def _tables(
  group: Group, name: str, matrices: Mapping[str, tuple[class_f1.ConfusionMatrix, int]]
) -> tuple[Table, Table]:
  labels = next(iter(matrices.values()))[0].labels
  seeds = {count for _, count in matrices.values()}
  added = (" Counts of several seeds are added up.",) if max(seeds) > 1 else ("",)
  return (
    Table(
      title=f"{name}: each class",
      columns=tuple(
        Column(group=group.name(method), header=header)
        for method in matrices
        for header in ("precision", "recall", "F1")
      ),
      rows=(
        *(
          _row(
            label,
            [
              share[label]
              for matrix, _ in matrices.values()
              for share in (matrix.precision, matrix.recall, matrix.f1)
            ],
          )
          for label in labels
        ),
        _row(
          _MACRO,
          [
            _mean(share)
            for matrix, _ in matrices.values()
            for share in (matrix.precision, matrix.recall, matrix.f1)
          ],
          strong=True,
        ),
      ),
      notes=(
        "0 to 100. Classes: the answers that occur as targets. An output that is none of them is an error of"
        f" the class it should have been and of no other.{added[0]} A class that no output names has no"
        f" precision; '{_MACRO}' is over the classes that have one.",
      ),
    ),
    Table(
      title=f"{name}: confusion matrix",
      columns=tuple(
        Column(group=f"{group.name(method)} answers", header=header)
        for method in matrices
        for header in (*labels, _NO_CLASS)
      ),
      rows=tuple(
        Row(
          label=label,
          detail="is right",
          cells=tuple(
            Cell(value=int(count), digits=0, count=seeds)
            for matrix, seeds in matrices.values()
            for count in matrix.counts[index]
          ),
        )
        for index, label in enumerate(labels)
      ),
      notes=(
        f"Numbers of examples. '{_NO_CLASS}': outputs that are none of the classes.{added[0]}",
      ),
    ),
  )


def _row(label: str, values: Sequence[float | None], *, strong: bool = False) -> Row:
  cells = tuple(None if value is None else Cell(value=value) for value in values)
  return Row(label=label, detail="", cells=cells, strong=strong)


def _mean(shares: Mapping[str, float | None]) -> float | None:
  known = [value for value in shares.values() if value is not None]
  return sum(known) / len(known) if known else None
