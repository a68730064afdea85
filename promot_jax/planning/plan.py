"""What a run is going to do, computed from shapes alone: nothing is allocated, trained or written.

`describe` gives the lines that `promot train --dry_run` prints.  An XXL model's plan takes seconds
on a laptop without network (`experiments.shapes`).
"""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from flax import nnx

from promot_jax import partitioning, paths
from promot_jax.experiments import epochs
from promot_jax.experiments.comparison import Comparison, experiments_of
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.shapes import StagePlan, abstract_model, mesh_sizes, stage_plans
from promot_jax.models.backbone import Configuration
from promot_jax.networks import backbones, micro_model
from promot_jax.networks.loaded import Shapes
from promot_jax.networks.network import MICRO, RANDOM, Load, Network
from promot_jax.planning import needs
from promot_jax.training import choice, schedules, stages
from promot_jax.training.stages import Stage
from tasks import catalog


def describe(run: Experiment | Comparison, *, verbose: bool = False) -> Iterator[str]:
  """The lines of the plan."""
  experiments = [epochs.planned(experiment) for experiment in experiments_of(run)]
  devices = jax.devices()
  chips = needs.chips_text(mesh_sizes(experiments[0].mesh))
  yield f"devices   {len(devices)} x {devices[0].device_kind} ({jax.process_count()} host); {chips}"
  # Rows start from one network and are made of each other: each is traced once.
  load = Shapes().model
  sizes = []
  for number, experiment in enumerate(experiments):
    if len(experiments) > 1:
      yield ""
      yield f"--- {number + 1} of {len(experiments)}: {experiment.name}"
    # Rows of a comparison mostly differ in method and stages alone; what they share is told once.
    if number == 0 or _shared(experiment) != _shared(experiments[0]):
      yield from _model_lines(experiment, load)
    plans = stage_plans(experiment, mesh_sizes(experiment.mesh), load=load)
    sizes.append([plan.saved for plan in plans])
    yield from _stage_lines(experiment, plans, load)
    if number == 0 or experiment.evaluation != experiments[0].evaluation:
      yield from _evaluation_lines(experiment)
    if verbose:
      patterns = experiment.stages[-1].trainable if experiment.stages else None
      model = abstract_model(experiment, load=load)
      rows = paths.parameter_table(model, patterns, partitioning.T5_RULES)
      yield from paths.format_table(rows).splitlines()
  yield from needs.write_lines(run, experiments, sizes)


def describe_pretraining(run: Any) -> Iterator[str]:
  """The lines of the plan of a `pretraining.Pretraining`."""
  model = nnx.eval_shape(lambda: backbones.build(run.backbone, nnx.Rngs(0)))
  yield f"model     {_count(paths.count(model))} parameters, width {run.backbone.width}, from nothing"
  for number, phase in enumerate(run.curriculum):
    batches = ", ".join(f"{shots} shots x {size}" for shots, size in phase.batch_size.items())
    yield f"phase {number + 1}   {phase.steps} steps: {batches or 'rows filled with episodes'}"
  stage = run.stage
  yield (
    f"stage     {stage.steps} steps, learning rate up to "
    f"{max(float(stage.learning_rate(step)) for step in range(0, stage.steps, 50)):g}; "
    f"{_saving(stage)}, takes {choice.described(stage)}"
  )
  yield f"writes    {run.model_dir} ({needs.room_text(run.model_dir)})"


def start_text(experiment: Experiment) -> str:
  """The initial checkpoint, and whether it can be read from here."""
  path = experiment.start.about
  if path == MICRO:
    backbone = experiment.backbone
    if not micro_model.available(backbone):
      return f"micro: not in this installation (promot_jax/micro/{micro_model.file_name(backbone)})"
    return f"micro: shipped weights, sha256 {micro_model.digest(backbone)}"
  if path == RANDOM:
    return "random initialization: nothing pretrained is restored"
  local = path.removeprefix("hf:").removeprefix("local:")
  if not isinstance(experiment.start, Network):
    return path
  if os.path.exists(local):
    return f"{path} ({'readable' if os.access(local, os.R_OK) else 'NOT readable from here'})"
  # To ask would take the network, without which a plan is made too.
  if "://" in path or path.startswith("hf:"):
    return f"{path} (remote: not looked at in a plan)"
  return f"{path} (NOT readable from here)"


