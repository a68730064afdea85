"""Few-shot prompts of the micro tasks as plain text, for measuring a model without TensorFlow."""

import dataclasses
import functools

from promot_jax.data import few_shot, templates
from promot_jax.micro import world


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
  """Prompts of one task.

  Attributes:
    task: name of the task without its shots.
    inputs: the texts, demonstrations before the query.
    targets: for each input, every answer that counts as right, without sentinels.
  """

  task: str
  inputs: tuple[str, ...]
  targets: tuple[tuple[str, ...], ...]


def evaluation_set(
  task: str, split: str = "test", *, shots: int = 1, limit: int | None = None, seed: int = 0
) -> EvaluationSet:
  """The first `limit` records of a split, each after `shots` solved records of train.

  The demonstrations are those that the seqio tasks choose for the same query and seed.
  """
  queries = [templates.render(task, record) for record in world.records(task, split)[:limit]]
  prompts = [query.input for query in queries]
  if shots:
    pool = _demonstrations(task)
    prompts = [pool.prompt(query.input, shots=shots, seed=seed) for query in queries]
  return EvaluationSet(task, tuple(prompts), tuple(query.answers for query in queries))


def eval_sets(
  split: str = "test",
  shots: int = 1,
  limit: int | None = 96,
  seed: int = 0,
  tasks: tuple[str, ...] = world.TASKS,
) -> list[EvaluationSet]:
  """The evaluation sets of several tasks; all twelve by default."""
  return [evaluation_set(task, split, shots=shots, limit=limit, seed=seed) for task in tasks]


@functools.cache
def _demonstrations(task: str) -> few_shot.Demonstrations:
  rendered = (templates.render(task, record) for record in world.records(task, "train"))
  return few_shot.Demonstrations((each.input, each.target) for each in rendered)
