"""Makes the small models that come with the package, from nothing.

The stream of `promot_jax.micro.pretraining` or `decoder_pretraining` replaces a task's batches; everything
else is one more stage: checkpoints, exact resume, and the step with the best few-shot scores is exported
as `weights.npz` or `decoder_weights.npz`, with a card that says how it was made.
"""

import dataclasses
import functools
import io
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from flax import nnx

from promot_jax import hosts, identity, paths, signals
from promot_jax.checkpoints.lease import Lease
from promot_jax.checkpoints.store import Store
from promot_jax.data import examples as example_lists
from promot_jax.data.task import Task
from promot_jax.errors import ConfigError
from promot_jax.evaluation import evaluator
from promot_jax.evaluation.averages import UNSEEN_TASKS
from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.whole_files import write_bytes, write_text
from promot_jax.experiments import progress
from promot_jax.experiments.experiment import check_seed
from promot_jax.experiments.record import environment
from promot_jax.identity import Identity
from promot_jax.micro import evaluation_sets, world
from promot_jax.micro.curriculum import CURRICULUM, DECODER_CURRICULUM, INFERENCE, TEXT, Phase
from promot_jax.micro.decoder_pretraining import DecoderStream
from promot_jax.micro.pretraining import Stream
from promot_jax.micro.vocabulary import EOS, vocabulary
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.t5_config import T5Config
from promot_jax.networks import backbones, micro_model
from promot_jax.training import loop
from promot_jax.training.events import Events, JsonLines, Sink
from promot_jax.training.stages import Stage
from promot_jax.training.tensorboard import TensorBoard
from tasks import catalog

RECIPE_VALUES = ("Pretraining",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretraining:
  """A pretraining run of a micro model.

  model_dir: where checkpoints and the file of weights are written.
  stage: all parameters, from a random start; `batch_size` is nominal, the curriculum decides.
  backbone: its kind decides over the stream.
  curriculum: phases of the stream; (): those that the shipped weights were made with.
  shots: the few-shot scores that choose the step: `norm_avg`, the mean over unseen tasks and these.
  limit: examples of each task in a validation.
  """

  model_dir: str
  stage: Stage
  backbone: T5Config | DecoderLMConfig = dataclasses.field(default_factory=micro_model.config)
  curriculum: Sequence[Phase] = ()
  shots: Sequence[int] = (1,)
  limit: int = 96
  seed: int = 0

  def __post_init__(self) -> None:
    check_seed("Pretraining.seed", self.seed)
    if not self.curriculum:
      object.__setattr__(self, "curriculum", DECODER_CURRICULUM if self.is_decoder else CURRICULUM)
    if self.stage.has_epochs:
      raise ConfigError("Pretraining's stream of examples never ends: give its stage in steps.")

  @property
  def is_decoder(self) -> bool:
    """Whether the model is decoder-only."""
    return isinstance(self.backbone, DecoderLMConfig)


def pretrain(
  run: Pretraining,
  *,
  sinks: Sequence[Sink] = (),
  started: Callable[[], None] = lambda: None,
) -> pathlib.Path:
  """Trains, or goes on training, and exports the chosen step; returns the path of the weights.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  if hosts.several():
    raise hosts.of_all(
      ConfigError(
        "the micro model is pretrained by one process; leave --process_count out, or pass 1."
      )
    )
  folder = pathlib.Path(run.model_dir)
  kind = DecoderStream if run.is_decoder else Stream
  stream = kind(run.curriculum, tasks=_tasks(run.curriculum), seed=run.seed)
  with Lease(folder), signals.catch(report=Events(sinks).line):
    files: list[Sink] = [
      JsonLines(folder / "train" / "metrics.jsonl", report=Events(sinks).line),
      TensorBoard(folder / "train"),
    ]
    events = Events([*sinks, *files])
    store = Store(folder / "stages" / run.stage.name, keep=run.stage.keep, report=events.line)
    start = time.monotonic()
    result = loop.train_stage(
      run.stage,
      backbones.build(run.backbone, nnx.Rngs(run.seed)),
      batches=stream.batch,
      store=store,
      seed=run.seed,
      validate=functools.partial(validate, run, events=events),
      made_from=_made_from(run),
      events=events,
      accepted=started,
    )
    store.close()
    events.close()
  # In memory first: the file takes its place whole, since a half-written one would be shipped.
  weights = folder / micro_model.file_name(run.backbone)
  buffer = io.BytesIO()
  leaves = jax.device_get(paths.named_leaves(result.model))
  np.savez_compressed(buffer, **leaves)
  write_bytes(weights, buffer.getvalue())
  # How these very weights were made lies beside them, to be made again.
  card = {
    "step": result.step,
    "why": result.why,
    "steps": run.stage.steps,
    "seed": run.seed,
    "parameters": paths.count(result.model),
    "bytes": weights.stat().st_size,
    "seconds of this process": round(time.monotonic() - start),
    "validation": result.history,
    "backbone": dataclasses.asdict(run.backbone),
    "environment": environment(),
  }
  write_text(weights.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
  return weights


def _tasks(curriculum: Sequence[Phase]) -> list[Task]:
  """The tasks of which the phases show records."""
  named = dict.fromkeys(name for phase in curriculum for name in phase.mixture)
  return [catalog.find(name) for name in named if name not in (TEXT, INFERENCE)]


def _made_from(run: Pretraining) -> Identity:
  """The stream is made of code: what it is told apart by is the micro world's source."""
  source = identity.of_files(pathlib.Path(world.__file__).parent, read=("*.py", "*.txt"))
  about = f"the micro world, {len(run.curriculum)} phases"
  return Identity(
    parts={
      "training data": identity.part([source, repr(run.curriculum), run.seed], about=about),
      "code": identity.of_code(),
      "values": identity.of_values(),
    }
  )


def validate(
  run: Pretraining, model: nnx.Module, *, events: Events | None = None
) -> Mapping[str, float]:
  """Few-shot scores on the validation splits: 'norm_avg', and each task's own."""
  tasks = [
    _eval_task(
      evaluation_sets.evaluation_set(
        catalog.find(name), "validation", shots=shots, limit=run.limit
      ),
      shots,
    )
    for shots in run.shots
    for name in UNSEEN_TASKS
  ]
  results = evaluator.evaluate(
    evaluator.Subject(make=lambda: model, decode=vocabulary().decode),
    tasks,
    setting=evaluator.Setting(special=run.backbone.token_ids, max_target_length=24),
    batching=evaluator.Batching(batch_size=run.limit, buckets=2),
    progress=progress.reporter(events or Events(), f"{run.stage.name} validation"),
  )
  return {"norm_avg": float(np.mean([r.score for r in results])), **_named(results)}


def _named(results: Sequence[TaskResult]) -> dict[str, float]:
  return {f"{result.task}_{result.shots}shot": result.score for result in results}


def _eval_task(each: evaluation_sets.EvaluationSet, shots: int) -> evaluator.EvalTask:
  words = vocabulary()
  inputs = [np.asarray([*words.encode(text), EOS], np.int32) for text in each.inputs]
  targets = [np.asarray([*words.encode(found[0]), EOS], np.int32) for found in each.targets]
  records = [
    {"inputs": text, "targets": found[0], "answers": list(found)}
    for text, found in zip(each.inputs, each.targets)
  ]
  return evaluator.EvalTask(
    label=each.task.name,
    shots=shots,
    examples=example_lists.in_memory(each.task.name, inputs, targets, records),
    metric_fns=tuple(each.task.metric_fns),
    metric=each.task.metric,
    postprocess=each.task.postprocess,
    split="validation",
  )
