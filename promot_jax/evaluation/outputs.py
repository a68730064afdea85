"""Raw outputs of the tasks that are not finished, remembered in a journal as they come."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promot_jax.evaluation.journal import Journal
from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.rows import Row
from promot_jax.evaluation.scorer import Output


class Outputs:
  """Outputs by task and row; those of an evaluation that was stopped are there from the start."""

  def __init__(self, plans: Mapping[int, TaskResult], journal: Journal | None):
    """`plans`: of the tasks to finish, by their positions."""
    self._plans = plans
    self._journal = journal
    self._found: dict[int, dict[tuple[int, int], Output]] = {position: {} for position in plans}
    # By fingerprint: an output of other settings or examples is none of these tasks'.
    positions = {plan.fingerprint: position for position, plan in plans.items()}
    for entry in journal.read() if journal else ():
      position = positions.get(entry.get("fingerprint", ""))
      if position is not None:
        output = Output(tokens=entry["tokens"], score=entry["score"])
        self._found[position][entry["index"], entry["option"]] = output

  def of(self, position: int) -> Mapping[tuple[int, int], Output]:
    """Those of one task by (example, option)."""
    return self._found[position]

  def missing(self, rows: Iterable[Row]) -> list[Row]:
    """The rows that have none."""
    return [row for row in rows if (row.example, row.option) not in self._found[row.task]]

  def add(self, finished: Sequence[tuple[Row, Output]]) -> None:
    """Those of a batch, in the journal first."""
    if self._journal:
      self._journal.append(self._entry(row, output) for row, output in finished)
    for row, output in finished:
      self._found[row.task][row.example, row.option] = output

  def forget(self) -> None:
    """Drops from the journal what is part of finished results now."""
    if self._journal:
      self._journal.remove({plan.fingerprint for plan in self._plans.values()})

  def _entry(self, row: Row, output: Output) -> dict[str, Any]:
    return {
      "fingerprint": self._plans[row.task].fingerprint,
      "index": row.example,
      "option": row.option,
      "tokens": output.tokens,
      "score": output.score,
    }
