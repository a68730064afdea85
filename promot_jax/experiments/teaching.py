"""How a stage is taught: by a model that is asked in each step, or by what was kept of it on the disk.

What is not kept yet is asked for before the stage begins, shard by shard; the teacher is then freed, and of
several runs that share a folder only the first ever loads it.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from promot_jax import hosts, identity, partitioning
from promot_jax.checkpoints import disk
from promot_jax.checkpoints.lease import Lease
from promot_jax.data.batches import EvalBatches, TrainBatches
from promot_jax.data.examples import Examples
from promot_jax.evaluation import evaluator
from promot_jax.evaluation.task import EvalTask
from promot_jax.experiments import data, origin, progress, validation
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.identity import Identity
from promot_jax.token_ids import TokenIds
from promot_jax.training import teacher_cache, top_tokens
from promot_jax.training.distillation import Distillation
from promot_jax.training.stages import Stage
from promot_jax.training.teacher_cache import Rest, TeacherCache

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teaching:
  """What a stage learns from, beside its batches.

  model: the teacher that is asked in each step; None: there is none, or what it says is kept.
  training, validation: what is kept, of each task; empty: nothing.
  """

  model: nnx.Module | None = None
  training: Sequence[TeacherCache] = ()
  validation: Sequence[TeacherCache] = ()

  def batches(self, batches: TrainBatches) -> Callable[[int], Batch]:
    """The batch of a step, with what is kept for it."""
    if not self.training:
      return batches
    return lambda step: teacher_cache.beside(batches(step), self.training, batches.indices(step))

  def validated(self, task: int, batch: Batch, numbers: np.ndarray) -> Batch:
    """A batch of the validation of one task, with what is kept for it."""
    if not self.validation:
      return batch
    return teacher_cache.beside(batch, self.validation[task : task + 1], numbers)


def of_stage(directory: ModelDirectory, stage: Stage, held_out: Sequence[EvalTask]) -> Teaching:
  """Asks the teacher for what is to be kept of it and is not yet, or makes it.

  Args:
    held_out: what the stage is validated on.

  Raises:
    ConfigError: the folder holds what another teacher said, or on other data.
    DamagedCheckpoint: a shard of it is damaged.
    CannotWrite: its disk is full or refuses.
    ModelDirInUse: another run is asking the teacher for the same folder.
    Preempted: a signal came; what was kept before stays.
  """
  experiment, session = directory.experiment, directory.session
  if stage.teacher_cache is None or not stage.reads_teacher:
    return Teaching(model=session.teacher(experiment, stage.name))
  training = data.examples_in_memory(experiment, stage.name, session.reader)
  if len(training) > 1:  # as `TrainBatches` numbers them
    training = [each.with_prompt_ids(number) for number, each in enumerate(training)]
  # Only where the validation computes the stage's own loss is the teacher asked about it.
  selected = [validation.with_rows(task) for task in held_out] if stage.measures_loss else []
  folder = pathlib.Path(stage.teacher_cache).expanduser()
  if os.sep not in stage.teacher_cache:  # as a stage is taken over from a sibling
    folder = directory.folder.parent / folder
  kept = functools.partial(_kept, directory, stage, folder)
  return Teaching(training=list(map(kept, training)), validation=list(map(kept, selected)))


def _kept(
  directory: ModelDirectory, stage: Stage, folder: pathlib.Path, examples: Examples
) -> TeacherCache:
  """What the teacher says on the examples, all of it on the disk."""
  experiment, events = directory.experiment, directory.events
  teacher, objective = experiment.teachers[stage.name], stage.objective
  assert isinstance(objective, Distillation)  # the stage has seen to it
  size = experiment.backbone.vocab_size
  count = min(stage.teacher_cache_tokens or size, size)

  def made_from() -> Any:
    settings = {"tokens": count, "temperature": objective.temperature}
    about = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    parts = {
      "teacher": origin.of_teacher(teacher, stage),
      "data": examples.content,  # their tokens, so vocabulary and largest lengths count
      "settings": identity.part(settings, about=about),
    }
    return Identity(parts=parts).to_json()

  found = Identity.from_json(hosts.first(made_from))
  assert found is not None
  name = re.sub(r"[^\w.]+", "-", f"{examples.name}-{examples.split}")
  cache = TeacherCache(
    folder=folder / name,
    made_from=found,
    lengths=np.array([len(tokens) for tokens in examples.targets]),
    count=count,
  )
  missing = hosts.first(cache.begin)
  if missing:
    events.line(
      f"teacher   {teacher.about} is asked about {len(missing)} of {cache.shards} parts of"
      f" {examples.name} {examples.split}: {disk.size_text(cache.nbytes(missing))} in {cache.folder}"
    )
    with hosts.held_by_first(lambda: _lease(cache, events.line)):
      hosts.check_shared(cache.folder)
      # Looked at once more, as another run may have been at it until now.
      _ask(directory, stage, examples, cache, hosts.first(cache.begin))
  rest = Rest(**hosts.first(lambda: dataclasses.asdict(cache.check())))
  events.line(
    f"teacher   {cache.folder} has {count} of {size} tokens of {rest.tokens:,} distributions; {rest}"
  )
  return cache


def _lease(cache: TeacherCache, report: Callable[[str], None]) -> Lease:
  what = f"What a teacher says, in {cache.folder},"
  return Lease(cache.folder, report=report, file=".asking", what=what)


def _ask(
  directory: ModelDirectory,
  stage: Stage,
  examples: Examples,
  cache: TeacherCache,
  missing: Sequence[int],
) -> None:
  """Has the missing shards written, and frees the teacher."""
  experiment, session = directory.experiment, directory.session
  objective = stage.objective
  assert isinstance(objective, Distillation)
  graphdef, state = nnx.split(session.teacher(experiment, stage.name))
  special = TokenIds.of(experiment.backbone)
  # A batch is one of the stage's microbatches: what fits there fits here.
  rows = stage.batch_size // stage.microbatches
  counts = (experiment.input_buckets, experiment.target_buckets)
  buckets = EvalBatches(examples, batch_size=rows, bucket_counts=counts, special=special).buckets
  total = sum(len(cache.numbers(shard)) for shard in missing)
  told = progress.reporter(directory.events, f"{stage.name} teacher", stop=session.stop_if_asked)
  done = 0
  for shard in missing:
    own = examples.select(cache.numbers(shard))
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for batch, numbers in EvalBatches(own, batch_size=rows, buckets=buckets, special=special):
      told(evaluator.Progress(done=done, total=total))
      tokens, log_p = top_tokens.distributions(
        state,
        directory.place(batch),
        graphdef=graphdef,
        count=cache.count,
        temperature=objective.temperature,
        chunk=objective.supervised.vocabulary_chunk,
      )
      tokens, log_p = partitioning.fetch(tokens), partitioning.fetch(log_p)
      for row, number in enumerate(numbers):
        if number >= 0:  # -1: a row that only fills the batch
          length = len(own.targets[number])
          found[number] = tokens[row, :length], log_p[row, :length]
          done += 1
    ordered = [found[number] for number in range(len(own))]
    hosts.only_first(
      functools.partial(
        cache.write, shard, [each for each, _ in ordered], [each for _, each in ordered]
      )
    )
  told(evaluator.Progress(done=done, total=total))
  session.forget_teachers(experiment)
