"""Results of the pretrained model, which are also those of a model whose backbone was not trained.

Prompt tuning leaves the backbone alone: with its prompt taken off, it is the pretrained model, bit
for bit.  Where that one was evaluated in the same way, nothing is run again.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax import hosts, paths
from promot_jax.evaluation import task as task_lib
from promot_jax.evaluation.results import ResultStore
from promot_jax.evaluation.task import EvalTask
from promot_jax.experiments import shapes
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.shared_results import open_results
from promot_jax.identity import Identity

PRETRAINED = "pretrained"
"""Name of the checkpoint before any stage."""


def backbone_is_untouched(experiment: Experiment, stages: int) -> bool:
  """Whether the first `stages` stages train nothing that the backbone had before."""
  if experiment.method is None or not stages:
    return False
  backbone = experiment.start.abstract()
  own = set(paths.named_leaves(backbone))
  names = paths.named_leaves(shapes.abstract_model(experiment))
  return not any(
    own.intersection(paths.match(stage.trainable, names)) for stage in experiment.stages[:stages]
  )


def take_over(
  tasks: Sequence[EvalTask],
  *,
  folders: Sequence[pathlib.Path],
  pretrained_identity: str,
  store: ResultStore,
  checkpoint: str,
  identity: str,
  made_from: Identity,
  settings: Mapping[str, Any],
) -> int:
  """Copies the pretrained model's results of tasks whose prompt is detached; returns how many.

  Args:
    tasks: what is to be evaluated; others than `detached` ones are left alone.
    folders: result folders in which the pretrained model may have been evaluated.
    pretrained_identity: of the evaluations to look for.
    store, checkpoint, identity: where the copies go, and of which model they are.
    made_from: origin of both models.
    settings: strategy, max_target_length, format_metric, special and seed, as for the evaluator.
  """
  copied = 0
  for task in tasks:
    wanted = task_lib.plan(task, identity=identity, made_from=made_from, **settings)
    if task.prompt != "detached" or store.find(checkpoint, wanted) is not None:
      continue
    plain = dataclasses.replace(task, prompt="none")
    same = task_lib.plan(plain, identity=pretrained_identity, made_from=made_from, **settings)
    for folder in folders:
      source = open_results(folder)
      found = source.find(PRETRAINED, same)
      if found is None:
        continue
      predictions = list(source.predictions(PRETRAINED, found)) if hosts.is_first() else []
      result = dataclasses.replace(
        found, prompt=task.prompt, fingerprint=wanted.fingerprint, checkpoint=checkpoint
      )
      store.write(checkpoint, result, predictions)
      copied += 1
      break
  return copied
