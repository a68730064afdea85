"""The time of a training step of every stage of a recipe, beside full fine-tuning's.

  python benchmarks/recipe_steps.py --gin_file=comparison_methods_rte_micro.gin

A run records the times of its own steps, one experiment after the other; on a machine with other work
these are not comparable.  Here the stages of all experiments take turns on the same batches, in one
process, with the models, optimizers and batches of the recipe.  Rows are Markdown.  Read the ratios.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from promot_jax import paths
from promot_jax.cli import allocator, gin_config
from promot_jax.experiments import data
from promot_jax.experiments.comparison import experiments_of
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.session import Session
from promot_jax.networks import network
from promot_jax.signals import Stop
from promot_jax.training import stage_dropout, state, step
from promot_jax.training.events import Events
from promot_jax.training.stages import Stage

REFERENCE = "fine_tuning: model"


def main() -> None:
  flags = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  flags.add_argument("--gin_file", required=True)
  flags.add_argument("--repeats", type=int, default=20, help="timed steps of each stage")
  options = flags.parse_args()
  allocator.keep_memory()
  run = gin_config.build(gin_config.read([options.gin_file], []))
  stages = {
    f"{experiment.name}: {stage.name}": (experiment, stage)
    for experiment in experiments_of(run)
    for stage in experiment.stages
    if stage.name not in experiment.imported_stages  # the same stage of another experiment
  }
  if REFERENCE not in stages:
    raise SystemExit(f"{options.gin_file} has no '{REFERENCE}' to compare with.")
  shared = Session(stop=Stop(), console=Events())
  steps = {name: StageStep(*pair, shared) for name, pair in stages.items()}
  for each in steps.values():
    each(0)  # compiles
  times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
  for index in range(1, options.repeats + 1):
    order = list(steps.items())
    for name, each in order if index % 2 else reversed(order):
      times[name].append(each(index))
  _print(steps, times)


class StageStep:
  """step(index) -> (CPU seconds, wall seconds) of the update with the stage's batch of that index."""

  def __init__(self, experiment: Experiment, stage: Stage, shared: Session):
    model = network.attach(
      shared.pretrained(experiment), experiment.method, None, seed=experiment.seed
    )
    optimizer = stage.optimizer(stage.learning_rate)
    _, trainable, self.frozen = paths.split(model, stage.trainable)
    self.trained = paths.count(trainable)
    self.backbone = paths.count(shared.pretrained(experiment))
    self.state = state.create_state(trainable, optimizer)
    self.batches = data.train_batches(experiment, stage.name, stage.batch_size, shared.reader)
    self.key = jax.random.key(experiment.seed)
    self.step = step.make_train_step(
      stage_dropout.graphdef(model, stage),
      stage.objective,
      optimizer,
      stage.learning_rate,
      microbatches=stage.microbatches,
    )

  def __call__(self, index: int) -> tuple[float, float]:
    batch = jax.tree.map(np.asarray, dict(self.batches(index)))
    cpu, wall = time.process_time(), time.perf_counter()
    self.state, metrics = self.step(self.state, self.frozen, batch, self.key)
    jax.block_until_ready((self.state, metrics))
    return time.process_time() - cpu, time.perf_counter() - wall


def _print(steps: dict[str, StageStep], times: dict[str, list[tuple[float, float]]]) -> None:
  reductions = {"CPU min": (0, min), "CPU median": (0, statistics.median), "wall min": (1, min)}
  heads = [cell for name in reductions for cell in (f"{name}, ms", "ratio")]
  print("| " + " | ".join(["stage", "trained", "share", *heads]) + " |")
  print("|---|" + "--:|" * (len(heads) + 2))
  for name, each in steps.items():
    cells = [name, f"{each.trained:,}", f"{100 * each.trained / each.backbone:.3g} %"]
    for clock, reduce in reductions.values():
      own, base = (reduce([pair[clock] for pair in times[row]]) for row in (name, REFERENCE))
      cells += [f"{1000 * own:.1f}", f"{own / base:.2f}"]
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
  main()
