"""Results of the pretrained model, which are also those of a model whose backbone was not trained.

Prompt tuning leaves the backbone alone: with its prompt taken off, it is the pretrained model, bit
for bit.  Where that one was evaluated in the same way, nothing is run again.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from promot_jax import hosts, paths
from promot_jax.evaluation import task as task_lib
from promot_jax.evaluation.kept import Kept
from promot_jax.evaluation.setting import Setting
from promot_jax.evaluation.subject import Subject
from promot_jax.evaluation.task import EvalTask
from promot_jax.experiments import shapes
from promot_jax.experiments.checkpoint import PRETRAINED, Checkpoint
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.shared_results import open_results


def backbone_is_untouched(experiment: Experiment, checkpoint: Checkpoint) -> bool:
  """Whether a checkpoint with its method taken off is the pretrained model.

  That is so of a method file, and of stages that train nothing that the backbone had before.
  """
  if checkpoint.method is None:
    return False
  backbone = experiment.start.abstract()
  # By names in the model with its method: a stage's pattern may reach parameters of either.
  own = set(paths.named_leaves(backbone))
  names = paths.named_leaves(shapes.abstract_model(experiment))
  return not any(
    own.intersection(paths.match(stage.trainable, names))
    for stage in experiment.stages[: checkpoint.stages]
  )


def take_over(
  tasks: Sequence[EvalTask],
  *,
  subject: Subject,
  setting: Setting,
  kept: Kept,
  folders: Sequence[pathlib.Path],
  pretrained_identity: str,
) -> int:
  """Copies the pretrained model's results of tasks whose method is detached; returns how many.

  Args:
    tasks: what is to be evaluated; others than `detached` ones are left alone.
    subject: the model whose results they become; it has the pretrained one's origin.
    setting: as for the evaluator.
    kept: where the copies go.
    folders: result folders in which the pretrained model may have been evaluated.
    pretrained_identity: of the evaluations to look for.
  """
  copied, made_from = 0, subject.made_from
  for task in tasks:
    wanted = task_lib.plan(task, setting, identity=subject.identity, made_from=made_from)
    if task.method != "detached" or kept.find(wanted) is not None:
      continue
    # The pretrained model was measured without a method; its own is under that name.
    plain = dataclasses.replace(task, method="none")
    same = task_lib.plan(plain, setting, identity=pretrained_identity, made_from=made_from)
    for folder in folders:
      source = open_results(folder)
      found = source.find(PRETRAINED, same)
      if found is None:
        continue
      # Process 0 alone writes them, so the others need not read the file.
      predictions = list(source.predictions(PRETRAINED, found)) if hosts.is_first() else []
      result = dataclasses.replace(
        found, method=task.method, fingerprint=wanted.fingerprint, checkpoint=kept.checkpoint
      )
      kept.write(result, predictions)
      copied += 1
      break
  return copied
