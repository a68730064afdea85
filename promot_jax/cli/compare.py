"""`promot compare`: paired tests of two models on the examples that both answered; imports neither JAX nor TensorFlow."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import aligned, show
from promot_jax.errors import ConfigError, DataError


def run(flags: Flags) -> int:
  """Runs `promot compare`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  from promot_jax.evaluation import pairs
  from promot_jax.metrics import paired

  values = flags.values
  names = values.checkpoints.split(",") if values.checkpoints else ["", ""]
  if len(names) != 2:
    raise ConfigError(
      f"--checkpoints={values.checkpoints}: name two joined by a comma, that of {values.runs[0]} and that of"
      f" {values.runs[1]}."
    )
  first, second = (
    pairs.side(folder, checkpoint=name) for folder, name in zip(values.runs, names, strict=True)
  )
  if first.store.root.resolve() == second.store.root.resolve() and (
    first.checkpoint == second.checkpoint
  ):
    raise ConfigError(
      f"{first.name} would be compared with itself; name another folder, or two of its checkpoints with"
      " --checkpoints=A,B."
    )
  wanted = _named(values.tasks, first, second)
  found, left_out = [], []
  for one, other in pairs.alike(first, second):
    if wanted and one.task not in wanted:
      continue
    try:
      sides = [
        [pairs.scored(side.store, side.checkpoint, result)]
        for side, result in ((first, one), (second, other))
      ]
      found.append(pairs.compare(*sides, resamples=values.resamples, seed=values.seed))
    except DataError as error:
      left_out.append(f"{one.task} {one.split} {one.shots}-shot: {error}")
  if not found:
    why = f": {'; '.join(left_out)}" if left_out else ", split and number of shots"
    what = "no results of the same examples" if left_out else "no results of the same task"
    raise DataError(f"{first.name} and {second.name} have {what}{why}.")
  holm = paired.adjusted([pair.difference.p_value for pair in found])
  if values.json:
    show(json.dumps(_as_json(first, second, found, holm, left_out, values)))
    return 0
  show(f"A: {first.name}\nB: {second.name}\n")
  show(_table(found, holm))
  show(_explained(found, values))
  for line in left_out:
    show(f"left out: {line}", file=sys.stderr)
  return 0


def _named(tasks: str | None, first, second) -> list[str]:
  """The tasks that the flag names; all where it is not given."""
  wanted = tasks.split(",") if tasks else []
  for side in (first, second):
    there = sorted({result.task for result in side.results})
    if missing := [task for task in wanted if task not in there]:
      raise ConfigError(
        f"--tasks={tasks}: {side.name} has no results of {missing[0]}; it has {', '.join(there)}."
      )
  return wanted


def _table(found: Sequence[Any], holm: Sequence[float]) -> str:
  lines = [
    (
      "task",
      "split",
      "shots",
      "method A/B",
      "answers",
      "n",
      "metric",
      "A",
      "B",
      "B - A",
      "95 % interval",
      "B higher",
      "lower",
      "p",
      "p (Holm)",
      "test",
    )
  ]
  for pair, adjusted in zip(found, holm, strict=True):
    apart = pair.difference
    low, high = apart.interval or (None, None)
    lines.append(
      (
        pair.first.task,
        pair.first.split,
        str(pair.first.shots),
        f"{pair.first.method}/{pair.second.method}",
        "/".join(dict.fromkeys(_answers(pair))),
        str(apart.count),
        pair.first.metric,
        f"{apart.first:.2f}",
        f"{apart.second:.2f}",
        f"{apart.value:+.2f}",
        "" if low is None else f"{low:+.1f} to {high:+.1f}",
        str(apart.higher),
        str(apart.lower),
        f"{apart.p_value:.2g}",
        f"{adjusted:.2g}",
        "; ".join((apart.test, *pair.remarks)),
      )
    )
  return aligned(lines)


def _answers(pair: Any) -> tuple[str, str]:
  """How those of each side came about."""
  from promot_jax.evaluation import ways

  return ways.answers(pair.first), ways.answers(pair.second)


def _explained(found: Sequence[Any], values) -> str:
  """What the figures are, below them."""
  parts = [
    f"Interval: paired bootstrap over the examples, {values.resamples:,} draws, seed {values.seed}."
  ]
  if any("exchanges" in pair.difference.test for pair in found):
    parts.append("Exchanges: the outputs of an example change places under the hypothesis.")
  if len(found) > 1:
    parts.append(
      f"p (Holm): raised for {len(found)} comparisons at once; those of one task are not independent."
    )
  parts.append("Neither covers training seeds or demonstrations.")
  return "\n" + " ".join(parts)


def _as_json(first, second, found, holm, left_out, values) -> dict[str, Any]:
  return {
    "format": 1,
    **{
      name: {"directory": str(side.store.root), "checkpoint": side.checkpoint}
      for name, side in (("first", first), ("second", second))
    },
    "resamples": values.resamples,
    "seed": values.seed,
    "comparisons": [
      {
        "task": pair.first.task,
        "split": pair.first.split,
        "shots": pair.first.shots,
        "methods": [pair.first.method, pair.second.method],
        "answers": list(_answers(pair)),
        "metric": pair.first.metric,
        "difference": pair.difference.value,
        **dataclasses.asdict(pair.difference),
        "p_value_holm": adjusted,
        "remarks": list(pair.remarks),
      }
      for pair, adjusted in zip(found, holm, strict=True)
    ],
    "left_out": left_out,
  }


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["compare", *sys.argv[1:]]))
