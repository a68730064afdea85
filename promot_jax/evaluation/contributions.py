"""In words: which differences in Norm. Avg rest on one of the unseen tasks (leave one out)."""

from collections.abc import Iterator, Mapping

from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.runs import Group

_PAIRS = tuple(
  (f"{prefix}promot{suffix}", f"{prefix}fine_tuning{suffix}")
  for prefix in ("", "multitask_")
  for suffix in ("", "_1shot")
)
_SMALLEST = 0.005  # differences that are printed as 0.00 are none


def notes(group: Group) -> Iterator[str]:
  """A sentence for each difference whose sign, or more than half of it, comes from one task.

  Looked at: every method beside the pretrained model, and ProMoT beside fine-tuning.
  """
  # The two comparisons of the paper: what tuning costs, and what ProMoT saves of it.
  pairs = [(method, "pretrained") for method in group.runs if method != "pretrained"]
  pairs += [pair for pair in _PAIRS if pair[0] in group.runs]
  for shots in group.shots:
    scores = {method: _scores(group, method, shots) for method in group.runs}
    for first, second in pairs:
      left, right = scores.get(first), scores.get(second)
      if left and right and (found := remark(left, right)):
        names = f"{group.name(first)} minus {group.name(second)}"
        yield f"{names}, Norm. Avg {shots}-shot: {found}"


def remark(first: Mapping[str, float], second: Mapping[str, float]) -> str:
  """What leaving one task out does to the difference of two means; empty if it is no matter.

  Args:
    first, second: task -> score; equal tasks.
  """
  differences = {task: first[task] - second[task] for task in first}
  count, total = len(differences), sum(differences.values())
  if count < 2 or abs(total) / count < _SMALLEST:
    return ""
  # The task that speaks most for the sign: without it the difference is at its smallest.
  direction = 1 if total > 0 else -1
  task = max(differences, key=lambda name: direction * differences[name])
  own = differences[task]
  rest = (total - own) / (count - 1)
  figures = (
    f"{total / count:+.2f} in all, {task} {own:+.2f}, the mean of the other {count - 1} {rest:+.2f}"
  )
  if direction * rest <= 0:
    return f"the sign comes from one task, {task} ({figures})."
  if own / total > 0.5:
    return f"more than half comes from one task, {task} ({figures})."
  return ""


def _scores(group: Group, method: str, shots: int) -> dict[str, float] | None:
  """Task -> mean over seeds; None unless all are there."""
  cells = {
    task: runs_lib.task_cell(group.runs[method], task=task, shots=shots) for task in group.unseen
  }
  found = {task: cell.value for task, cell in cells.items() if cell}
  # Sums are compared: both sides need the same tasks.
  return found if len(found) == len(cells) else None
