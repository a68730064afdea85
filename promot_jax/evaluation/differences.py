"""The plain statement of what differs between our runs and the paper's.

Every quoted figure is another model's on other data; this says so, aspect by aspect, from what the
runs recorded.
"""

from collections.abc import Iterable, Sequence

from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.runs import Group, Run


def differences(group: Group) -> tuple[tuple[str, str, str], ...]:
  """(aspect, ours, paper) for each aspect; what was not recorded is said to be so."""
  runs = [run for runs in group.runs.values() for run in runs]
  # Medians were not measured: settings are those of what they are made of.
  results = [result for run in runs for result in run.reported if not result.median_of]
  # Seeds and checkpoints are matters of training, of which pretrained models have none.
  tuned = [run for run in runs if run.record.method != "pretrained"] or runs
  sizes = sorted({count for run in runs if (count := _backbone_size(run))})
  size = ", ".join(f"{size:,} weights" for size in sizes)
  seeds = sorted({run.record.seed for run in tuned})
  metrics = _listed(metric for result in results for metric in result.settings.get("metrics", ()))
  return (
    ("model", _join(group.backbone or "not recorded", size), "mT5 XXL, 13 billion weights"),
    ("data", _data(group), "the real data sets, from TFDS"),
    (
      "test sets",
      _sets(results),
      "SuperGLUE tasks on the development set, the others on the test set",
    ),
    (
      "decoding",
      _listed(result.settings.get("decoding", "") for result in results) or "not recorded",
      "beam search, width 4",
    ),
    (
      "metrics",
      metrics or "not recorded",
      "accuracy, exact match, BLEU, ROUGE-2; tokenizer and stemming not stated",
    ),
    (
      "checkpoint",
      _checkpoints(group, tuned),
      "best on the tuned task, on the set that is reported for RTE, CB and WiC",
    ),
    (
      "training",
      _settings(group, tuned),
      "Adafactor, batch 64; fine-tuning 1000 steps at 1e-3, prompt of 100 vectors 5000 steps at 0.2",
    ),
    ("seeds", f"{len(seeds)} ({', '.join(map(str, seeds))})", "not stated; no spread is printed"),
  )


def _backbone_size(run: Run) -> int:
  """Weights of the pretrained model, without what a method adds as far as that was recorded."""
  stages = run.record.stages
  return stages[0].backbone if stages else run.record.parameters


def _data(group: Group) -> str:
  """What was read, as far as it was recorded; a user's own data are never called the real ones."""
  if group.data == "micro":
    return "the built-in micro world: artificial sentences in the form of the real data sets"
  sets: dict[str, str] = {}
  for runs in group.runs.values():
    for run in runs:
      sets |= run.record.data_sets
  # Own data are named first: whatever is quoted beside them is of other examples.
  own = [f"{task} from {sets.get(task, 'elsewhere')}" for task in sorted(group.own_tasks)]
  others = [text for task, text in sets.items() if task not in group.own_tasks]
  parts = [f"own data, not the published sets: {'; '.join(own)}"] if own else []
  if others:
    # Each by its own name, which is a version of TFDS or a file.
    parts.append(f"the published sets: {'; '.join(dict.fromkeys(others))}")
  if not parts and group.data == "tfds":
    parts.append(
      "sets of TFDS; which versions, and whether they are the published ones, is not recorded"
    )
  return "; ".join(parts) or group.data or "not recorded"


def _checkpoints(group: Group, runs: Sequence[Run]) -> str:
  """Of every method the reported checkpoints, by seed, and why: the reason itself of one run."""
  parts = []
  for method in dict.fromkeys(run.record.method for run in runs):
    own = [run for run in runs if run.record.method == method]
    name = group.name(method)
    if len(own) == 1:
      parts.append(f"{name}: {_join(own[0].selected, own[0].record.why)}")
    else:
      chosen = ", ".join(f"{run.selected} (seed {run.record.seed})" for run in own)
      parts.append(f"{name}: {chosen}")
  return "; ".join(parts) or "not recorded"


def _sets(results: Sequence[TaskResult]) -> str:
  """Split and number of examples of every task: `cb validation 56, xsum test 11,301`."""
  sets: dict[str, set[str]] = {}
  for result in results:
    sets.setdefault(result.task, set()).add(f"{result.split} {result.count:,}".strip())
  return ", ".join(f"{task} {' and '.join(sorted(values))}" for task, values in sets.items())


def _settings(group: Group, runs: Sequence[Run]) -> str:
  """Recorded settings; what not all methods share stands with the methods that had it."""
  everyone = {run.record.method for run in runs}
  values: dict[str, dict[str, list[str]]] = {}  # setting -> value -> methods
  for run in runs:
    for name, value in run.record.settings.items():
      methods = values.setdefault(str(name), {}).setdefault(str(value), [])
      methods.append(run.record.method)
  shown = []
  for name, found in values.items():
    texts = [
      value
      # What all share is said once, without names.
      if set(methods) == everyone
      else f"{value} ({', '.join(map(group.name, dict.fromkeys(methods)))})"
      for value, methods in found.items()
    ]
    shown.append(f"{name} {' or '.join(texts)}")
  return "; ".join(shown) or "not recorded"


def _listed(values: Iterable[str], most: int = 4) -> str:
  unique = [value for value in dict.fromkeys(values) if value]
  more = f"; and {len(unique) - most} more" if len(unique) > most else ""
  return "; ".join(unique[:most]) + more


def _join(*parts: str) -> str:
  return ", ".join(part for part in parts if part)
