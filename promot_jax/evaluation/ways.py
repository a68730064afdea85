"""Ways of measuring one task: which results lie side by side, and which of them a run reports.

A way is everything in a result's settings that does not follow from the data: decoding, lengths,
metrics, the form in which texts are written.  How many of the first examples were measured is no part
of it: of two results that differ in nothing else, the fuller one says the same with less doubt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax.evaluation import whole_files
from promot_jax.evaluation.records import RunRecord, TaskResult

_OF_DATA = ("options",)  # the tokens of the first example's answers


def of(settings: Mapping[str, Any]) -> str:
  """Tells the ways of two results apart: eight hexadecimal digits."""
  kept = {name: value for name, value in settings.items() if name not in _OF_DATA}
  return whole_files.fingerprint(whole_files.plain(kept))[:8]


def name(result: TaskResult) -> str:
  """What a result is of, whatever the way: `rte.1shot.detached`, with the row of a method's bank."""
  row = f"_{result.bank_row}" if result.method == "attached" and result.bank_row else ""
  return f"{result.task}.{result.shots}shot.{result.method}{row}"


def answers(result: TaskResult) -> str:
  """How a result's answers came about: 'generated', 'ranked' or 'classified' (`task.Way`).

  Earlier versions recorded none of what was generated.
  """
  return str(result.settings.get("answers") or "generated")


def own(results: Sequence[TaskResult]) -> dict[str, str]:
  """What a run records of its own results: name -> split and way."""
  return {name(result): f"{result.split} {of(result.settings)}" for result in results}


def reported(
  results: Sequence[TaskResult], record: RunRecord
) -> tuple[list[TaskResult], list[TaskResult]]:
  """(the results of one checkpoint that a report shows, those measured in other ways).

  Of what the run's own plan measured, its split and its way are taken.  Other tasks and shots, which
  `promot eval` added, are taken where their answers came about as the plan says (`_in_its_manner`).  Of several that
  remain, the one of most examples is taken.
  """
  named: dict[str, list[TaskResult]] = {}
  for result in results:
    named.setdefault(name(result), []).append(result)
  shown: list[TaskResult] = []
  for each, found in named.items():
    # First what the run's own plan measured, then what was added in its manner.
    wanted = record.measured.get(each)
    alike = [r for r in found if f"{r.split} {of(r.settings)}" == wanted]
    if not alike:
      alike = _in_its_manner(found, record)
    if not alike and not record.measured:  # of a version that did not say how it measured
      alike = found
    shown += _fullest(alike)
  # By way and not by object: the smaller of two results of one way is no other way.
  kept = {(name(r), r.split, of(r.settings)) for r in shown}
  others = [r for r in results if (name(r), r.split, of(r.settings)) not in kept]
  return shown, others


def _in_its_manner(results: Sequence[TaskResult], record: RunRecord) -> list[TaskResult]:
  """Of the results of a task that the plan did not measure, those whose answers came about as it says.

  Answers that were written and those that were chosen are never taken together.  Where the plan leaves it to each
  task, what was written comes first: a task whose answers are chosen by itself has no other result.
  """
  planned = record.settings.get("answers", "auto")
  chosen = [result for result in results if answers(result) != "generated"]
  written = [
    result
    for result in results
    if answers(result) == "generated" and _decoded_as_planned(result, record)
  ]
  if planned == "ranked":
    return chosen
  return written or (chosen if planned == "auto" else [])


def _decoded_as_planned(result: TaskResult, record: RunRecord) -> bool:
  """Whether an answer was written as the plan's are; what is not recorded is taken to be so."""
  planned, decoding = record.settings.get("strategy"), result.settings.get("decoding")
  return None in (planned, decoding) or planned == decoding


def _fullest(results: Sequence[TaskResult]) -> list[TaskResult]:
  """For each split, the result of most examples; of equal ones the first."""
  best: dict[str, TaskResult] = {}
  for result in results:
    other = best.get(result.split)
    if other is None or _size(result) > _size(other):
      best[result.split] = result
  return list(best.values())


def _size(result: TaskResult) -> tuple[bool, int]:
  return result.limit is None, result.count