def _model_lines(experiment: Experiment, load: Load) -> Iterator[str]:
  model = abstract_model(experiment, load=load)
  config = experiment.backbone
  total = paths.count(paths.distinct(model))  # what members of an ensemble share is there once
  yield (
    f"model     {type(config).__name__} {_layers(config)} layers, "
    f"width {config.width}, vocabulary {config.vocab_size}, {_count(total)} parameters, "
    f"{'scanned' if config.scan_layers else 'unrolled'}, remat {config.remat}, {config.dtype}"
  )
  yield f"start     {start_text(experiment)}"
  yield f"vocab.    {needs.vocabulary_text(experiment)}"
  splits = {task: experiment.splits_of(task) for task in experiment.tasks}
  for task, split in splits.items():
    name = experiment.seqio_name(task)
    yield f"data      {name}: train '{split.train}', choose on '{split.select}', report '{split.report}'"
    if experiment.source != "micro" or not catalog.is_ours(experiment.records_of(task)):
      yield f"          {needs.data_text(experiment, task)}"
  for task, use in _further_data(experiment).items():
    name = experiment.seqio_name(task)
    yield f"data      {name}: {use} on '{experiment.splits_of(task).train}'"
    if experiment.source != "micro" or not catalog.is_ours(experiment.records_of(task)):
      yield f"          {needs.data_text(experiment, task)}"
  if experiment.source == "tfds" and experiment.evaluation.unseen:
    yield f"          {needs.unseen_data_text(experiment)}"


def _further_data(experiment: Experiment) -> dict[str, str]:
  """What training reads beside its own tasks, and what for."""
  found: dict[str, str] = {}
  for stage in experiment.stages:
    found |= dict.fromkeys(experiment.replayed(stage.name), "replay")
    fisher = stage.penalty.fisher if stage.penalty is not None else None
    found |= dict.fromkeys(
      (fisher.tasks if fisher is not None else None) or (), "Fisher information"
    )
  return found


def _layers(config: Configuration) -> str:
  """'24+24' of an encoder-decoder, '12' of a decoder-only model."""
  return "+".join(map(str, config.stack_layers.values()))


def _stage_lines(experiment: Experiment, plans: Sequence[StagePlan], load: Load) -> Iterator[str]:
  sizes = mesh_sizes(experiment.mesh)
  chips = math.prod(sizes.values())
  if not plans:
    made = "what others trained" if experiment.is_made_of_trained else "the pretrained model"
    yield f"stages    none: {made} is only measured"
    if experiment.shares:
      shares = ", ".join(f"{share:g}" for share in experiment.shares)
      yield f"chooses   the first member's share among {shares} on the selection split"
    return
  source = experiment.imported_stages
  yield "stages    name      steps   batch  epochs  learning rate   trained       frozen  optimizer MB"
  for plan in plans:
    stage = plan.stage
    rate = float(stage.learning_rate(0))
    # Told by its ends; rates that are equal but for float32's rounding are one.
    later = float(stage.learning_rate(max(0, stage.steps - 1)))
    rates = f"{rate:g}" if math.isclose(rate, later, rel_tol=1e-6) else f"{rate:g} to {later:g}"
    most = schedules.largest(stage.learning_rate, steps=stage.steps)
    if most > max(rate, later) * (1 + 1e-6):  # both ends of a warm-up and a decay may be 0
      rates = f"up to {most:g}"
    yield (
      f"          {stage.name:<8} {stage.steps:>6} {stage.batch_size:>7} "
      f"{epochs.text(experiment, stage):>7} {rates:>14} {_count(plan.trainable):>9} "
      f"{_count(plan.frozen):>12} {plan.optimizer / 2**20:>13,.2f}"
    )
    if stage.has_epochs:
      yield f"          {stage.name}: {_in_epochs(experiment, stage)}"
    if stage.name in source:
      yield f"          {stage.name}: taken over from {source[stage.name]}, not trained again"
    reads = stage.teacher_inputs
    read = (
      "" if reads is None else f", which reads {repr(reads) if isinstance(reads, str) else reads}"
    )
    if stage.own_teacher is not None:
      yield f"          {stage.name}: learns from {stage.own_teacher.about}{read}"
    if (teacher := experiment.teachers.get(stage.name)) is not None:
      shared = ", the start itself" * (teacher == experiment.start)
      count = paths.count(paths.distinct(load(teacher)))
      yield (
        f"          {stage.name}: learns from {teacher.about}, {_count(count)} parameters{shared}{read}"
      )
      if stage.teacher_cache is not None:
        kept = "all" if stage.kept_tokens is None else f"the {stage.kept_tokens} most probable"
        yield f"          {stage.name}: which is asked once, and {kept} tokens kept in {stage.teacher_cache}"
    if stage.penalty is not None:
      anchor = experiment.anchors[stage.name]
      shared = ", the start itself" * (anchor == experiment.start)
      yield f"          {stage.name}: held near {anchor.about}{shared}, by {stage.penalty.settings()}"
    lengths = experiment.lengths_of(stage.name)
    yield (
      f"          {stage.name}: on {experiment.task_of(stage.name)}, inputs {lengths['inputs']}, "
      f"targets {lengths['targets']}; {_saving(stage)}, takes {choice.described(stage)}"
    )
    if (replay := experiment.replay) is not None and replay.of_stage(stage.name):
      share = f"{100 * replay.share:g} % of the examples"
      yield f"          {stage.name}: replays {', '.join(replay.tasks)}, {share}"
  for plan in plans:
    bytes_ = plan.bytes
    yield (
      f"memory    {plan.stage.name}: {_gb(bytes_.total)} a chip on mesh data={sizes['data']} x "
      f"model={sizes['model']} ({chips} chips): parameters {_gb(bytes_.parameters)}, gradients "
      f"{_gb(bytes_.gradients)}, optimizer {_gb(bytes_.optimizer)}; activations not counted"
    )


