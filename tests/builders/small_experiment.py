"""An experiment small enough to be run by several processes of one machine, again and again.

`small_experiment.py DIRECTORY [--model N] [--stages N] [--steps N] [--step_seconds S]` and the flags
of `promot train` for several processes.  On the micro RTE: one stage that trains prompt and backbone,
or two stages and an unseen task; then the evaluation.  Lines of the run go to stdout; failures end it
with their exit code.
"""

import argparse
import functools
import os
import pathlib
import sys
import time

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

from promot_jax.cli import cluster, failures
from promot_jax.errors import PromotError


def describe(directory: pathlib.Path, *, model: int, stages: int, steps: int):
  """The experiment; all its dimensions differ, and they can be divided over 1, 2 and 4 devices."""
  from promot_jax.decoding.strategies import Greedy
  from promot_jax.experiments.experiment import EvaluationPlan, Experiment, MeshShape
  from promot_jax.methods.initializers import SampledVocabulary
  from promot_jax.methods.prompt import SoftPrompt
  from promot_jax.networks import micro_model
  from promot_jax.networks.network import Network
  from promot_jax.training import optimizers, schedules
  from promot_jax.training.stages import Stage

  def stage(name: str, trainable: str, optimizer, rate: float) -> Stage:
    return Stage(
      name=name,
      trainable=trainable,
      steps=steps,
      eval_period=max(1, steps // 2),
      save_period=3,
      log_period=1,
      batch_size=8,
      optimizer=optimizer,
      learning_rate=schedules.constant(rate),
      keep_small_bytes=0,
    )

  return Experiment(
    name="promot",
    model_dir=str(directory),
    network=Network(
      backbone=micro_model.config(
        width=16,
        heads=4,
        head_width=6,
        mlp_width=20,
        encoder_layers=1,
        decoder_layers=1,
        dropout_rate=0.1,
      ),
      checkpoint="random",
    ),
    source="micro",
    task="rte",
    feature_lengths={"inputs": 64, "targets": 8},
    method=SoftPrompt(length=5, initializer=SampledVocabulary()),
    stages=[
      stage("prompt", ".*/prompt/.*", optimizers.prompt_adafactor, 0.3),
      stage("model", "!.*/prompt/.*", optimizers.adafactor, 0.01),
    ]
    if stages == 2
    else [stage("model", ".*", optimizers.adafactor, 0.01)],
    evaluation=EvaluationPlan(
      unseen=("cb",) if stages == 2 else (),
      strategy=Greedy(),
      batch_size=8,
      buckets=1,
      limit=11,
      feature_lengths={"inputs": 96, "targets": 8},
    ),
    train_limit=40,
    validation_limit=7,
    input_buckets=1,
    target_buckets=1,
    seed=3,
    mesh=MeshShape(data=-1, model=model),
  )


def run() -> int:
  """Runs or goes on."""
  parser = argparse.ArgumentParser()
  parser.add_argument("directory", type=pathlib.Path)
  parser.add_argument("--model", type=int, default=2)
  parser.add_argument("--stages", type=int, default=1)
  parser.add_argument("--steps", type=int, default=6)
  parser.add_argument("--step_seconds", type=float, default=0.0)
  parser.add_argument("--coordinator_address")
  parser.add_argument("--process_count", type=int)
  parser.add_argument("--process_id", type=int)
  parser.add_argument("--heartbeat_seconds", type=int, default=100)
  flags = parser.parse_args(namespace=argparse.Namespace(quiet=True, peer_wait_seconds=300))
  try:
    cluster.connect(flags)

    from promot_jax.data.batches import TrainBatches
    from promot_jax.experiments import execute
    from promot_jax.training.events import Console

    if flags.step_seconds:
      make = TrainBatches.__call__

      @functools.wraps(make)
      def slowly(self, step):
        time.sleep(flags.step_seconds)
        return make(self, step)

      TrainBatches.__call__ = slowly
    execute.execute(
      describe(flags.directory, model=flags.model, stages=flags.stages, steps=flags.steps),
      sinks=[Console(sys.stdout, seconds=0)],
    )
    return 0
  except PromotError as error:
    sys.stdout.write(f"{type(error).__name__}: {error}\n")
    return failures.leave(error.exit_code, alone=not error.of_all)


if __name__ == "__main__":
  sys.exit(run())
