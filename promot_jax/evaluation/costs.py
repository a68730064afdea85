"""What each method trains, what a step of it costs, and what that buys, in one table.

One row is one stage, because the stages of a method differ in all of it; the scores stand in the row
of the last one.  Step times are compared within a seed and on equal devices only.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from promot_jax.evaluation import runs as runs_lib
from promot_jax.evaluation.records import StageRecord
from promot_jax.evaluation.runs import Group, Run
from promot_jax.evaluation.tables import Cell, Column, Row, Table

REFERENCE = "fine_tuning"
_DRIFT = {"KL from pretrained": "divergence", "Perplexity": "perplexity"}
"""Heading -> its name in `RunRecord.drift`."""
_READ = "Parameters of a model"
_NOTES = (
  "Share: trained parameters over those of the pretrained model. Step: median time of an update, "
  "compilation, validation and saving left out; beside it the ratio to full fine-tuning's with the "
  "same seed on the same device, which other work on the machine distorts: "
  "benchmarks/recipe_steps.py compares while stages take turns.",
  "Norm. Avg: plain mean of the unseen tasks. Off: the method is taken off for them, as the "
  "paper does with the prompt; one that leaves the backbone alone is then the pretrained model. On: "
  "it is left on. Fine-tuning has nothing to take off and stands under off.",
  "A method of several stages has a row for each; the scores are those after the last one.",
)
_DRIFT_NOTES = (
  "KL from pretrained: KL(model || pretrained model) in nats a token, mean over the target tokens of the tuned task's "
  "selection split. Perplexity: of general text. Both under teacher forcing, with the method off and on; the pretrained "
  "model has a KL of 0, and its perplexity is the reference.",
  "Parameters of a model: those that an answer is computed from, each once, over those of the pretrained model: what "
  "inference holds in memory. Its time is not measured.",
)


def cost_table(group: Group) -> Table | None:
  """The table of a group; None where no run recorded its stages."""
  if not any(run.record.stages for runs in group.runs.values() for run in runs):
    return None
  columns = [
    Column(group="Trained parameters", header="number"),
    Column(group="Trained parameters", header="share (%)"),
    Column(group="Step", header="ms"),
    Column(group="Step", header="/ fine-tuning"),
    *(Column(group=task, header="tuned task") for task in group.tuned_tasks if task != "none"),
    *(
      Column(group="Norm. Avg", header=f"{shots}-shot, {state}")
      for shots in group.shots
      for state in ("off", "on")
    ),
    *(Column(group=heading, header=state) for heading in _DRIFT for state in ("off", "on")),
    Column(group=_READ, header="/ pretrained"),
  ]
  measured = any(run.record.drift for runs in group.runs.values() for run in runs)
  rows = [row for method in group.runs for row in _rows(group, method, measured=measured)]
  # Columns that no run of the group fills, such as those with the method on, are left out.
  kept = [i for i in range(len(columns)) if any(row.cells[i] for row in rows)]
  return Table(
    title="What each method trains, costs and keeps",
    columns=tuple(columns[i] for i in kept),
    rows=tuple(dataclasses.replace(row, cells=tuple(row.cells[i] for i in kept)) for row in rows),
    notes=(*_NOTES, *(_DRIFT_NOTES if measured else ())),
  )


def _rows(group: Group, method: str, *, measured: bool) -> list[Row]:
  """A row for each stage of a method, or the only one of a method that trains nothing."""
  runs = group.runs[method]
  name = group.name(method)
  drift = _drift(group, runs) if measured else [None] * (2 * len(_DRIFT) + 1)
  scores = [*_scores(group, method), *drift]
  # The first run tells which stages there are; those of other seeds fill their rows.
  stages = runs[0].record.stages
  if not stages:
    return [Row(label=name, detail="", cells=(None, None, None, None, *scores))]
  rows = []
  for position, stage in enumerate(stages):
    last = position == len(stages) - 1
    detail = f"stage {position + 1}: {stage.name}" if len(stages) > 1 else ""
    costs = _costs(group.runs.get(REFERENCE, ()), runs, position)
    # Scores are of the model that all stages made together: they stand once.
    shown = scores if last else [None] * len(scores)
    rows.append(Row(label=name, detail=detail, cells=(*costs, *shown)))
  return rows


def _scores(group: Group, method: str) -> list[Cell | None]:
  """Tuned tasks, then Norm. Avg with the method off and on at every number of shots."""
  runs = group.runs[method]
  cells = [
    runs_lib.tuned_cell(runs, task=task, method=method)
    for task in group.tuned_tasks
    if task != "none"
  ]
  for shots in group.shots:
    cells += [runs_lib.average_cell(runs, shots=shots, attached=on) for on in (False, True)]
  return cells


def _drift(group: Group, runs: Sequence[Run]) -> list[Cell | None]:
  """Divergence and perplexity with the method off and on, and the parameters that an answer reads."""
  cells: list[Cell | None] = []
  for name in _DRIFT.values():
    for states in (("off", "none"), ("on",)):
      found = [run.record.drift.get(state, {}).get(name) for run in runs for state in states]
      cells.append(_mean([value for value in found if value is not None], digits=3))
  base = next((run.record.parameters for run in group.runs.get("pretrained", ())), 0)
  share = runs[0].record.parameters / base if base else None
  return [*cells, None if share is None else Cell(value=share, digits=3, count=len(runs))]


def _costs(reference: Sequence[Run], runs: Sequence[Run], position: int) -> list[Cell | None]:
  """Number, share, milliseconds and ratio of one stage."""
  found = [(run, run.record.stages[position]) for run in runs if position < len(run.record.stages)]
  first = found[0][1]
  times = [1000 * stage.step_seconds for _, stage in found if stage.step_seconds]
  base = _reference_seconds(reference)
  # Each against fine-tuning of its own seed and device: a mean over all would compare machines.
  ratios = [
    stage.step_seconds / base[key]
    for run, stage in found
    if stage.step_seconds and (key := _place(run)) in base
  ]
  return [
    Cell(value=first.trained, digits=0, count=len(found)),
    Cell(value=100 * first.trained / first.backbone, digits=3, count=len(found))
    if first.backbone
    else None,
    _mean(times, digits=1),
    _mean(ratios, digits=2),
  ]


def _reference_seconds(runs: Sequence[Run]) -> Mapping[tuple[int, str], float]:
  """Seed and device -> seconds of a step of full fine-tuning."""
  stages: list[tuple[Run, StageRecord]] = [
    (run, run.record.stages[-1]) for run in runs if run.record.stages
  ]
  return {_place(run): stage.step_seconds for run, stage in stages if stage.step_seconds}


def _place(run: Run) -> tuple[int, str]:
  return run.record.seed, str(run.record.environment.get("device", ""))


def _mean(values: Sequence[float], *, digits: int) -> Cell | None:
  if not values:
    return None
  # One value has no deviation.
  if len(values) == 1:
    return Cell(value=values[0], digits=digits)
  return Cell(
    value=statistics.fmean(values),
    spread=statistics.stdev(values),
    kind="sd",
    digits=digits,
    count=len(values),
  )