def _evaluation_lines(experiment: Experiment) -> Iterator[str]:
  plan = experiment.evaluation
  strategy = plan.strategy
  # Demonstrations of templates are their own setting, so a plan's shots may not be what is
  # measured.
  asked = {n for task in experiment.unseen_tasks for n in experiment.shots_of(task)}
  shots = "/".join(map(str, sorted(asked or plan.shots)))
  yield (
    f"evaluate  {needs.evaluations(experiment)} evaluations of {', '.join(plan.checkpoints)} checkpoint: tuned "
    f"{', '.join(experiment.tasks) if plan.tuned else 'none'}; {len(experiment.unseen_tasks)} unseen tasks x "
    f"{shots} shots, method {' and '.join(plan.unseen_method)}; {strategy}"
  )
  if (asked_too := plan.from_pretrained) is not None:
    text = "" if asked_too.text is None else f", and the perplexity of {asked_too.text}"
    yield f"          of the reported checkpoint the divergence from the pretrained model{text}"


def _shared(experiment: Experiment) -> tuple:
  return (experiment.network, experiment.task)


def _in_epochs(experiment: Experiment, stage: Stage) -> str:
  """'epochs=3 of 2490 examples are steps=234, eval_epochs=1 eval_period=78; the data may differ'."""
  given = [
    f"{name}={getattr(stage, name):g} means {steps}={getattr(stage, steps)}"
    for steps, name in stages.IN_EPOCHS.items()
    if getattr(stage, name) is not None
  ]
  known = epochs.examples(experiment, stage) is not None
  counted = "counted again" if known else "an assumed number: they are counted"
  return f"{', '.join(given)} with {stage.examples} examples, {counted} when they are read"


def _saving(stage: Stage) -> str:
  """'validated and saved every 50 steps, stops after 3 validations in a row that are not better'."""
  text = "validated and saved at the end"
  if stage.eval_period is not None:
    text = f"validated and saved every {stage.eval_period} steps"
  if stage.save_period not in (None, stage.eval_period):
    text += f", saved every {stage.save_period}"
  if stage.patience is not None:
    text += f", stops after {stage.patience} validations in a row that are not better"
  return text


def _count(number: int) -> str:
  for unit, size in (("B", 10**9), ("M", 10**6)):
    if number >= size:
      return f"{number / size:.1f} {unit}"
  return f"{number:,}"


def _gb(number: int) -> str:
  return f"{number / 2**30:.2f} GB" if number >= 2**30 / 10 else f"{number / 2**20:.1f} MB"
