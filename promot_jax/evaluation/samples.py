"""What the methods of a group write to the same questions, side by side (Table 1 of Wang et al. 2024).

Which questions are shown follows from their texts alone: of those that all the methods answered, the ones
whose SHA-256 is smallest.  No answer has a say in it, and the same test set gives the same questions in
every report.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax import errors
from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.records import Prediction
from promot_jax.evaluation.runs import Group

EACH = 3
RULE = (
  f"Of each task the {EACH} examples whose inputs have the smallest SHA-256, of those that the methods"
  " shown were all asked: chosen before any output is looked at. Outputs are whole, as the first seed of"
  " each method wrote them; a score is of that example alone."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
  """What a method wrote; `score` by the task's headline metric, None if it has none of one example."""

  method: str
  seed: int
  output: str
  score: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
  """One example and the answers to it.

  shots: None of the tuned task, whose form the method decides.
  """

  task: str
  shots: int | None
  index: int
  input: str
  targets: tuple[str, ...]
  metric: str
  answers: tuple[Answer, ...]


def of_group(group: Group, *, each: int = EACH) -> tuple[Sample, ...]:
  """The samples of every task of a group, tuned ones first."""
  return tuple(
    sample for task, shots in group.questions for sample in _of_task(group, task, shots, each)
  )


def _of_task(group: Group, task: str, shots: int | None, each: int) -> Sequence[Sample]:
  given: dict[str, dict[tuple[int, str, str], Prediction]] = {}
  metric, shared = "", None
  for method, runs in group.runs.items():
    found = runs_lib.answering(runs, task=task, shots=shots, method=method)
    position = min(found, default=None)  # one seed stands for a method
    if position is None:
      continue
    try:
      predictions = runs[position].store.predictions(runs[position].selected, found[position])
      answers = {(p.index, p.input, repr(p.targets)): p for p in predictions}
    except errors.DamagedRecord:  # of which the report tells elsewhere
      continue
    together = set(answers) if shared is None else shared & set(answers)
    # A method that was asked in another form, such as with a demonstration, shares none.
    if together:
      given[method], shared, metric = answers, together, metric or found[position].metric
  chosen = sorted(shared or (), key=lambda key: (hashlib.sha256(key[1].encode()).digest(), key))
  return [_sample(group, task, shots, metric, key, given) for key in chosen[:each]]


def _sample(
  group: Group,
  task: str,
  shots: int | None,
  metric: str,
  key: tuple[int, str, str],
  given: Mapping[str, Mapping[tuple[int, str, str], Prediction]],
) -> Sample:
  first = next(iter(given.values()))[key]
  return Sample(
    task=task,
    shots=shots,
    index=first.index,
    input=first.input,
    targets=tuple(map(str, accepted(first.targets))),
    metric=metric,
    answers=tuple(
      Answer(
        method=group.name(method),
        seed=min(run.record.seed for run in group.runs[method]),
        output=answers[key].raw,
        score=answers[key].score,
      )
      for method, answers in given.items()
    ),
  )


def accepted(targets: Any) -> Sequence[Any]:
  """The accepted answers of a stored prediction, which may be a single one."""
  return targets if isinstance(targets, list | tuple) else [targets]
