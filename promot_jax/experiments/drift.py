"""How far a model has come from the pretrained one, in the terms of the language model that both are.

  divergence   KL(p_theta || p_0), the mean over the target tokens of the tuned task's selection split, in nats
  perplexity   exp of the mean of -log p over the target tokens of general text

both under teacher forcing.  That the divergence on the new task goes with what is forgotten is the claim of Shenfeld et
al., 2025 (arXiv:2509.04259).  The pretrained model has a divergence of 0 and is the reference of the perplexity.

The tuned task is written in the form that it is tuned in, general text as for a model that was only pretrained.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

from promot_jax import partitioning
from promot_jax.data import examples as example_lists
from promot_jax.data.batches import EvalBatches
from promot_jax.data.examples import Examples
from promot_jax.experiments import data, remembered
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.from_pretrained import MICRO, FromPretrained
from promot_jax.experiments.measurement import Models
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.micro import held_out_text
from promot_jax.token_ids import TokenIds
from promot_jax.training import validation_loss
from promot_jax.training.distillation import Distillation
from promot_jax.training.objectives import Batch, Supervised
from promot_jax.training.selection import LOSS

Fetch = Callable[[Any], np.ndarray]
_FILE = "from_pretrained.figures.jsonl"


def measured(
  directory: ModelDirectory, checkpoint: Checkpoint, *, models: Models
) -> Mapping[str, Mapping[str, float]]:
  """Figures of a checkpoint by the state of its method: 'on', 'off', or 'none' without one.

  Empty where the experiment's plan asks for none; what was computed before is found again.  With a method that
  answers by a prediction head there are figures without it alone: it has no target tokens.
  """
  experiment = directory.experiment
  plan = experiment.evaluation.from_pretrained
  if plan is None:
    return {}
  tuned, general = _tuned(directory, plan), _general(directory, plan)
  seen = [tuned.content.digest, general.content.digest if general is not None else ""]

  batch_size = experiment.evaluation.batch_size
  batches = functools.partial(in_batches, directory, batch_size=batch_size)

  def compute() -> dict[str, Any]:
    directory.events.line(f"divergence and perplexity of {checkpoint.name}")
    model = models.model(checkpoint)
    start = directory.session.start_of_all(experiment)
    chunk, fetch = plan.vocabulary_chunk, partitioning.fetch
    found: dict[str, dict[str, float]] = {}
    for state, each in _states(experiment, checkpoint, model).items():
      directory.session.stop_if_asked()
      apart = divergences(each, start, lambda: batches(tuned), chunk=chunk, fetch=fetch)
      found[state] = {"divergence": apart.divergence, "reverse": apart.reverse}
      if general is not None:
        found[state]["perplexity"] = perplexity(each, batches(general), chunk=chunk, fetch=fetch)
    return found

  return remembered.figures(
    directory,
    checkpoint,
    path=directory.folder / "evaluation" / _FILE,
    settings={"batch_size": batch_size},
    examples=" ".join(seen),
    compute=compute,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Divergences:
  """KL(model || pretrained) and KL(pretrained || model), means over so many target tokens, in nats."""

  divergence: float
  reverse: float
  tokens: int


def divergences(
  model: nnx.Module,
  pretrained: nnx.Module,
  batches: Callable[[], Iterable[Batch]],
  *,
  chunk: int | None = None,
  fetch: Fetch = np.asarray,
) -> Divergences:
  """How far two models are apart on the target tokens of batches.

  Args:
    batches: gives them anew for each direction.
    chunk: largest number of logits a token that exist at once; None: all of them.
    fetch: gives the whole of an array.
  """
  # The divergence of a student from its teacher is what distillation minimizes.
  objective = Distillation(weight=1.0, supervised=Supervised(vocabulary_chunk=chunk))

  def total(student: nnx.Module, teacher: nnx.Module) -> tuple[float, float]:
    parts = validation_loss.sums(student, objective, batches(), teacher=teacher, fetch=fetch)
    return validation_loss.add(parts)[LOSS]

  apart, weight = total(pretrained, model)
  reverse, _ = total(model, pretrained)
  return Divergences(divergence=apart / weight, reverse=reverse / weight, tokens=round(weight))


def perplexity(
  model: nnx.Module,
  batches: Iterable[Batch],
  *,
  chunk: int | None = None,
  fetch: Fetch = np.asarray,
) -> float:
  """exp of the mean of -log p over the target tokens of batches."""
  objective = Supervised(vocabulary_chunk=chunk)
  total, weight = validation_loss.add(validation_loss.sums(model, objective, batches, fetch=fetch))[
    LOSS
  ]
  return math.exp(total / weight)


def in_batches(directory: ModelDirectory, examples: Examples, batch_size: int) -> Iterator[Batch]:
  """Every example once, in batches of few shapes on the run's devices."""
  experiment = directory.experiment
  batches = EvalBatches(
    examples,
    batch_size=batch_size,
    bucket_counts=(experiment.input_buckets, experiment.target_buckets),
    special=TokenIds.of(experiment.backbone),
  )
  return (directory.place(batch) for batch, _ in batches)


def _states(
  experiment: Experiment, checkpoint: Checkpoint, model: nnx.Module
) -> dict[str, nnx.Module]:
  method = checkpoint.method
  if method is None:
    return {"none": model}
  off = {"off": method.detach(model)}
  last = experiment.stages[checkpoint.stages - 1] if checkpoint.stages else None
  return off if last is not None and last.objective.reads_classes else {"on": model, **off}


def _tuned(directory: ModelDirectory, plan: FromPretrained) -> Examples:
  """The first examples of the selection split of each tuned task."""
  tasks = data.selection_tasks(directory.experiment, directory.session.reader)
  return example_lists.concatenate(
    [
      task.examples.select(range(len(task.examples))[: plan.limit]).with_prompt_ids(
        task.bank_row or 0
      )
      for task in tasks
    ]
  )


def _general(directory: ModelDirectory, plan: FromPretrained) -> Examples | None:
  """General text in the form that a model was pretrained with."""
  experiment = directory.experiment
  if plan.text is None:
    return None
  if plan.text == MICRO:
    pairs = held_out_text.pairs(
      plan.limit or held_out_text.MOST,
      gaps=TokenIds.of(experiment.backbone).decoder_start is not None,
    )
    inputs, targets = ([np.asarray(each, np.int32) for each in side] for side in zip(*pairs))
    return example_lists.in_memory("text.micro", inputs, targets, [{}] * len(pairs))
  return data.eval_task(
    experiment,
    plan.text,
    experiment.splits_of(plan.text).report,
    directory.session.reader,
    tuned=False,
    method="none",
    bank_row=0,
    lengths=data.lengths_of(experiment, plan.text),
    limit=plan.limit,
  ).examples
