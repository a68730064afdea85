"""Load a model, attach a method, tune it, evaluate it: promot_jax without gin and without a model directory.

Uses the built-in world and its small pretrained model; a minute on two CPU cores.  With a model and a task of your
own only the first two blocks change: `Network(backbone=sizes.t5_1_1_small(), checkpoint="/data/checkpoint_1000000")`,
and examples of any seqio task or table.

    python docs/example.py
"""

import functools
import sys
import tempfile

from flax import nnx

from promot_jax.checkpoints.store import Store
from promot_jax.data.batches import TrainBatches
from promot_jax.data.examples import Examples
from promot_jax.data.quiet import quiet
from promot_jax.evaluation.evaluator import EvalTask, Setting, Subject, evaluate
from promot_jax.methods.lora import LoRA
from promot_jax.micro.vocabulary import vocabulary
from promot_jax.models import sizes
from promot_jax.networks.network import Network
from promot_jax.training import optimizers, schedules
from promot_jax.training.loop import train_stage
from promot_jax.training.stages import Stage
from tasks import catalog, reading


def main(steps: int = 200, items: int = 96) -> dict[str, float]:
  """Accuracy on RTE, and on CB with one demonstration, before and after tuning on RTE.

  Args:
    steps: updates.
    items: examples of each task that are evaluated.
  """
  # The model: an architecture, where its values come from, and the words it reads.
  words = vocabulary()
  network = Network(backbone=sizes.micro(vocab_size=words.size), checkpoint="micro")
  network.check()
  pretrained = network.build()
  special = pretrained.token_ids

  # The examples: the built-in world's RTE, and CB with a demonstration before each question.
  @functools.cache
  def read(task: str, split: str, limit: int | None = None) -> Examples:
    name = catalog.resolve(task, source="micro")
    with quiet():
      return reading.load_examples(name, split, {"inputs": 128, "targets": 24}, limit=limit)

  # The method: both functions share the arrays of the model that they are given, and leave it alone.
  method = LoRA(rank=4)
  attached = method.attach(pretrained, nnx.Rngs(0))

  # Tuning: the method's parameters are trained, all others are frozen.
  stage = Stage(
    name="lora",
    trainable=method.parameters,
    steps=steps,
    batch_size=64,
    optimizer=optimizers.adamw,
    learning_rate=schedules.linear(5e-3, total_steps=steps),
  )
  batches = TrainBatches(read("rte", "train"), batch_size=stage.batch_size, special=special)
  with tempfile.TemporaryDirectory() as folder:
    store = Store(folder)
    tuned = train_stage(stage, attached, batches=batches, store=store, seed=0).model
    store.close()

  # Evaluation: each task says whether it sees the model with the method or without.
  def task(name: str, split: str, used: str) -> EvalTask:
    base, shots = catalog.split_shots(name)
    about = catalog.find(base)
    return EvalTask(
      label=base,
      shots=shots,
      examples=read(name, split, items),
      metric_fns=tuple(about.metric_fns),
      metric=about.metric,
      postprocess=about.postprocess,
      method=used,
    )

  def accuracy(model: nnx.Module, *tasks: EvalTask) -> list[float]:
    subject = Subject(make=lambda: model, decode=words.decode, detach=method.detach)
    setting = Setting(special=special, max_target_length=24)
    return [result.scores[result.metric] for result in evaluate(subject, tasks, setting=setting)]

  rte, cb = ("rte", "test"), ("cb_1shot", "validation")
  before = accuracy(pretrained, task(*rte, "none"), task(*cb, "none"))
  after = accuracy(tuned, *(task(*each, "attached") for each in (rte, cb)), task(*cb, "detached"))
  names = ("RTE", "CB", "RTE, tuned", "CB, tuned", "CB, tuned, method off")
  return dict(zip(names, [*before, *after]))


if __name__ == "__main__":
  for name, value in main().items():
    sys.stdout.write(f"{name:22} {value:5.1f}\n")
